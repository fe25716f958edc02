export type { KeyOrder } from '../core/keys/key-store.ts'
export { type ApiKey, type KeyStatus, keyStatus, type Owner } from '../core/keys/record.ts'
export type { ApiKeyPage, ErasedOwner, IssuedKey, RotatedKey } from '../core/manage/key-management.ts'
export type { ErrorCode } from '../errors.ts'
export {
  type ApiKeysClient,
  type CallOptions,
  type ChangeCallOptions,
  createApiKeysClient,
  type IssueKeyRequest,
  type ListKeysRequest,
  type MakeCallOptions,
  type RevokeCallOptions,
  type RotateKeyRequest,
  type UpdateKeyRequest,
} from './api-keys-client.ts'
export { ApiKeysClientError, type ClientFailure, isApiKeysClientError } from './client-error.ts'
export type { ApiKeysClientOptions } from './connection.ts'
export type { Verification, VerificationRefusal, VerifyKeyRequest } from './verification.ts'
