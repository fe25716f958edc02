import { LatchkeyError } from '../errors.ts'
import { type Awaitable, isPromiseLike } from '../internal/awaitable.ts'
import { deepFreeze } from '../internal/deep-freeze.ts'
import { copyData } from '../internal/plain-data.ts'
import { type ApiKeysOptions, resolveOptions } from './api-keys-options.ts'
import { type Clock, isDoneInTime } from './clock.ts'
import {
  checkSharing,
  composeExplain,
  composeManagement,
  composeParts,
  composeVerifier,
  type Parts,
} from './compose-parts.ts'
import { isVerificationMeasured, measureVerification } from './diagnostics/measure-verification.ts'
import type { Invalidation } from './invalidation.ts'
import { type Cost, checkCost } from './limits/cost.ts'
import type { LimitState } from './limits/rate-limit.ts'
import type { LimiterEvent } from './limits/rate-limiter.ts'
import type { ServiceRateLimit } from './limits/service-limits.ts'
import { createAcceptConfiguration } from './manage/accept-configuration.ts'
import type { KeyManagement } from './manage/key-management.ts'
import { Admitted } from './verify/admitted-key.ts'
import { checkExplained, type Explain } from './verify/explain-key.ts'
import type { ExplainedKey, Explanation } from './verify/explanation.ts'
import { type ApiKeyVerifier, checkVerifyOptions, type VerifyOptions } from './verify/key-verifier.ts'
import { type KeyEndReason, KeyWatches, type OnEndOptions, type WatchedKey } from './verify/key-watches.ts'
import { lookAtLimits } from './verify/look-at-limits.ts'
import { createReporter } from './verify/report-event.ts'
import { Settler } from './verify/settle.ts'
import { closedError, type Verifier } from './verify/verify-key.ts'
import type { VerifiedKey, VerifyResult } from './verify/verify-result.ts'

/** Issues, verifies and manages API keys. */
export interface ApiKeys
  extends KeyManagement,
    Required<Omit<ApiKeyVerifier, 'isImportedKey'>>,
    Pick<ApiKeyVerifier, 'isImportedKey'> {
  /** The rate limits of keys without their own, and of owners: the option `rateLimits`, if it is a list. */
  readonly rateLimits: readonly ServiceRateLimit[]
  /** Whether `rateLimits` are plans or a function, so that they depend on the owner. The list is empty then. */
  readonly rateLimitsVary: boolean
  /** The option `clock`. The routes that manage keys go by it too. */
  readonly clock: Clock
  /** The option `timeoutMs`. A route's `cost` function has as long. */
  readonly timeoutMs: number
  /**
   * Says how every limit of a key and of its owner stands, and its quota, for a dashboard. It spends nothing, and works for
   * keys that are disabled, expired or revoked too. Null if there is no such key. Other processes may hold units of the
   * quota that it does not show.
   *
   * @throws TypeError when `id` is not text.
   * @throws LatchkeyError `unavailable` when the store or the limiter cannot answer.
   */
  limits(id: string): Promise<readonly LimitState[] | null>
  /**
   * Says what `verify` would answer now, and takes each step of the decision for that: what it read, and in plain words what it found.
   * For support ("why was this one refused?"), not for requests: it reads the store each time.
   *
   * It spends nothing: no quota, no unit of a limit and no place, no use of the key, no failed attempt. The first step that refuses
   * decides. After that, what the record says is still shown, but neither your hooks about the owner nor the limiter are asked.
   *
   * The record is read afresh, and nothing is kept. A process may refuse a key by a record that is up to `cache.maxAgeMs` old and,
   * without Redis, let it in by one.
   *
   * Show explanations to administrators only. They say whether a text is a key, and hold data of its owner.
   *
   * @param subject the text of a key, or its id; with an id, the text and the secret count as right
   * @param options those of `verify`: what the request needs and costs, and where it comes from
   * @throws TypeError when an argument is wrong, naming it, and when `cost` names a limit that nobody has.
   * @throws LatchkeyError `unavailable` when the store, the limiter or another part cannot answer.
   * @example
   * const { outcome, reason, steps } = await keys.explain({ id: 'XbC3f8K2mPq9TzRw' }, { permissions: { projects: ['write'] } })
   * steps.find((step) => step.outcome === 'refused')?.message // 'The key expired on 2026-11-30T00:00:00.000Z.'
   */
  explain(subject: ExplainedKey, options?: VerifyOptions): Promise<Explanation>
  /**
   * Calls `listener` once, when a key may no longer do what its connection was let in for: it was revoked, disabled, purged or has
   * expired, its owner may use no keys, or it has lost one of the `permissions`, or the right to come from `ip`. For WebSockets,
   * event streams and other connections that outlive their request. Returns a function that ends the listening: call it when
   * the connection closes.
   *
   * The listener is called at once for changes by this process, and with `invalidation` for those by other processes; otherwise
   * within `cache.maxAgeMs` (5 seconds where `cache` is `false`). Answers of `isOwnerActive` and `ownerPermissions` are also up to
   * `ownerMaxAgeMs` old. For that, a key without other traffic is read once every `cache.maxAgeMs`, however many connections it has.
   * It spends nothing and counts no use: a key with `idleExpiryMs` can end as `idle`. After a rotation the old key ends when its
   * grace does. While the store cannot be read, connections stay; a `fault` event says so.
   *
   * If the key has ended already, the listener is called soon after `onEnd` has returned. What it throws becomes a `fault` event.
   * `close()` forgets all listeners without calling them.
   *
   * @param key its id, or the `apiKey` of a request
   * @throws TypeError when an argument is wrong, naming it.
   * @throws LatchkeyError `unavailable` after `close()`.
   * @example
   * const stop = keys.onEnd(req.apiKey, (reason) => socket.close(4401, reason), { permissions: { chat: ['read'] } })
   * socket.on('close', stop)
   */
  onEnd(key: WatchedKey, listener: (reason: KeyEndReason) => unknown, options?: OnEndOptions): () => void
  /**
   * Reports keys that expire soon now, as `key.expiring` events, rather than at the next look of a timer. For serverless functions, whose
   * timers do not run: call it once an hour, from a scheduled function. Returns how many reminders this call has reported; another
   * process may be reporting the rest. It does no harm to call it twice.
   *
   * @throws TypeError when there are no reminders: `expiryReminders` is `false`, or `onEvent` or the `agree` of the store is missing.
   * @throws LatchkeyError `unavailable` when the store cannot answer. The next call goes on from there.
   */
  remindOfExpiry(): Promise<number>
  /**
   * Finishes the work that earlier requests left behind: writes uses and unspent leased units, gives places back, counts
   * failed attempts, and upgrades digests. Call it where a process may be frozen or killed after it has answered, as in
   * serverless functions. You can call it at any time, several times at once, and after `close()`.
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
  const { formats, prefix, clock, invalidation } = settings
  const parts = composeParts(options, settings)
  const { store, digester, sharing, work, emit } = parts
  const verifier = composeVerifier(settings, parts)
  const explain = composeExplain(settings, parts)
  const settler = new Settler(parts)
  const management = composeManagement(settings, parts)
  const watches = new KeyWatches(parts)
  const stopListening = listen(parts, invalidation)

  function verifyEager(key: string, verifyOptions: VerifyOptions = {}): Awaitable<VerifyResult> {
    return isVerificationMeasured()
      ? verifyMeasured(parts, verifier, key, verifyOptions)
      : verifyWhileOpen(parts, verifier, key, verifyOptions)
  }

  return Object.freeze({
    ...management,
    acceptConfiguration: createAcceptConfiguration(store, digester, sharing, clock, emit),
    prefix,
    clock,
    timeoutMs: settings.timeoutMs,
    rateLimits: deepFreeze(Array.isArray(options.rateLimits) ? copyData(options.rateLimits) : []),
    rateLimitsVary: settings.limits.fixed === null,
    verifyEager,
    ...(formats.names.length > 0 && { isImportedKey: formats.recognises }),
    report: createReporter(clock, emit, parts.usageCounter),
    async verify(key: string, verifyOptions?: VerifyOptions) {
      return verifyEager(key, verifyOptions)
    },
    settle: async (result: VerifiedKey, cost: Cost) =>
      settleWhileOpen(parts, () => settler.settle(result, checkCost('cost', cost))),
    refund: async (result: VerifiedKey) => settleWhileOpen(parts, () => settler.refund(result)),
    release: async (result: VerifiedKey) => release(parts, result),
    keep: (result: VerifiedKey) => keep(parts, result),
    limits: async (id: string) => lookAtLimits(parts, id),
    explain: async (subject: ExplainedKey, verifyOptions: VerifyOptions = {}) =>
      explainWhileOpen(parts, explain, subject, verifyOptions),
    onEnd(key: WatchedKey, listener: (reason: KeyEndReason) => unknown, endOptions?: OnEndOptions) {
      if (work.isClosing) throw closedError()
      return watches.onEnd(key, listener, endOptions)
    },
    remindOfExpiry: async () => remindOfExpiry(parts),
    flush: () => flush(parts),
    close() {
      watches.close()
      parts.reminders?.close()
      return work.close(() => end(parts, stopListening))
    },
  })
}

type StopListening = () => Awaitable<void>

/** Hears of what other processes change, and of the limiter's state. */
function listen(
  { cache, limiter, clock, emit }: Parts,
  invalidation: Invalidation | undefined,
): readonly (StopListening | undefined)[] {
  function onLimiterEvent(happening: LimiterEvent): void {
    const at = new Date(clock.now())
    if (happening.type === 'suspended') emit({ ...happening, type: 'limiter.suspended', at })
    else if (happening.type === 'resumed') emit({ ...happening, type: 'limiter.resumed', at })
    else emit({ type: 'fault', at, operation: 'rate_limiter', error: happening.error })
  }

  return [
    limiter.listen?.(onLimiterEvent),
    invalidation?.listen({
      changed(keys) {
        for (const { keyId, version } of keys) cache.changed(keyId, version)
      },
      missed(error) {
        cache.clear()
        if (error === undefined) return
        emit({ type: 'fault', at: new Date(clock.now()), operation: 'invalidation', error })
      },
    }),
  ]
}

/** A function of its own: its closure would cost every call that nobody measures. */
function verifyMeasured(
  parts: Parts,
  verifier: Verifier,
  key: string,
  options: VerifyOptions,
): Awaitable<VerifyResult> {
  return measureVerification(() => verifyWhileOpen(parts, verifier, key, options))
}

function verifyWhileOpen(
  parts: Parts,
  verifier: Verifier,
  key: string,
  options: VerifyOptions,
): Awaitable<VerifyResult> {
  const { work, guard } = parts
  const asked = checkVerifyOptions(options)
  if (work.isClosing) throw guard.toError('verify', closedError())
  checkSharing(parts)
  const result = verifier.verify(key, asked)
  if (isPromiseLike(result)) work.add(result)
  return result
}

async function explainWhileOpen(
  { work, guard }: Parts,
  explain: Explain,
  subject: ExplainedKey,
  options: VerifyOptions,
): Promise<Explanation> {
  const explained = checkExplained(subject)
  const asked = checkVerifyOptions(options)
  if (work.isClosing) throw guard.toError('verify', closedError())
  const explaining = explain(explained, asked)
  work.add(explaining)
  return explaining
}

async function settleWhileOpen<T>(
  { work, quotaLeases, usageCounter }: Parts,
  settle: () => Promise<T>,
): Promise<T> {
  const settling = settle()
  work.add(settling)
  const settled = await settling
  // Nobody else would write it to the store any more.
  if (work.isClosing) await Promise.all([quotaLeases.giveBack(), usageCounter?.flush()])
  return settled
}

async function release({ limiter, heldPlaces, inBackground }: Parts, result: VerifiedKey): Promise<boolean> {
  const hold = Admitted.holdOf(result, limiter)
  if (!hold) return false
  const releasing = heldPlaces.release(hold)
  inBackground(releasing)
  return releasing
}

function keep({ heldPlaces }: Parts, result: VerifiedKey): boolean {
  const hold = Admitted.peekHold(result)
  if (!hold || hold.isReleased) return false
  heldPlaces.keep(hold)
  return true
}

function remindOfExpiry({ reminders, work }: Parts): Promise<number> {
  if (!reminders) {
    throw new TypeError(
      '"remindOfExpiry" needs "onEvent", a store with "agree", and "expiryReminders" other than false',
    )
  }
  if (work.isClosing) throw closedError()
  const reminding = reminders.remind()
  work.add(reminding)
  return reminding
}

async function flush(parts: Parts): Promise<void> {
  if (await isDoneInTime(parts.clock, parts.timeoutMs, flushAll(parts))) return
  throw new LatchkeyError('unavailable', 'Some pending work could not be written', { stack: false })
}

/** Whether all of it is written. */
async function flushAll(parts: Parts): Promise<boolean> {
  const { usage, usageCounter, quotaLeases, settlements, heldPlaces, work } = parts
  const [isWritten, isCounted, isGivenBack, isSettled, isReleased] = await Promise.all([
    usage?.flush() ?? true,
    usageCounter?.flush() ?? true,
    quotaLeases.giveBack(),
    settlements.flush(),
    heldPlaces.flush(),
    work.unattendedEnded(),
  ])
  return isWritten && isCounted && isGivenBack && isSettled && isReleased
}

async function end(
  { usage, usageCounter, quotaLeases, settlements, heldPlaces }: Parts,
  stopListening: readonly (StopListening | undefined)[],
): Promise<void> {
  await Promise.all([
    quotaLeases.close(),
    usage?.close(),
    usageCounter?.close(),
    settlements.close(),
    heldPlaces.close(),
  ])
  await Promise.allSettled(stopListening.map(async (stop) => stop?.()))
}
