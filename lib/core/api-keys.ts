import { LatchkeyError } from '../errors.ts'
import { type Awaitable, isPromiseLike } from '../internal/awaitable.ts'
import { deepFreeze } from '../internal/deep-freeze.ts'
import { OptionError } from '../internal/option-error.ts'
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  checkMethods,
  checkObject,
  checkText,
} from '../internal/options.ts'
import { copyData } from '../internal/plain-data.ts'
import { createAgreements } from './agreements.ts'
import { type Clock, isDoneInTime, systemClock } from './clock.ts'
import { createDigester, type DigestScheme, type Pepper } from './digests/digest.ts'
import { createPepperChecks } from './digests/pepper-check.ts'
import { createEmitter } from './emitter.ts'
import type { ApiKeyListener } from './events.ts'
import { createDependencyRunner } from './faults.ts'
import type { Invalidation, KeyVersion } from './invalidation.ts'
import { compileFormats, type KeyFormat } from './keys/imported-format.ts'
import { checkPrefix } from './keys/key-format.ts'
import type { KeyStore } from './keys/key-store.ts'
import type { Permissions } from './keys/permissions.ts'
import type { Owner } from './keys/record.ts'
import { createQuotaLeases } from './limits/quota-leases.ts'
import { compileRateLimits, type RateLimit } from './limits/rate-limit.ts'
import type { LimiterEvent, RateLimiter } from './limits/rate-limiter.ts'
import { createAcceptConfiguration } from './manage/accept-configuration.ts'
import type { KeyManagement } from './manage/key-management.ts'
import { createKeyManagement } from './manage/manage-keys.ts'
import { createPublishChange, type PublishChange } from './manage/publish-change.ts'
import { createSharingCheck } from './sharing-check.ts'
import { createStoreAccess } from './store-access.ts'
import {
  checkFailedAttempts,
  createFailedAttempts,
  type FailedAttemptsOptions,
  NO_FAILED_ATTEMPTS,
} from './verify/failed-attempts.ts'
import { type ApiKeyVerifier, checkVerifyOptions, type VerifyOptions } from './verify/key-verifier.ts'
import { createOwnerState } from './verify/owner-state.ts'
import { createRecordCache } from './verify/record-cache.ts'
import { createReporter } from './verify/report-event.ts'
import { createUsageLog } from './verify/usage-log.ts'
import { closedError, createVerifier } from './verify/verify-key.ts'
import type { VerifiedKey, VerifyResult } from './verify/verify-result.ts'

export interface ApiKeysOptions {
  /** Where keys are kept: `memoryStore()`, or an adapter of your own. */
  store: KeyStore
  /** Who counts what keys spend: `redisRateLimiter(redis)` for several processes, `memoryRateLimiter()` for one. */
  rateLimiter: RateLimiter
  /**
   * How soon other processes notice that a key was changed or revoked.
   *
   * - `'exact'`: at its next use, since every verification asks the limiter for the latest version of the key. Where the
   *   limiter is one that processes share, that is one call, the same that counts.
   * - `'bounded'`: within `cache.maxAgeMs` for keys without limits and quota, which then are verified without asking the
   *   limiter; `invalidation` makes it sooner as a rule.
   *
   * @default 'exact'
   */
  revocation?: 'exact' | 'bounded'
  /**
   * Tells other processes of changes by message: `redisInvalidation(redis)`. Worth having with `memoryRateLimiter()` or
   * with `revocation: 'bounded'`; otherwise every verification asks anyway.
   */
  invalidation?: Invalidation
  /**
   * Blocks addresses that keep sending invalid keys, 429 `too_many_failures`. They are counted through the limiter; a
   * blocked address is only refused keys that were not verified here lately. Nothing is counted against a key.
   *
   * @default false
   */
  failedAttempts?: boolean | FailedAttemptsOptions
  /**
   * What new keys begin with, such as `acme_live`: 1 to 32 letters, digits and `_`. Keys issued under another
   * prefix keep working when it changes.
   */
  prefix: string
  /**
   * How digests of new keys are made; those that exist name their own scheme.
   *
   * @default 'hmac-sha256' where `peppers` are given, otherwise 'sha256'
   */
  digest?: DigestScheme
  /** Secrets that digests are made under. The first makes new digests, the others still verify old ones. */
  peppers?: readonly Pepper[]
  /**
   * How keys of other products are found, those that were imported: `[betterAuthFormat()]`. Several cost no more reads of
   * the store than one. Let their shapes differ: where two formats know a key, the first that finds a record decides.
   *
   * @default []
   */
  formats?: readonly KeyFormat[]
  /**
   * Rewrites a digest of an older scheme or pepper after a successful verification. Switch it on only when
   * every running process knows the current scheme and pepper.
   *
   * @default false
   */
  upgradeDigests?: boolean
  /**
   * The limits of keys that have none of their own.
   *
   * @default []
   */
  rateLimits?: readonly RateLimit[]
  /** How records are held in memory between verifications. */
  cache?: {
    /** How many records are held at most. @default 10_000 */
    maxEntries?: number
    /** How old a held record may be, in milliseconds, counted from when it was asked for. 0 holds none. @default 5_000 */
    maxAgeMs?: number
    /** How many ids of which no key exists are remembered at most. @default 1_000 */
    negativeMaxEntries?: number
    /** How long those are remembered, in milliseconds. @default 5_000 */
    negativeMaxAgeMs?: number
  }
  /**
   * Says whether an owner's keys may be used at all. It is asked during verification, and its answer is
   * remembered for `ownerMaxAgeMs`; if it fails, verification fails with `unavailable`.
   */
  isOwnerActive?: (owner: Owner) => Awaitable<boolean>
  /**
   * Says what an owner may do now; null restricts nothing. A key then may do what it is permitted and its owner may do
   * as well, with `*` understood on both sides; both have to name actions of `api-keys`. That is what `verify`, guards and
   * `req.apiKey` go by, while `get` and `list` show what the key itself is permitted. It is asked after `isOwnerActive` has
   * answered true, and both answers are remembered together; if it fails, or answers with anything but permissions or null,
   * verification fails with `unavailable`.
   *
   * @example
   * ownerPermissions: async (owner) => permissionsOfRole(await users.roleOf(owner.id))
   */
  ownerPermissions?: (owner: Owner) => Awaitable<Permissions | null>
  /**
   * How long the answers of `isOwnerActive` and `ownerPermissions` are remembered, in milliseconds. `invalidateOwner`
   * ends that at once.
   *
   * @default 5_000
   */
  ownerMaxAgeMs?: number
  /**
   * The most units of a quota that this process leases from the store beyond what calls need right now. A lease also takes
   * at most a sixteenth of what is left and twice what was used of the one before, so keys that are used little lease little.
   * A crash loses at most one lease for each key. With 0 nothing is leased ahead, and every call writes to the store.
   *
   * @default 1_000
   */
  quotaBlockSize?: number
  /**
   * How long this process holds units that it has leased, in milliseconds, from 100 to 600,000. What is not spent by then goes
   * back to the store. While other processes lease what is left, a call may be refused for that long; `Retry-After` says
   * so. Longer leases need fewer writes.
   *
   * @default 5_000
   */
  quotaLeaseMs?: number
  /** How uses are gathered before they are written to the store. */
  usage?: {
    /**
     * How long uses are gathered, in milliseconds, at most 30,000. The first use of a key does not wait for it, nor does one
     * that the idle expiry of a key rests on: these are written at once.
     *
     * @default 10_000
     */
    flushMs?: number
    /** How many keys may wait to be written; uses of further ones are dropped and reported. @default 100_000 */
    maxKeys?: number
    /**
     * Whether the address of the last use is kept with a key, as `lastUsedIp`. With `false` no address of a client is
     * stored: one that was kept before goes with the next use of its key. Events still name the address of a refused
     * request, and `failedAttempts` remembers addresses in the limiter until its window ends.
     *
     * @default true
     */
    addresses?: boolean
  }
  /**
   * How long the store, the limiter, or `isOwnerActive` and `ownerPermissions` together, may take before that counts as
   * a fault, in milliseconds.
   *
   * @default 5_000
   */
  timeoutMs?: number
  /**
   * Receives every change, refusal and fault. Without it, what fails is a warning of the process, `LATCHKEY_FAULT`, at most one a
   * minute for each part that fails.
   */
  onEvent?: ApiKeyListener
  /**
   * The time, for tests.
   *
   * @default the machine's clock
   */
  clock?: Clock
}

/** Issues, verifies and manages API keys. */
export interface ApiKeys
  extends KeyManagement,
    Required<Omit<ApiKeyVerifier, 'isImportedKey'>>,
    Pick<ApiKeyVerifier, 'isImportedKey'> {
  /** The limits of keys that have none of their own: the option `rateLimits`. */
  readonly rateLimits: readonly RateLimit[]
  /**
   * Writes what requests so far have left to be written: their uses, leased units of quotas that were not spent, failed
   * attempts that are being counted, and digests that are being upgraded. Call it where a process may be frozen or killed once it has answered, as in serverless functions. It
   * may be called at any time, by many at once, and after `close()`.
   *
   * @throws LatchkeyError `unavailable` when something could not be written within `timeoutMs`. A `fault` event says why. It is
   * kept in memory and goes with the next write.
   * @example
   * const response = await app.fetch(request)
   * await keys.flush()
   */
  flush(): Promise<void>
  /**
   * Waits for calls that are under way, writes what is still in memory, gives leased units of quotas back to the store, and
   * stops the timers. Verifications after it fail with `unavailable`. The store and the limiter stay open: they are yours.
   */
  close(): Promise<void>
}

const DAY_MS = 86_400_000
const OPTIONS = [
  'store',
  'rateLimiter',
  'revocation',
  'invalidation',
  'failedAttempts',
  'prefix',
  'digest',
  'peppers',
  'formats',
  'upgradeDigests',
  'rateLimits',
  'cache',
  'isOwnerActive',
  'ownerPermissions',
  'ownerMaxAgeMs',
  'quotaBlockSize',
  'quotaLeaseMs',
  'usage',
  'timeoutMs',
  'onEvent',
  'clock',
]

/**
 * Composes a store, a rate limiter and a policy into API keys.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const keys = createApiKeys({
 *   store: memoryStore(),
 *   rateLimiter: memoryRateLimiter(),
 *   prefix: 'acme_live',
 *   rateLimits: [{ name: 'minute', limit: 100, windowMs: 60_000 }],
 * })
 * const { key } = await keys.issue({ owner: { type: 'user', id: 'u_1' }, name: 'CI' })
 * const result = await keys.verify(key) // { ok: true, apiKey, limits }
 */
export function createApiKeys(options: ApiKeysOptions): ApiKeys {
  const settings = resolveOptions(options)
  const { clock, limiter, prefix } = settings
  const emit = createEmitter(settings.onEvent)
  const guard = createDependencyRunner(clock, settings.timeoutMs, emit)
  const store = createStoreAccess(options.store, guard)
  const agreements = createAgreements(store)
  const digester = createDigester(options, createPepperChecks(agreements, clock, guard, inBackground))
  const shared = { rateLimiter: limiter.sharedAs, invalidation: settings.invalidation?.sharedAs }
  const sharing = createSharingCheck(agreements, shared, clock, emit)
  const ownerState = createOwnerState(settings.ownerHooks, settings.owners, clock, guard)
  const cache = createRecordCache(store, digester, settings.cache, clock, guard)
  const usage = store.recordUsage ? createUsageLog(store, clock, settings.usage, guard, emit) : null
  const quotaLeases = createQuotaLeases(store, settings.quotaLeases, clock, guard)
  const { maxAgeMs } = settings.cache
  // A use elsewhere is written within the one and read within the other.
  const idleSlackMs = settings.usage.flushMs + maxAgeMs
  // A version must outlive every record that may still be held under an older one.
  const retainMs = Math.max(2 * maxAgeMs, 1_000)
  const publishChange = createPublishChange(
    cache,
    limiter,
    settings.invalidation,
    { retainMs, maxAgeMs },
    clock,
    guard,
    emit,
  )
  const publish: PublishChange = (changed) => {
    checkSharing()
    return publishChange(changed)
  }
  let underWay = 0
  let onIdle = () => {}
  /** Work that no request waits for. */
  const unattended = new Set<Promise<unknown>>()
  const failedAttempts = settings.failedAttempts
    ? createFailedAttempts(settings.failedAttempts, limiter, clock, guard, emit, inBackground)
    : NO_FAILED_ATTEMPTS
  const verifier = createVerifier({
    cache,
    store,
    digester,
    formats: settings.formats,
    ownerState,
    limiter,
    quotaLeases,
    usage,
    failedAttempts,
    clock,
    guard,
    retainMs,
    idleSlackMs,
    upgradeDigests: settings.upgradeDigests,
    isBounded: settings.isBounded,
    emit,
    inBackground,
  })
  const management = createKeyManagement({
    store,
    digester,
    formats: settings.formats,
    cache,
    quotaLeases,
    publish,
    prefix,
    clock,
    guard,
    idleSlackMs,
    emit,
    flushUsage: async () => usage?.flush() ?? true,
    isInUse: (keyId) => usage?.lastUse(keyId) !== undefined,
  })
  const stopListening = [limiter.listen?.(onLimiterEvent), settings.invalidation?.listen({ changed, missed })]
  let closing: Promise<void> | null = null

  function onLimiterEvent(happening: LimiterEvent): void {
    const at = new Date(clock.now())
    if (happening.type === 'suspended') emit({ ...happening, type: 'limiter.suspended', at })
    else if (happening.type === 'resumed') emit({ ...happening, type: 'limiter.resumed', at })
    else emit({ type: 'fault', at, operation: 'rate_limiter', error: happening.error })
  }

  function changed(keys: readonly KeyVersion[]): void {
    for (const { keyId, version } of keys) cache.changed(keyId, version)
  }

  function missed(error?: unknown): void {
    cache.clear()
    if (error !== undefined)
      emit({ type: 'fault', at: new Date(clock.now()), operation: 'invalidation', error })
  }

  function checkSharing(): void {
    if (sharing.isDue()) inBackground(sharing.run())
  }

  function verifyEager(key: string, verifyOptions: VerifyOptions = {}): Awaitable<VerifyResult> {
    checkVerifyOptions(verifyOptions)
    if (closing) throw guard.toError('verify', closedError())
    checkSharing()
    const result = verifier.verify(key, verifyOptions)
    if (isPromiseLike(result)) countUnderWay(result)
    return result
  }

  async function refund(result: VerifiedKey): Promise<boolean> {
    const work = verifier.refund(result)
    countUnderWay(work)
    const isRefunded = await work
    // Nobody else would give it back to the store any more.
    if (closing) await quotaLeases.giveBack()
    return isRefunded
  }

  function inBackground(work: Promise<unknown>): void {
    const forget = () => unattended.delete(work)
    unattended.add(work)
    work.then(forget, forget)
    countUnderWay(work)
  }

  /** What is under way when `close()` is called is waited for. */
  function countUnderWay(work: PromiseLike<unknown>): void {
    underWay += 1
    work.then(ended, ended)
  }

  function ended(): void {
    underWay -= 1
    if (underWay === 0) onIdle()
  }

  async function flush(): Promise<void> {
    if (await isDoneInTime(clock, settings.timeoutMs, flushAll())) return
    throw new LatchkeyError('unavailable', 'Not all that was gathered could be written', { stack: false })
  }

  /** Whether all of it is written. */
  async function flushAll(): Promise<boolean> {
    const [isWritten, isGivenBack] = await Promise.all([
      usage?.flush() ?? true,
      quotaLeases.giveBack(),
      Promise.allSettled(unattended),
    ])
    return isWritten && isGivenBack
  }

  async function closeAll(): Promise<void> {
    while (underWay > 0) {
      await new Promise<void>((resolve) => {
        onIdle = resolve
      })
    }
    await Promise.all([quotaLeases.close(), usage?.close()])
    await Promise.allSettled(stopListening.map(async (stop) => stop?.()))
  }

  return Object.freeze({
    ...management,
    acceptConfiguration: createAcceptConfiguration(store, digester, sharing, clock, emit),
    prefix,
    rateLimits: deepFreeze(copyData(options.rateLimits ?? [])),
    verifyEager,
    ...(settings.formats.names.length > 0 && { isImportedKey: settings.formats.recognises }),
    report: createReporter(clock, emit),
    async verify(key: string, verifyOptions?: VerifyOptions) {
      return verifyEager(key, verifyOptions)
    },
    refund,
    flush,
    close() {
      closing ??= closeAll()
      return closing
    },
  })
}

function checkSharedAs(name: string, { sharedAs }: { readonly sharedAs?: string }): void {
  if (sharedAs !== undefined) checkText(`${name}.sharedAs`, sharedAs, 255)
}

function resolveOptions(options: ApiKeysOptions) {
  checkObject('options', options, OPTIONS)
  const { rateLimiter, clock = systemClock, onEvent, cache = {}, usage = {} } = options
  checkMethods('rateLimiter', rateLimiter, ['check', 'raiseVersions'])
  checkFunction('clock.now', clock?.now)
  checkFunction('clock.setTimer', clock?.setTimer)
  const { revocation = 'exact', invalidation, failedAttempts = false } = options
  const { isOwnerActive, ownerPermissions } = options
  if (revocation !== 'exact' && revocation !== 'bounded') {
    throw new OptionError('revocation', 'be "exact" or "bounded"')
  }
  if (invalidation !== undefined) checkMethods('invalidation', invalidation, ['publish', 'listen'])
  checkSharedAs('rateLimiter', rateLimiter)
  if (invalidation !== undefined) checkSharedAs('invalidation', invalidation)
  if (isOwnerActive !== undefined) checkFunction('isOwnerActive', isOwnerActive)
  if (ownerPermissions !== undefined) checkFunction('ownerPermissions', ownerPermissions)
  if (onEvent !== undefined) checkFunction('onEvent', onEvent)
  checkObject('cache', cache, ['maxEntries', 'maxAgeMs', 'negativeMaxEntries', 'negativeMaxAgeMs'])
  checkObject('usage', usage, ['flushMs', 'maxKeys', 'addresses'])
  const integer = (name: string, value: unknown, fallback: number, min: number, max: number) =>
    value === undefined ? fallback : checkInteger(name, value, min, max)
  const maxEntries = integer('cache.maxEntries', cache.maxEntries, 10_000, 1, 10_000_000)
  return Object.freeze({
    limiter: rateLimiter,
    isBounded: revocation === 'bounded',
    invalidation,
    failedAttempts: checkFailedAttempts(failedAttempts),
    clock,
    ownerHooks: { isOwnerActive, ownerPermissions },
    onEvent,
    prefix: checkPrefix('prefix', options.prefix),
    formats: compileFormats('formats', options.formats ?? []),
    upgradeDigests:
      options.upgradeDigests === undefined ? false : checkBoolean('upgradeDigests', options.upgradeDigests),
    timeoutMs: integer('timeoutMs', options.timeoutMs, 5_000, 1, DAY_MS),
    quotaLeases: {
      blockSize: integer('quotaBlockSize', options.quotaBlockSize, 1_000, 0, 1_000_000_000),
      leaseMs: integer('quotaLeaseMs', options.quotaLeaseMs, 5_000, 100, 600_000),
      maxEntries,
    },
    owners: { maxAgeMs: integer('ownerMaxAgeMs', options.ownerMaxAgeMs, 5_000, 0, DAY_MS), maxEntries },
    usage: {
      flushMs: integer('usage.flushMs', usage.flushMs, 10_000, 1, 30_000),
      maxKeys: integer('usage.maxKeys', usage.maxKeys, 100_000, 1, 10_000_000),
      addresses: usage.addresses === undefined ? true : checkBoolean('usage.addresses', usage.addresses),
    },
    cache: {
      maxEntries,
      maxAgeMs: integer('cache.maxAgeMs', cache.maxAgeMs, 5_000, 0, DAY_MS),
      negativeMaxEntries: integer('cache.negativeMaxEntries', cache.negativeMaxEntries, 1_000, 1, 10_000_000),
      negativeMaxAgeMs: integer('cache.negativeMaxAgeMs', cache.negativeMaxAgeMs, 5_000, 0, DAY_MS),
      defaultLimits: compileRateLimits('rateLimits', options.rateLimits ?? []),
    },
  })
}
