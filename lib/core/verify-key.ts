import { LatchkeyError } from '../errors.ts'
import { type Awaitable, isPromiseLike } from '../internal/awaitable.ts'
import { Admitted, type Charge } from './admitted-key.ts'
import type { Clock } from './clock.ts'
import type { Digester } from './digest.ts'
import type { ApiKeyEvent } from './events.ts'
import type { FailedAttempts } from './failed-attempts.ts'
import type { FaultGuard } from './faults.ts'
import { coveredPart } from './foreign-digest.ts'
import type { ForeignFormats } from './foreign-format.ts'
import { hasRightChecksum, parseKey } from './key-format.ts'
import type { KeyStore } from './key-store.ts'
import { isAcceptedPrefix, type VerifyOptions } from './key-verifier.ts'
import type { OwnerStanding } from './owner-standing.ts'
import { missingPermissions } from './permissions.ts'
import type { QuotaAnswer, QuotaLease } from './quota-account.ts'
import type { QuotaLeases } from './quota-leases.ts'
import type { LimitState } from './rate-limit.ts'
import { checkLimitAnswer, type LimitAnswer, type RateLimiter } from './rate-limiter.ts'
import type { ApiKey } from './record.ts'
import type { CachedKey, LoadedKey, Lookup, RecordCache } from './record-cache.ts'
import { createRefuseKey } from './refuse-key.ts'
import type { UsageLog } from './usage-log.ts'
import type { InvalidReason, RefusedKey, VerifiedKey, VerifyResult } from './verify-result.ts'

export interface VerifierParts {
  readonly cache: RecordCache
  readonly store: KeyStore
  readonly digester: Digester
  readonly formats: ForeignFormats
  /** Null where the application has nothing to say of owners. */
  readonly ownerStanding: OwnerStanding | null
  readonly limiter: RateLimiter
  readonly quotaLeases: QuotaLeases
  readonly usage: UsageLog | null
  readonly failedAttempts: FailedAttempts
  readonly clock: Clock
  readonly guard: FaultGuard
  readonly retainMs: number
  /** How long a use in another process may go unnoticed here: a key is not idle before that has passed too. */
  readonly idleSlackMs: number
  readonly upgradeDigests: boolean
  /** Whether a key without limits and quota is admitted without asking the limiter for its latest version. */
  readonly isBounded: boolean
  emit(event: ApiKeyEvent): void
  /** Keeps work that nobody waits for until `close()`. */
  inBackground(work: Promise<unknown>): void
}

export interface Verifier {
  verify(key: string, options: VerifyOptions): Awaitable<VerifyResult>
  /** Gives back what a verification has spent; false where there is nothing to give back. */
  refund(result: VerifiedKey): Promise<boolean>
}

/** How often a record is read again because the limiter knows of a newer version, before that is a fault. */
const MAX_STALE = 2

/** One verification on its way through the steps. */
interface Attempt {
  readonly key: string
  readonly lookup: Lookup
  /** The id that a native key claims; null for a foreign one, whose id nobody knows before its record is read. */
  readonly keyId: string | null
  readonly options: VerifyOptions
  readonly cost: number
  /** The key as its owner may use it now; null before that is known. */
  apiKey: ApiKey | null
}

/** One whose key is right and usable: from here on it is `apiKey` that decides and is shown, not the record's. */
interface UsableAttempt extends Attempt {
  apiKey: ApiKey
}

/**
 * Verification, step by step. Each step is a decision over what was read; the record, the owner's status and the
 * limiter are the only I/O, and a warm call does none of it but the limiter's. What is there already is never waited
 * for: a warm call is answered at once.
 */
export function createVerifier(parts: VerifierParts): Verifier {
  const { cache, clock, failedAttempts, guard, limiter, ownerStanding, quotaLeases, usage } = parts
  const refuse = createRefuseKey(clock, parts.emit)

  function verify(key: string, options: VerifyOptions): Awaitable<VerifyResult> {
    if (typeof key !== 'string') return invalid('malformed', null, null, options)
    const parsed = parseKey(key)
    if (!parsed) return verifyForeign(key, options)
    const { prefix, keyId } = parsed
    const cached = cache.peek(keyId)
    // For a record at hand the digest says all that a checksum could, unless asking it is dear.
    if (!cached?.digest.isCheap() && !hasRightChecksum(key)) {
      return invalid('malformed', null, null, options)
    }
    if (!isAcceptedPrefix(prefix, options.prefix)) return invalid('prefix_not_accepted', keyId, null, options)
    return verifyHeld(key, keyId, keyId, cached, options)
  }

  /** What has not the shape of a native key may be one that was imported. */
  function verifyForeign(key: string, options: VerifyOptions): Awaitable<VerifyResult> {
    const lookup = lookupsOf(key)
    if (lookup.length === 0) return invalid('malformed', null, null, options)
    return verifyHeld(key, lookup, null, cache.peek(lookup), options)
  }

  /** Goes on with what is held under the lookup, or reads it. */
  function verifyHeld(
    key: string,
    lookup: Lookup,
    keyId: string | null,
    cached: CachedKey | null | undefined,
    options: VerifyOptions,
  ): Awaitable<VerifyResult> {
    // Good keys behind a shared address keep working: where a digest is at hand, the key says for itself what it is.
    const blocked = cached?.digest.isCheap() ? null : refuseBlocked(options)
    if (blocked && !isKnownHere(key, lookup)) return refuse(blocked, options)
    if (cached === null) return invalid('unknown', keyId, null, options)
    const attempt: Attempt = { key, lookup, keyId, options, cost: options.cost ?? 1, apiKey: null }
    if (cached) return decide(attempt, cached, false, 0)
    return cache.load(lookup).then((loaded) => decideLoaded(attempt, loaded, 0))
  }

  function lookupsOf(key: string): readonly string[] {
    try {
      return parts.formats.lookupsOf(key)
    } catch (error) {
      throw guard.toError('format', error)
    }
  }

  function decideLoaded(
    attempt: Attempt,
    { cached, fresh }: LoadedKey,
    stale: number,
  ): Awaitable<VerifyResult> {
    if (!cached) return invalid('unknown', attempt.keyId, null, attempt.options)
    return decide(attempt, cached, fresh, stale)
  }

  function decide(
    attempt: Attempt,
    cached: CachedKey,
    fresh: boolean,
    stale: number,
  ): Awaitable<VerifyResult> {
    const presenter = { ip: attempt.options.ip, usualIp: cached.apiKey.lastUsedIp }
    const matched = cached.digest.matches(attempt.key, presenter)
    if (!isPromiseLike(matched)) return decideUsable(matched, attempt, cached, fresh, stale)
    return guard
      .run('digest', () => matched)
      .then((isRight) => decideUsable(isRight, attempt, cached, fresh, stale))
  }

  function decideUsable(
    isRight: boolean,
    attempt: Attempt,
    cached: CachedKey,
    fresh: boolean,
    stale: number,
  ): Awaitable<VerifyResult> {
    if (!isRight) return invalidSecret(attempt, cached)
    // The prefix of a native key was looked at before its record; a foreign one does not always show it.
    if (attempt.keyId === null && !isAcceptedPrefix(cached.apiKey.prefix, attempt.options.prefix)) {
      return invalid('prefix_not_accepted', null, cached, attempt.options)
    }
    const reason = unusableReason(cached)
    if (reason) return invalid(reason, attempt.keyId, cached, attempt.options)
    if (!ownerStanding) return decideAllowed(cached.apiKey, attempt, cached, fresh, stale)
    const shown = ownerStanding(cached.apiKey)
    if (!isPromiseLike(shown)) return decideAllowed(shown, attempt, cached, fresh, stale)
    return shown.then((apiKey) => decideAllowed(apiKey, attempt, cached, fresh, stale))
  }

  function invalidSecret({ key, keyId, options }: Attempt, cached: CachedKey): Awaitable<RefusedKey> {
    if (keyId !== null && !hasRightChecksum(key)) return invalid('malformed', null, null, options)
    const blocked = refuseBlocked(options)
    if (blocked) return refuse(blocked, options)
    const refuseSecret = () => invalid('wrong_secret', keyId, cached, options)
    const isWrong = cached.digest.beforeBlame()
    return isPromiseLike(isWrong) ? isWrong.then(refuseSecret) : refuseSecret()
  }

  function decideAllowed(
    apiKey: ApiKey | null,
    attempt: Attempt,
    cached: CachedKey,
    fresh: boolean,
    stale: number,
  ): Awaitable<VerifyResult> {
    if (!apiKey) return invalid('owner_inactive', attempt.keyId, cached, attempt.options)
    const usable = withKey(attempt, apiKey)
    return decideAccess(usable, cached) ?? spend(usable, cached, fresh, stale)
  }

  function unusableReason({
    apiKey,
    isRevoked,
    expiresAtMs,
    lastActiveAtMs,
  }: CachedKey): InvalidReason | null {
    if (isRevoked) return 'revoked'
    if (!apiKey.enabled) return 'disabled'
    if (expiresAtMs !== null && expiresAtMs <= clock.now()) return 'expired'
    if (apiKey.idleExpiryMs === null) return null
    const lastActive = Math.max(lastActiveAtMs, usage?.lastUse(apiKey.id) ?? 0)
    return lastActive + apiKey.idleExpiryMs + parts.idleSlackMs <= clock.now() ? 'idle' : null
  }

  function decideAccess({ apiKey, options }: UsableAttempt, { isAllowedIp }: CachedKey): RefusedKey | null {
    if (isAllowedIp && !isAllowedIp(options.ip)) {
      return refuse({ ok: false, code: 'address_not_allowed', apiKey }, options)
    }
    if (!options.permissions) return null
    const missing = missingPermissions(apiKey.permissions, options.permissions)
    return missing && refuse({ ok: false, code: 'insufficient_permissions', apiKey, missing }, options)
  }

  /** Units of the quota first, from memory; then the one call to the limiter, which may refuse: then they go back. */
  function spend(
    attempt: UsableAttempt,
    cached: CachedKey,
    fresh: boolean,
    stale: number,
  ): Awaitable<VerifyResult> {
    if (!cached.quota || attempt.cost === 0) return charge(attempt, cached, fresh, stale, null)
    const lease = quotaLeases.takeNow(cached, attempt.cost)
    if (lease) return charge(attempt, cached, fresh, stale, lease)
    return quotaLeases
      .take(cached, attempt.cost, fresh)
      .then((answer) => afterQuota(answer, attempt, cached, fresh, stale))
  }

  function afterQuota(
    answer: QuotaAnswer,
    attempt: UsableAttempt,
    cached: CachedKey,
    fresh: boolean,
    stale: number,
  ): Awaitable<VerifyResult> {
    switch (answer.outcome) {
      case 'taken':
        return charge(attempt, cached, fresh, stale, answer.lease)
      case 'unknown':
        return cache.loadFresh(attempt.lookup).then((loaded) => decideLoaded(attempt, loaded, stale))
      case 'gone':
        return reload(attempt, stale)
      case 'short':
        return refuseShort(attempt, cached, fresh, stale, answer.retryAfterMs)
    }
  }

  /** The limiter is only asked how the limits stand, and whether the record that was decided upon is the latest. */
  function refuseShort(
    attempt: UsableAttempt,
    cached: CachedKey,
    fresh: boolean,
    stale: number,
    retryAfterMs: number | null,
  ): Awaitable<VerifyResult> {
    return askLimiter(
      cached,
      fresh,
      0,
      (answer) => {
        if (answer.outcome === 'stale') return reload(attempt, stale)
        const limits = withQuota(answer.limits, cached, true)
        const { apiKey, options } = attempt
        return refuse({ ok: false, code: 'quota_exceeded', apiKey, limits, retryAfterMs }, options)
      },
      noop,
    )
  }

  function charge(
    attempt: UsableAttempt,
    cached: CachedKey,
    fresh: boolean,
    stale: number,
    lease: QuotaLease | null,
  ): Awaitable<VerifyResult> {
    if (parts.isBounded && cached.limits.length === 0 && !cached.quota) {
      return admit(attempt, cached, UNLIMITED, null)
    }
    const undo = lease ? () => quotaLeases.putBack(lease, attempt.cost) : noop
    return askLimiter(
      cached,
      fresh,
      attempt.cost,
      (answer) => {
        if (answer.outcome === 'admitted') return admit(attempt, cached, answer, lease)
        undo()
        if (answer.outcome === 'stale') return reload(attempt, stale)
        const limits = withQuota(answer.limits, cached, false)
        const { apiKey, options } = attempt
        const { retryAfterMs } = answer
        return refuse({ ok: false, code: 'rate_limited', apiKey, limits, retryAfterMs }, options)
      },
      undo,
    )
  }

  async function reload(attempt: Attempt, stale: number): Promise<VerifyResult> {
    if (stale >= MAX_STALE) {
      throw guard.toError(
        'store',
        new Error('the store keeps returning a record older than its latest change'),
      )
    }
    return decideLoaded(attempt, await cache.loadFresh(attempt.lookup), stale + 1)
  }

  /** Asks, and goes on with the answer: at once where it is there at once. Where there is none, `undo` comes first. */
  function askLimiter(
    cached: CachedKey,
    fresh: boolean,
    cost: number,
    proceed: (answer: LimitAnswer) => Awaitable<VerifyResult>,
    undo: () => void,
  ): Awaitable<VerifyResult> {
    const { apiKey, limits } = cached
    const giveUp = (error: unknown): never => {
      undo()
      throw guard.toError('rate_limiter', error)
    }
    const goOn = (given: LimitAnswer) => {
      try {
        checkLimitAnswer(given)
      } catch (error) {
        return giveUp(error)
      }
      return proceed(given)
    }
    let answer: Awaitable<LimitAnswer>
    try {
      answer = limiter.check({
        lineageId: apiKey.lineageId,
        keyId: apiKey.id,
        version: apiKey.version,
        fresh,
        cost,
        limits,
        retainMs: parts.retainMs,
      })
    } catch (error) {
      return giveUp(error)
    }
    if (!isPromiseLike(answer)) return goOn(answer)
    // One with a deadline of its own needs no second timer, which would cost more than the rest of the call.
    if (limiter.timeoutMs !== undefined) return answer.then(goOn, giveUp)
    return guard
      .run('rate_limiter', () => answer)
      .then(goOn, (error) => {
        undo()
        throw error
      })
  }

  function admit(
    attempt: UsableAttempt,
    cached: CachedKey,
    answer: LimitAnswer & { outcome: 'admitted' },
    lease: QuotaLease | null,
  ): VerifyResult {
    const { apiKey } = attempt
    const now = clock.now()
    cached.lastActiveAtMs = now
    usage?.record(cached, attempt.cost > 0 ? 1 : 0, now, attempt.options.ip)
    if (parts.upgradeDigests && !cached.isUpgrading && isUpgradable(attempt.key, cached)) {
      cached.isUpgrading = true
      parts.inBackground(upgradeDigest(attempt.key, cached))
    }
    const limits = lease
      ? [...answer.limits, lease.account.state(now, false)]
      : withQuota(answer.limits, cached, false)
    return new Admitted(apiKey, limits, limiter, chargeOf(answer, attempt.cost, cached, lease))
  }

  function chargeOf(
    { chargedAt }: LimitAnswer & { outcome: 'admitted' },
    cost: number,
    { apiKey: { lineageId }, limits }: CachedKey,
    lease: QuotaLease | null,
  ): Charge | null {
    const isCounted = chargedAt !== null && cost > 0 && limits.length > 0
    if (!isCounted && !lease) return null
    return { limits: isCounted ? { lineageId, cost, chargedAt, limits } : null, lease, cost }
  }

  async function refund(result: VerifiedKey): Promise<boolean> {
    const charge = Admitted.takeCharge(result, limiter)
    if (!charge) return false
    const { limits, lease, cost } = charge
    // What is not given back to the limits stays spent of the quota too.
    if (limits) await guard.run('rate_limiter', () => limiter.refund?.(limits))
    if (lease) quotaLeases.putBack(lease, cost)
    return true
  }

  /** A digest that may not have read all of a key says nothing of the rest, which a new one would insist on. */
  function isUpgradable(key: string, { digest }: CachedKey): boolean {
    return !digest.isCurrent && (coveredPart(key, digest.coverage)?.length ?? Infinity) < digest.readsAtMost
  }

  async function upgradeDigest(key: string, cached: CachedKey): Promise<void> {
    try {
      const next = await parts.digester.create(key, cached.digest.coverage)
      const replaced = await parts.store.replaceDigest(cached.apiKey.id, cached.digestText, next)
      if (!replaced) return
      cache.digestReplaced(cached.lookup, cached.digestText, next)
      const { id, owner } = cached.apiKey
      parts.emit({ type: 'digest.upgraded', at: new Date(clock.now()), keyId: id, owner })
    } catch (error) {
      // The old digest still verifies: the next copy of the record tries again.
      parts.emit({ type: 'fault', at: new Date(clock.now()), operation: 'digest_upgrade', error })
    }
  }

  function withQuota(
    limits: readonly LimitState[],
    cached: CachedKey,
    exceeded: boolean,
  ): readonly LimitState[] {
    return cached.quota ? [...limits, quotaLeases.stateOf(cached, exceeded)] : limits
  }

  function refuseBlocked(options: VerifyOptions): RefusedKey | null {
    const retryAfterMs = failedAttempts.blockedForMs(options.ip)
    return retryAfterMs === 0 ? null : { ok: false, code: 'too_many_failures', retryAfterMs }
  }

  /** Whether this very key was verified here; its record may have aged. */
  function isKnownHere(key: string, lookup: Lookup): boolean {
    const held = cache.recall(lookup)
    return held?.digest.isCheap() === true && held.digest.matches(key) === true
  }

  function invalid(
    reason: InvalidReason,
    keyId: string | null,
    cached: CachedKey | null,
    options: VerifyOptions,
  ): RefusedKey {
    if (failedAttempts.blockedForMs(options.ip) === 0) failedAttempts.count(options.ip)
    return refuse({ ok: false, code: 'invalid_key', reason }, options, keyId, cached?.apiKey)
  }

  return { verify, refund }
}

/** The same attempt: a copy would cost every call, and nothing of it is decided by two at once. */
function withKey(attempt: Attempt, apiKey: ApiKey): UsableAttempt {
  attempt.apiKey = apiKey
  return attempt as UsableAttempt
}

/** What a key without limits and quota is admitted with where nobody is asked. */
const UNLIMITED = Object.freeze({ outcome: 'admitted', limits: Object.freeze([]), chargedAt: null } as const)

const noop = () => {}

/** The error of every call after `close()`. */
export function closedError(): LatchkeyError {
  return new LatchkeyError('unavailable', 'These API keys were closed', { stack: false })
}
