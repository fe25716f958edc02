export { type ApiKeys, type ApiKeysOptions, createApiKeys } from './core/api-keys.ts'
export type { Clock } from './core/clock.ts'
export type { DigestScheme, Pepper } from './core/digest.ts'
export type { ApiKeyEvent, ApiKeyListener } from './core/events.ts'
export type { FailedAttemptsOptions } from './core/failed-attempts.ts'
export type { ForeignDigest, KeyPart } from './core/foreign-digest.ts'
export type { ImportFormat, KeyFormat } from './core/foreign-format.ts'
export { type BcryptFormatOptions, type BcryptRow, bcryptFormat } from './core/formats/bcrypt.ts'
export {
  type BetterAuthFormatOptions,
  type BetterAuthRow,
  betterAuthFormat,
} from './core/formats/better-auth.ts'
export {
  type DjangoApiKeyFormatOptions,
  type DjangoApiKeyRow,
  djangoApiKeyFormat,
} from './core/formats/django-api-key.ts'
export type { HashedRow } from './core/formats/hashed-row.ts'
export { type PlainTextFormatOptions, type PlainTextRow, plainTextFormat } from './core/formats/plain-text.ts'
export { type PrefixedApiKeyRow, prefixedApiKeyFormat } from './core/formats/prefixed-api-key.ts'
export { type SanctumFormatOptions, type SanctumRow, sanctumFormat } from './core/formats/sanctum.ts'
export { unkeyFormat } from './core/formats/unkey.ts'
export type { ImportedKey } from './core/imported-key.ts'
export type { Invalidation, InvalidationListener, KeyVersion } from './core/invalidation.ts'
export { secretScanningPattern } from './core/key-format.ts'
export type {
  ApiKeyPage,
  ChangeOptions,
  ImportAllOptions,
  ImportProgress,
  InvalidImport,
  IssuedKey,
  IssueOptions,
  KeyManagement,
  ListOptions,
  PurgeOptions,
  RevokeAllOptions,
  RevokeCreatedByOptions,
  RevokeOptions,
  RotatedKey,
  RotateOptions,
  UpdateOptions,
} from './core/key-management.ts'
export type { KeySettings } from './core/key-settings.ts'
export type {
  KeyChange,
  KeyFilter,
  KeyPosition,
  KeyStore,
  QuotaSwap,
  QuotaSwapResult,
  UsageDelta,
} from './core/key-store.ts'
export type { ApiKeyVerifier, Happening, VerifyOptions } from './core/key-verifier.ts'
export { missingPermissions, type PermissionRequirement, type Permissions } from './core/permissions.ts'
export { isSameQuota, type Quota, type QuotaRecord, type QuotaRefill, startQuota } from './core/quota.ts'
export type { CompiledLimit, LimitState, RateLimit } from './core/rate-limit.ts'
export type {
  LimitAnswer,
  LimiterHappening,
  LimitRequest,
  RateLimiter,
  RefundRequest,
  VersionMark,
} from './core/rate-limiter.ts'
export {
  type ApiKey,
  type ApiKeyQuota,
  type KeyRecord,
  type KeyStatus,
  keyStatus,
  type Metadata,
  type Owner,
} from './core/record.ts'
export type { InvalidReason, RefusedKey, VerifiedKey, VerifyResult } from './core/verify-result.ts'
export { type ErrorCode, isLatchkeyError, LatchkeyError, type LatchkeyErrorOptions } from './errors.ts'
export {
  type MemoryRateLimiter,
  type MemoryRateLimiterOptions,
  memoryRateLimiter,
} from './rate-limits/memory.ts'
export { memoryStore } from './stores/memory.ts'
