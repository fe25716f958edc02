import { type Clock, monotonicClock, systemClock } from '../core/clock.ts'
import { isVerificationMeasured, measureVerification } from '../core/diagnostics/measure-verification.ts'
import { createEmitter } from '../core/emitter.ts'
import type { ApiKeyListener } from '../core/events.ts'
import { createDependencyRunner } from '../core/faults.ts'
import { compileFormats, type KeyFormat } from '../core/keys/imported-format.ts'
import { checkPrefix } from '../core/keys/key-format.ts'
import type { RateLimiter } from '../core/limits/rate-limiter.ts'
import {
  checkFailedAttempts,
  createFailedAttempts,
  type FailedAttemptsOptions,
  NO_FAILED_ATTEMPTS,
} from '../core/verify/failed-attempts.ts'
import type { ApiKeyVerifier, VerifyOptions } from '../core/verify/key-verifier.ts'
import { createRefuseKey } from '../core/verify/refuse-key.ts'
import { createReporter } from '../core/verify/report-event.ts'
import type { VerifyResult } from '../core/verify/verify-result.ts'
import { LatchkeyError } from '../errors.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import {
  checkBoolean,
  checkFunction,
  checkInteger,
  checkIntegerOrFalse,
  checkMethods,
  checkObject,
} from '../internal/options.ts'
import { memoryRateLimiter } from '../rate-limits/memory.ts'
import { createAnswerCache } from './answer-cache.ts'
import { RemoteVerifier } from './remote-verifier.ts'
import { ServiceQuestions, type VerifyingClient } from './service-questions.ts'

/** How to use and cache the answers of the service. */
export interface RemoteApiKeysOptions {
  /**
   * How long to use an answer of the service, in milliseconds since the request; at most a day. A revoked key may still work here for
   * this long, and an enabled key may still fail. With `false`, every request asks the service. For a key with `idleExpiryMs`, an answer
   * lasts at most half of that time, so that a key in use does not become idle.
   *
   * @default 5_000
   */
  cacheMs?: number | false
  /**
   * How many answers to keep, separately for valid and invalid keys.
   *
   * @default 10_000
   */
  maxEntries?: number
  /**
   * How many requests to the service may be in progress. Further ones fail with `unavailable` at once, so that waiting requests do not
   * fill this process when the service does not answer.
   *
   * @default 256
   */
  maxPending?: number
  /**
   * Counts every call against the limits and the quota of the key. Each request then calls the service; only requests that cost
   * nothing (`cost: 0`) use the cache. Without `charge`, nothing counts and responses show no limits.
   *
   * @default false
   */
  charge?: boolean
  /**
   * The prefix of the keys that the service issues. It distinguishes keys from other bearer tokens.
   *
   * @default none
   */
  prefix?: string
  /**
   * The `formats` of the service, to recognise keys of other products. Any text in neither their format nor the native one is refused
   * without asking the service.
   *
   * @default []
   */
  formats?: readonly KeyFormat[]
  /**
   * Blocks addresses that send many invalid keys, before it asks the service. It takes the same options as in `createApiKeys`.
   *
   * @default false
   */
  failedAttempts?: boolean | FailedAttemptsOptions
  /**
   * Where to count `failedAttempts`. Do not share it with the service, or each failed attempt counts twice.
   *
   * @default in the memory of this process
   */
  rateLimiter?: RateLimiter
  /** Receives every refusal and fault. Without it, faults become process warnings, at most one a minute of each kind. */
  onEvent?: ApiKeyListener
  /**
   * The time, for tests.
   *
   * @default the machine's clock, for expiry; a monotonic clock for the age of answers
   */
  clock?: Clock
}

/** Keys that another service verifies. Use it instead of `keys` wherever only verification is needed: middlewares, the strategy. */
export interface RemoteApiKeys extends ApiKeyVerifier {
  /** Like `verify`, but returns the result at once if the answer is in the cache. */
  verifyEager(key: string, options?: VerifyOptions): Awaitable<VerifyResult>
  /** Turns what happened in a middleware into an event. */
  report: NonNullable<ApiKeyVerifier['report']>
  /** Clears the cache. The next request with each key asks the service. */
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

/** How long the limiter may take to count a failed attempt. No request waits for it. The client has its own deadline. */
const COUNTING_TIMEOUT_MS = 5_000

/**
 * Verifies keys through another service and caches its answers for a short, bounded time. While the service is unavailable, cached
 * answers stay in use within that bound. All other requests fail with `unavailable`: nothing passes unverified.
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
  const answers = createAnswerCache(cacheMs, maxEntries, options.clock ?? monotonicClock)
  const service = new ServiceQuestions(client, answers, maxPending, guard)
  const refuse = createRefuseKey(clock, emit)
  const failedAttempts = settings.failedAttempts
    ? createFailedAttempts(settings.failedAttempts, settings.limiter, clock, guard, emit, () => {})
    : NO_FAILED_ATTEMPTS
  const report = createReporter(clock, emit)
  const parts = { charge, formats, clock, guard, answers, service, refuse, failedAttempts }
  const verifier = new RemoteVerifier(parts)

  function verifyEager(key: string, asked: VerifyOptions = {}): Awaitable<VerifyResult> {
    if (!isVerificationMeasured()) return verifier.verify(key, asked)
    return measureVerification(() => verifier.verify(key, asked))
  }

  return Object.freeze({
    ...(prefix !== undefined && { prefix }),
    ...(formats.names.length > 0 && { isImportedKey: formats.recognises }),
    verifyEager,
    async verify(key: string, asked?: VerifyOptions) {
      return verifyEager(key, asked)
    },
    report,
    ...(charge && { settle: refuseSettling, refund: refuseRefund }),
    clear() {
      answers.clear()
      service.clear()
    },
  })
}

/** The service settles nothing over HTTP. */
async function refuseSettling(): Promise<never> {
  throw new LatchkeyError('unsupported', '"settle" does not work through another service')
}

/** Nor does it refund. */
async function refuseRefund(): Promise<boolean> {
  throw new LatchkeyError('unsupported', '"refund" does not work through another service')
}

function resolveOptions(options: RemoteApiKeysOptions) {
  checkObject('options', options, OPTIONS)
  const {
    clock = systemClock,
    onEvent,
    rateLimiter,
    prefix,
    charge = false,
    failedAttempts = false,
  } = options
  const { cacheMs = 5_000, maxEntries = 10_000, maxPending = 256 } = options
  checkFunction('clock.now', clock?.now)
  checkFunction('clock.setTimer', clock?.setTimer)
  if (onEvent !== undefined) checkFunction('onEvent', onEvent)
  if (rateLimiter !== undefined) checkMethods('rateLimiter', rateLimiter, ['check'])
  return {
    clock,
    onEvent,
    limiter: rateLimiter ?? memoryRateLimiter({ clock }),
    failedAttempts: checkFailedAttempts(failedAttempts),
    prefix: prefix === undefined ? undefined : checkPrefix('prefix', prefix),
    formats: compileFormats('formats', options.formats ?? []),
    charge: checkBoolean('charge', charge),
    cacheMs: checkIntegerOrFalse('cacheMs', cacheMs, 86_400_000) || 0,
    maxEntries: checkInteger('maxEntries', maxEntries, 1, 10_000_000),
    maxPending: checkInteger('maxPending', maxPending, 1, 1_000_000),
  }
}
