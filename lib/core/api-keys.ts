import { LatchkeyError } from '../errors.ts'
import { type Awaitable, isPromiseLike } from '../internal/awaitable.ts'
import { deepFreeze } from '../internal/deep-freeze.ts'
import { copyData } from '../internal/plain-data.ts'
import { createAgreements } from './agreements.ts'
import { type ApiKeysOptions, resolveOptions } from './api-keys-options.ts'
import { type Clock, isDoneInTime } from './clock.ts'
import { createDigester } from './digests/digest.ts'
import { createPepperChecks } from './digests/pepper-check.ts'
import { createEmitter } from './emitter.ts'
import { createDependencyRunner } from './faults.ts'
import type { KeyVersion } from './invalidation.ts'
import { QuotaLeases } from './limits/quota-leases.ts'
import type { RateLimit } from './limits/rate-limit.ts'
import type { LimiterEvent } from './limits/rate-limiter.ts'
import { createAcceptConfiguration } from './manage/accept-configuration.ts'
import type { KeyManagement } from './manage/key-management.ts'
import { createKeyManagement } from './manage/manage-keys.ts'
import { createPublishChange, type PublishChange } from './manage/publish-change.ts'
import { createSharingCheck } from './sharing-check.ts'
import { createStoreAccess } from './store-access.ts'
import { createFailedAttempts, NO_FAILED_ATTEMPTS } from './verify/failed-attempts.ts'
import { type ApiKeyVerifier, checkVerifyOptions, type VerifyOptions } from './verify/key-verifier.ts'
import { createOwnerState } from './verify/owner-state.ts'
import { RecordCache } from './verify/record-cache.ts'
import { createReporter } from './verify/report-event.ts'
import { UsageLog } from './verify/usage-log.ts'
import { closedError, createVerifier } from './verify/verify-key.ts'
import type { VerifiedKey, VerifyResult } from './verify/verify-result.ts'

/** Issues, verifies and manages API keys. */
export interface ApiKeys
  extends KeyManagement,
    Required<Omit<ApiKeyVerifier, 'isImportedKey'>>,
    Pick<ApiKeyVerifier, 'isImportedKey'> {
  /** The rate limits of keys without their own: the option `rateLimits`. */
  readonly rateLimits: readonly RateLimit[]
  /** The option `clock`. The routes that manage keys go by it too. */
  readonly clock: Clock
  /**
   * Finishes the work that earlier requests left behind: writes uses and unspent leased units, counts failed attempts,
   * and upgrades digests. Call it where a process may be frozen or killed after it has answered, as in serverless
   * functions. You can call it at any time, several times at once, and after `close()`.
   *
   * @throws LatchkeyError `unavailable` when something could not be written within `timeoutMs`. A `fault` event says
   * why. It stays in memory, and the next write includes it.
   * @example
   * const response = await app.fetch(request)
   * await keys.flush()
   */
  flush(): Promise<void>
  /**
   * Waits for running calls, writes what is still in memory, returns leased quota units to the store, and stops the
   * timers. Later verifications fail with `unavailable`. The store and the limiter stay open: they are yours.
   */
  close(): Promise<void>
}

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
  const cache = new RecordCache(store, digester, settings.cache, clock, guard)
  const usage = store.recordUsage ? new UsageLog(store, clock, settings.usage, guard, emit) : null
  const quotaLeases = new QuotaLeases(store, settings.quotaLeases, clock, guard)
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
    throw new LatchkeyError('unavailable', 'Some pending work could not be written', { stack: false })
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
    clock,
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
