import { LRUCache } from 'lru-cache'
import { retryAfterField } from '../http/header-fields.ts'
import { checkInteger, checkObject, fail } from '../internal/options.ts'
import { refusal } from './refusal.ts'

/** How often somebody may ask, counted in this process. */
export interface RequestLimitOptions {
  /**
   * How many requests an actor may make within the window.
   *
   * @default 600
   */
  limit?: number
  /**
   * How many keys that are not valid a caller of `verify` may ask about within the window. It bounds how fast a caller may
   * guess; set it well above what its clients mistype.
   *
   * @default 1_000
   */
  inactive?: number
  /**
   * The window in milliseconds; it opens with the first request.
   *
   * @default 60_000
   */
  windowMs?: number
}

/** Counts by name, in windows. */
export interface RequestCounter {
  /** @throws LatchkeyError `too_many_requests` where the count is used up. */
  require(name: string): void
  count(name: string): void
}

export interface RequestLimits {
  readonly requests: RequestCounter
  readonly inactive: RequestCounter
}

const MAX_NAMES = 10_000

/** @throws TypeError naming the option. */
export function createRequestLimits(value: unknown, now: () => number): RequestLimits {
  if (value === false) return { requests: UNCOUNTED, inactive: UNCOUNTED }
  if (value === true) fail('requestLimit', 'an object or false', value)
  const given = checkObject('requestLimit', value ?? {}, ['limit', 'inactive', 'windowMs'])
  const { limit = 600, inactive = 1_000, windowMs = 60_000 } = given
  checkInteger('requestLimit.limit', limit, 1, 1_000_000_000)
  checkInteger('requestLimit.inactive', inactive, 1, 1_000_000_000)
  checkInteger('requestLimit.windowMs', windowMs, 1_000, 86_400_000)
  const windows = windowMs as number
  return {
    requests: createCounter(limit as number, windows, now),
    inactive: createCounter(inactive as number, windows, now),
  }
}

const UNCOUNTED: RequestCounter = Object.freeze({ require() {}, count() {} })

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

  return {
    require(name) {
      const { since, count } = windowOf(name)
      if (count >= limit) {
        throw refusal('too_many_requests', {}, retryAfterField(since + windowMs - now()))
      }
    },
    count(name) {
      windowOf(name).count += 1
    },
  }
}
