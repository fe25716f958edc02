import { hash } from 'node:crypto'
import type { VerificationRefusal } from '../client/verification.ts'
import { type Clock, monotonicClock, systemClock } from '../core/clock.ts'
import { createEmitter } from '../core/emitter.ts'
import type { ApiKeyListener } from '../core/events.ts'
import { createDependencyRunner } from '../core/faults.ts'
import { compileFormats, type KeyFormat } from '../core/keys/imported-format.ts'
import { checkPrefix, hasRightChecksum, parseKey } from '../core/keys/key-format.ts'
import type { ApiKey } from '../core/keys/record.ts'
import type { LimitState } from '../core/limits/rate-limit.ts'
import type { RateLimiter } from '../core/limits/rate-limiter.ts'
import { decideKey } from '../core/verify/decide-key.ts'
import {
  checkFailedAttempts,
  createFailedAttempts,
  type FailedAttemptsOptions,
  NO_FAILED_ATTEMPTS,
} from '../core/verify/failed-attempts.ts'
import {
  type ApiKeyVerifier,
  checkVerifyOptions,
  isAcceptedPrefix,
  type VerifyOptions,
} from '../core/verify/key-verifier.ts'
import { createRefuseKey } from '../core/verify/refuse-key.ts'
import { createReporter } from '../core/verify/report-event.ts'
import type { InvalidReason, RefusedKey, VerifyResult } from '../core/verify/verify-result.ts'
import { LatchkeyError } from '../errors.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import { checkBoolean, checkFunction, checkInteger, checkMethods, checkObject } from '../internal/options.ts'
import { memoryRateLimiter } from '../rate-limits/memory.ts'
import { type Answer, createAnswerCache } from './answer-cache.ts'
import { createServiceQuestions, NO_LIMITS, type Told, type VerifyingClient } from './service-questions.ts'

/** How answers of the service are used. */
export interface RemoteApiKeysOptions {
  /**
   * How long an answer of the service is used, in milliseconds, counted from when it was asked for; at most a day. It bounds
   * how long a key that is revoked there still works here, and one that is enabled again does not. 0 asks for every request. A
   * key that expires when it is idle is asked about at least twice within its `idleExpiryMs`.
   *
   * @default 5_000
   */
  cacheMs?: number
  /**
   * How many answers are held at most, for good keys and for bad ones each.
   *
   * @default 10_000
   */
  maxEntries?: number
  /**
   * How many questions may be under way. Further ones fail with `unavailable` at once, so that a service that does not answer
   * does not fill this process with requests that wait.
   *
   * @default 256
   */
  maxPending?: number
  /**
   * Counts every call against the limits and the quota of the key. Each request is then a call of the service; only what costs
   * nothing (`cost: 0`) is answered from the cache. Without it nothing is counted, and responses show no limits.
   *
   * @default false
   */
  charge?: boolean
  /**
   * The prefix of the keys that the service issues, by which a bearer token is recognised as one.
   *
   * @default none
   */
  prefix?: string
  /**
   * How keys of other products are recognised: the `formats` of the service. Whatever has neither their shape nor that of a
   * native key is refused without asking.
   *
   * @default []
   */
  formats?: readonly KeyFormat[]
  /**
   * Blocks addresses that send many invalid keys, before the service is asked; as for `createApiKeys`.
   *
   * @default false
   */
  failedAttempts?: boolean | FailedAttemptsOptions
  /**
   * Where `failedAttempts` are counted. Not where the service counts its own, or each would count twice.
   *
   * @default in the memory of this process
   */
  rateLimiter?: RateLimiter
  /** Receives every refusal and fault. Without it, what fails is a warning of the process, at most one a minute of each kind. */
  onEvent?: ApiKeyListener
  /**
   * The time, for tests.
   *
   * @default the machine's clock, for expiry; answers age by one that nobody sets
   */
  clock?: Clock
}

/** Keys that another service verifies. It goes wherever `keys` does that only verifies: middlewares, the strategy. */
export interface RemoteApiKeys extends ApiKeyVerifier {
  /** As `verify`, but answers at once where the answer is remembered. */
  verifyEager(key: string, options?: VerifyOptions): Awaitable<VerifyResult>
  /** Takes note of what happened in a middleware: it becomes an event. */
  report: NonNullable<ApiKeyVerifier['report']>
  /** Forgets all answers: the service is asked anew about every key. */
  clear(): void
}

const OPTIONS = [
  'cacheMs',
  'maxEntries',
  'maxPending',
  'charge',
  'prefix',
  'formats',
  'failedAttempts',
  'rateLimiter',
  'onEvent',
  'clock',
]

/** How long the limiter may take to count a failed attempt, for which nobody waits. The client has a deadline of its own. */
const COUNTING_TIMEOUT_MS = 5_000

/**
 * Verifies keys through another service, and remembers for a short, hard-bounded time what it said. While the service is away,
 * what is remembered is used within that bound; everything else fails with `unavailable`, and nothing passes.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const client = createApiKeysClient({ baseUrl: 'https://auth.example.com/api-keys', key: process.env.AUTH_KEY ?? '' })
 * app.use(apiKeyAuth(remoteApiKeys(client, { cacheMs: 5_000 })))
 */
export function remoteApiKeys(client: VerifyingClient, options: RemoteApiKeysOptions = {}): RemoteApiKeys {
  checkMethods('client', client, ['verify'])
  const { cacheMs, maxEntries, maxPending, charge, formats, prefix, clock, ...settings } =
    resolveOptions(options)
  const emit = createEmitter(settings.onEvent)
  const guard = createDependencyRunner(clock, COUNTING_TIMEOUT_MS, emit)
  const report = createReporter(clock, emit)
  const answers = createAnswerCache(cacheMs, maxEntries, options.clock ?? monotonicClock)
  const service = createServiceQuestions(client, answers, maxPending, guard)
  const refuse = createRefuseKey(clock, emit)
  const failedAttempts = settings.failedAttempts
    ? createFailedAttempts(settings.failedAttempts, settings.limiter, clock, guard, emit, () => {})
    : NO_FAILED_ATTEMPTS

  function verifyEager(key: string, asked: VerifyOptions = {}): Awaitable<VerifyResult> {
    checkVerifyOptions(asked)
    if (typeof key !== 'string') return invalid('malformed', null, asked)
    const parsed = parseKey(key)
    if (!parsed && lookupsOf(key).length === 0) return invalid('malformed', null, asked)
    const keyId = parsed?.keyId ?? null
    const isCharged = charge && asked.cost !== 0
    const digest = hash('sha256', key, 'base64url')
    const known = isCharged ? undefined : answers.peek(digest)
    if (known?.facts) return decide(known, NO_LIMITS, keyId, asked)
    if (parsed && !hasRightChecksum(key)) return invalid('malformed', null, asked)
    if (parsed && !isAcceptedPrefix(parsed.prefix, asked.prefix)) {
      return invalid('prefix_not_accepted', keyId, asked)
    }
    const retryAfterMs = failedAttempts.blockedForMs(asked.ip)
    // Good keys behind a shared address keep working.
    if (retryAfterMs > 0 && !answers.wasGood(digest)) {
      return refuse({ ok: false, code: 'too_many_failures', retryAfterMs }, asked, keyId)
    }
    if (known) return decide(known, NO_LIMITS, keyId, asked)
    const question = { digest, key, keyId }
    const told = isCharged ? service.askCharged(question, asked) : service.askOnce(question, asked.ip)
    return told.then((given) => conclude(given, keyId, asked))
  }

  function conclude(told: Told, keyId: string | null, asked: VerifyOptions): VerifyResult {
    const { answer, limits, refused, retryAfterMs } = told
    if (retryAfterMs !== undefined) {
      countFailure(asked)
      return refuse({ ok: false, code: 'too_many_failures', retryAfterMs }, asked, keyId)
    }
    const decided = decide(answer, limits, keyId, asked)
    if (!decided.ok || !refused) return decided
    return refuse(toRefusedKey(refused, decided.apiKey, limits), asked, keyId)
  }

  /** Decides by what the service has said, as it would itself. */
  function decide(
    { facts }: Answer,
    limits: readonly LimitState[],
    keyId: string | null,
    asked: VerifyOptions,
  ): VerifyResult {
    if (!facts) return invalid('inactive', keyId, asked)
    const { apiKey } = facts
    const decision = decideKey({ facts, idleAtMs: Infinity, granted: apiKey }, asked, clock.now())
    if (decision.outcome !== 'refused') return { ok: true, apiKey, limits }
    const { refusal } = decision
    if (refusal.code !== 'invalid_key') return refuse(refusal, asked, keyId)
    return invalid(refusal.reason, keyId, asked, apiKey)
  }

  function lookupsOf(key: string): readonly string[] {
    try {
      return formats.lookupsOf(key)
    } catch (error) {
      throw guard.toError('format', error)
    }
  }

  function countFailure({ ip }: VerifyOptions): void {
    if (failedAttempts.blockedForMs(ip) === 0) failedAttempts.count(ip)
  }

  function invalid(
    reason: InvalidReason,
    keyId: string | null,
    asked: VerifyOptions,
    apiKey: ApiKey | null = null,
  ): RefusedKey {
    countFailure(asked)
    return refuse({ ok: false, code: 'invalid_key', reason }, asked, keyId, apiKey)
  }

  return Object.freeze({
    ...(prefix !== undefined && { prefix }),
    ...(formats.names.length > 0 && { isImportedKey: formats.recognises }),
    verifyEager,
    async verify(key: string, asked?: VerifyOptions) {
      return verifyEager(key, asked)
    },
    report,
    ...(charge && { refund: refuseRefund }),
    clear() {
      answers.clear()
      service.clear()
    },
  })
}

/** What a service has charged it gives back to nobody. */
async function refuseRefund(): Promise<boolean> {
  throw new LatchkeyError('unsupported', '"refund" is not there over another service')
}

function toRefusedKey(
  refused: VerificationRefusal,
  apiKey: ApiKey,
  limits: readonly LimitState[],
): RefusedKey {
  switch (refused.code) {
    case 'address_not_allowed':
      return { ok: false, code: refused.code, apiKey }
    case 'insufficient_permissions':
      return { ok: false, code: refused.code, apiKey, missing: refused.missing }
    default:
      return { ok: false, code: refused.code, apiKey, limits, retryAfterMs: refused.retryAfterMs }
  }
}

function resolveOptions(options: RemoteApiKeysOptions) {
  checkObject('options', options, OPTIONS)
  const { clock = systemClock, onEvent, rateLimiter, prefix, charge = false } = options
  checkFunction('clock.now', clock?.now)
  checkFunction('clock.setTimer', clock?.setTimer)
  if (onEvent !== undefined) checkFunction('onEvent', onEvent)
  if (rateLimiter !== undefined) checkMethods('rateLimiter', rateLimiter, ['check'])
  return {
    clock,
    onEvent,
    limiter: rateLimiter ?? memoryRateLimiter({ clock }),
    failedAttempts: checkFailedAttempts(options.failedAttempts ?? false),
    prefix: prefix === undefined ? undefined : checkPrefix('prefix', prefix),
    formats: compileFormats('formats', options.formats ?? []),
    charge: checkBoolean('charge', charge),
    cacheMs: checkInteger('cacheMs', options.cacheMs ?? 5_000, 0, 86_400_000),
    maxEntries: checkInteger('maxEntries', options.maxEntries ?? 10_000, 1, 10_000_000),
    maxPending: checkInteger('maxPending', options.maxPending ?? 256, 1, 1_000_000),
  }
}
