export type { KeyOrder } from '../core/keys/key-store.ts'
export { type ApiKey, type KeyStatus, keyStatus, type Owner } from '../core/keys/record.ts'
export type { ApiKeyPage, ErasedOwner, IssuedKey, RotatedKey } from '../core/manage/key-management.ts'
export type { UnusedPermissions, UnusedPermissionsOptions } from '../core/usage/unused-permissions.ts'
export type { UsageBucket, UsageReport, UsageTotals } from '../core/usage/usage-report.ts'
export type { ExplainedStep, ExplainedStepName, Explanation } from '../core/verify/explanation.ts'
export type { ErrorCode } from '../errors.ts'
export { type ApiKeysClient, createApiKeysClient } from './api-keys-client.ts'
export { ApiKeysClientError, type ClientFailure, isApiKeysClientError } from './client-error.ts'
export type { ApiKeysClientOptions } from './connection-options.ts'
export type {
  CallOptions,
  ChangeCallOptions,
  IssueKeyRequest,
  ListKeysRequest,
  MakeCallOptions,
  RevokeCallOptions,
  RotateKeyRequest,
  UpdateKeyRequest,
  UsageRequest,
} from './requests.ts'
export type {
  ExplainKeyRequest,
  Verification,
  VerificationRefusal,
  VerifyKeyRequest,
} from './verification.ts'
