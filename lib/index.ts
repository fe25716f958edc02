export { type ApiKeys, createApiKeys } from './core/api-keys.ts'
export type { ApiKeysOptions } from './core/api-keys-options.ts'
export type { Clock } from './core/clock.ts'
export type {
  CacheMessage,
  DependencyMessage,
  DependencyOperation,
  FaultMessage,
  LatchkeyChannels,
  LimiterMessage,
  UsageMessage,
  VerifyMessage,
  VerifyOutcome,
  VerifyStartMessage,
  VerifyStep,
} from './core/diagnostics/messages.ts'
export type { DigestScheme, Pepper } from './core/digests/digest.ts'
export type { ImportedDigest, KeyPart } from './core/digests/digest-coverage.ts'
export type { ApiKeyEvent, ApiKeyListener } from './core/events.ts'
export type { ExpiryRemindersOptions } from './core/expiry/reminder-options.ts'
export type { Invalidation, InvalidationListener, KeyVersion } from './core/invalidation.ts'
export type { ImportFormat, KeyFormat } from './core/keys/imported-format.ts'
export type { ImportedKey } from './core/keys/imported-key.ts'
export { secretScanningPattern } from './core/keys/key-format.ts'
export type { KeySettings } from './core/keys/key-settings.ts'
export type {
  Forgetting,
  KeyChange,
  KeyFilter,
  KeyOrder,
  KeyPosition,
  KeyStore,
  ListPage,
  Proposal,
  QuotaSwap,
  QuotaSwapResult,
  UsageDelta,
} from './core/keys/key-store.ts'
export { missingPermissions, type PermissionRequirement, type Permissions } from './core/keys/permissions.ts'
export {
  type ApiKey,
  type ApiKeyQuota,
  type KeyRecord,
  type KeyStatus,
  keyStatus,
  type Metadata,
  type Owner,
} from './core/keys/record.ts'
export type { CalendarUnit } from './core/limits/calendar.ts'
export type { Cost } from './core/limits/cost.ts'
export type { CostChange } from './core/limits/meter.ts'
export type { PlacesRequest } from './core/limits/places.ts'
export {
  isSameQuota,
  type Quota,
  type QuotaRecord,
  type QuotaRefill,
  startQuota,
} from './core/limits/quota.ts'
export type { CompiledLimit, LimitState, RateLimit } from './core/limits/rate-limit.ts'
export type {
  LimitAnswer,
  LimiterEvent,
  LimitRequest,
  RateLimiter,
  SettleAnswer,
  SettleRequest,
  VersionMark,
  WantedPlaces,
} from './core/limits/rate-limiter.ts'
export type { OwnersRateLimits, RateLimitPlans, ServiceRateLimit } from './core/limits/service-limits.ts'
export type {
  AcceptedConfiguration,
  ApiKeyPage,
  ChangeOptions,
  DigestCount,
  ErasedOwner,
  EraseOptions,
  ImportAllOptions,
  ImportProgress,
  InvalidImport,
  IssuedKey,
  IssueOptions,
  KeyManagement,
  KeySelection,
  ListOptions,
  PurgeOptions,
  RevokeAllOptions,
  RevokeCreatedByOptions,
  RevokeOptions,
  RotatedKey,
  RotateOptions,
  UpdateOptions,
} from './core/manage/key-management.ts'
export type { RedeemedTicket } from './core/tickets/sealed-ticket.ts'
export type { TicketStore } from './core/tickets/ticket-store.ts'
export type { AdmittedCall } from './core/usage/admitted-call.ts'
export type { UnusedPermissions, UnusedPermissionsOptions } from './core/usage/unused-permissions.ts'
export type {
  HourlyCount,
  UsageBatch,
  UsageCount,
  UsageRemoval,
  UsageSelection,
} from './core/usage/usage-counts.ts'
export type { UsageBucket, UsageOptions, UsageReport, UsageTotals } from './core/usage/usage-report.ts'
export type {
  ExplainedKey,
  ExplainedStep,
  ExplainedStepName,
  Explanation,
} from './core/verify/explanation.ts'
export type { FailedAttemptsOptions } from './core/verify/failed-attempts.ts'
export type { ApiKeyVerifier, ReportedEvent, VerifyOptions } from './core/verify/key-verifier.ts'
export type { KeyEndReason, OnEndOptions, WatchedKey } from './core/verify/key-watches.ts'
export type { InvalidReason, RefusedKey, VerifiedKey, VerifyResult } from './core/verify/verify-result.ts'
export { type ErrorCode, isLatchkeyError, LatchkeyError, type LatchkeyErrorOptions } from './errors.ts'
export {
  createTickets,
  type IssuedTicket,
  type IssueTicketOptions,
  type TicketRedeemer,
  type Tickets,
  type TicketsOptions,
} from './http/tickets.ts'
// Formats of other products' keys have their own entry point, latchkey/import. They stay here for existing programs.
export { type BcryptFormatOptions, type BcryptRow, bcryptFormat } from './import/bcrypt.ts'
export {
  type BetterAuthFormatOptions,
  type BetterAuthRow,
  betterAuthFormat,
} from './import/better-auth.ts'
export {
  type DjangoApiKeyFormatOptions,
  type DjangoApiKeyRow,
  djangoApiKeyFormat,
} from './import/django-api-key.ts'
export type { HashedRow } from './import/hashed-row.ts'
export { type PlainTextFormatOptions, type PlainTextRow, plainTextFormat } from './import/plain-text.ts'
export { type PrefixedApiKeyRow, prefixedApiKeyFormat } from './import/prefixed-api-key.ts'
export { type SanctumFormatOptions, type SanctumRow, sanctumFormat } from './import/sanctum.ts'
export { unkeyFormat } from './import/unkey.ts'
export {
  type MemoryRateLimiter,
  type MemoryRateLimiterOptions,
  memoryRateLimiter,
} from './rate-limits/memory.ts'
export { memoryStore } from './stores/memory.ts'
export { type MemoryTicketStoreOptions, memoryTicketStore } from './tickets/memory.ts'
