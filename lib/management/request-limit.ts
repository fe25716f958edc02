import { LRUCache } from 'lru-cache'
import { retryAfterField } from '../http/header-fields.ts'
import { checkInteger, checkObject, fail } from '../internal/options.ts'
import { refusal } from './refusal.ts'

/** How often somebody may ask, counted in this process. */
export interface RequestLimitOptions {
  /**
   * How many requests an actor may make within the window, or a key, `verify` and `self/revoke` apart.
   *
   * @default 600
   */
  limit?: number
  /**
   * How many requests to `verify` a key may make within the window. It bounds how fast a caller may guess, and counts what
   * strangers send to it as well: set it well above what the service has to bear.
   *
   * @default 60_000
   */
  verify?: number
  /**
   * How many keys that are not valid a caller of `verify` is told of within the window; for further ones it is told
   * `too_many_failures`. Good
   * keys are answered all the same, so that nobody turns a service off with bad ones. It is a sign that something is
   * amiss and no bound on guessing: that is the length of a key, `verify` above, the rate limits of the key that asks, and
   * `failedAttempts` for each `ip` that it tells.
   *
   * @default 1_000
   */
  invalidKeys?: number
  /**
   * The window in milliseconds; it opens with the first request.
   *
   * @default 60_000
   */
  windowMs?: number
}

/** Counts by name, in windows. */
export interface RequestCounter {
  /** Counts one. Milliseconds until the window ends where the count is used up already, 0 elsewhere. */
  count(name: string): number
  /** Counts one. @throws LatchkeyError `too_many_requests` where the count is used up. */
  spend(name: string): void
}

export interface RequestLimits {
  readonly requests: RequestCounter
  readonly verify: RequestCounter
  readonly invalidKeys: RequestCounter
}

const MAX_NAMES = 10_000

/** @throws TypeError naming the option. */
export function createRequestLimits(value: unknown, now: () => number): RequestLimits {
  if (value === false) return { requests: UNCOUNTED, verify: UNCOUNTED, invalidKeys: UNCOUNTED }
  if (value === true) fail('requestLimit', 'an object or false', value)
  const given = checkObject('requestLimit', value ?? {}, ['limit', 'verify', 'invalidKeys', 'windowMs'])
  const { limit = 600, verify = 60_000, invalidKeys = 1_000, windowMs = 60_000 } = given
  checkInteger('requestLimit.limit', limit, 1, 1_000_000_000)
  checkInteger('requestLimit.verify', verify, 1, 1_000_000_000)
  checkInteger('requestLimit.invalidKeys', invalidKeys, 1, 1_000_000_000)
  checkInteger('requestLimit.windowMs', windowMs, 1_000, 86_400_000)
  const windows = windowMs as number
  return {
    requests: createCounter(limit as number, windows, now),
    verify: createCounter(verify as number, windows, now),
    invalidKeys: createCounter(invalidKeys as number, windows, now),
  }
}

const UNCOUNTED: RequestCounter = Object.freeze({ count: () => 0, spend() {} })

function createCounter(limit: number, windowMs: number, now: () => number): RequestCounter {
  const counts = new LRUCache<string, { since: number; count: number }>({ max: MAX_NAMES })

  function windowOf(name: string) {
    const kept = counts.get(name)
    const at = now()
    // A clock that was set back opens a new one.
    if (kept && at >= kept.since && at < kept.since + windowMs) return kept
    const opened = { since: at, count: 0 }
    counts.set(name, opened)
    return opened
  }

  function count(name: string): number {
    const opened = windowOf(name)
    if (opened.count >= limit) return opened.since + windowMs - now()
    opened.count += 1
    return 0
  }

  return {
    count,
    spend(name) {
      const retryAfterMs = count(name)
      if (retryAfterMs > 0) throw refusal('too_many_requests', {}, retryAfterField(retryAfterMs))
    },
  }
}
