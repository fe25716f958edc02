import { LRUCache } from 'lru-cache'
import { retryAfterField } from '../http/header-fields.ts'
import { checkInteger, checkObject, fail } from '../internal/options.ts'
import { refusal } from './refusal.ts'

/** How many requests a caller may make, counted in this process. */
export interface RequestLimitOptions {
  /**
   * How many requests an actor or a key may make within the window, not counting `verify` and `self/revoke`.
   *
   * @default 600
   */
  limit?: number
  /**
   * How many `verify` requests a key may make within the window. It limits how fast a caller can guess keys. It also
   * counts requests for keys that strangers send to the caller, so set it well above the expected load.
   *
   * @default 60_000
   */
  verify?: number
  /**
   * For how many invalid keys a caller of `verify` gets an answer within the window; for further ones it gets
   * `too_many_failures`. Valid keys still get an answer, so nobody can turn a service off by sending invalid ones. This
   * limit signals that something is wrong; it does not limit guessing. The length of a key, `verify` above, the rate
   * limits of the caller's key, and `failedAttempts` for each `ip` do.
   *
   * @default 1_000
   */
  invalidKeys?: number
  /**
   * The length of the window in milliseconds. It starts with the first request.
   *
   * @default 60_000
   */
  windowMs?: number
}

/** Counts requests by name, in windows. */
export interface RequestCounter {
  /** Counts one request. Returns 0, or the milliseconds until the window ends if the count is already used up. */
  count(name: string): number
  /** Counts one request. @throws LatchkeyError `too_many_requests` if the count is already used up. */
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
    // If the clock was set back, a new window opens.
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
