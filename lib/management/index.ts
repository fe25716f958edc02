export type { Ability, Actor, ActorOwner } from './actor.ts'
export type { ClientFields, DurationCeiling, QuotaCeiling } from './client-fields.ts'
export {
  type ApiRequest,
  type ApiResponse,
  createKeyManagementApi,
  type KeyManagementApi,
  type KeyManagementApiOptions,
} from './key-management-api.ts'
export { openApiDocument } from './openapi.ts'
export type { Action, PolicyOptions } from './policy.ts'
export type { RequestLimitOptions } from './request-limit.ts'
export type {
  ApiKeyJson,
  ApiKeyPageJson,
  ErasedOwnerJson,
  EraseRequest,
  ExplainRequest,
  ExplanationJson,
  IssuedKeyJson,
  IssueRequest,
  ListQuery,
  RevokeAllRequest,
  RevokedCountJson,
  RevokeRequest,
  RotatedKeyJson,
  RotateRequest,
  UpdateRequest,
  VerificationJson,
  VerifyRequest,
} from './schemas.ts'
