import { Redis } from 'ioredis'
import { type Clock, memoryRateLimiter, type RateLimiter } from 'latchkey'
import { redisRateLimiter } from 'latchkey/redis'
import { onTestFinished } from 'vitest'

/** A limiter whose calls are counted, and which can be broken. */
export interface CountedLimiter {
  readonly limiter: RateLimiter
  /** Each call so far: what it asked, and what was answered. */
  readonly calls: string[]
  /** From now on every call fails. */
  fail(): void
}

/** In memory, or in a Redis that is not there, with a policy for that. */
export type LimiterKind = 'memory' | 'away, local' | 'away, open' | 'away, closed'

export function countedLimiter(kind: LimiterKind, clock: Clock): CountedLimiter {
  const inner = createLimiter(kind, clock)
  const calls: string[] = []
  let isBroken = false
  const meet = () => {
    if (isBroken) throw new Error('the limiter is down')
  }
  const limiter: RateLimiter = {
    async check(request) {
      const call = `check ${request.cost}`
      try {
        meet()
        const answer = await inner.check(request)
        calls.push(`${call}: ${answer.outcome}`)
        return answer
      } catch (error) {
        calls.push(`${call}: failed`)
        throw error
      }
    },
    raiseVersions: (marks, retainMs) => inner.raiseVersions(marks, retainMs),
    listen: (listener) => inner.listen?.(listener) ?? (() => {}),
  }
  return {
    limiter,
    calls,
    fail: () => {
      isBroken = true
    },
  }
}

function createLimiter(kind: LimiterKind, clock: Clock): RateLimiter {
  if (kind === 'memory') return memoryRateLimiter({ clock })
  // Nobody listens on this port: every command is refused at once.
  const redis = new Redis({ port: 1, lazyConnect: true, enableOfflineQueue: false, retryStrategy: null })
  redis.on('error', () => {})
  onTestFinished(() => redis.disconnect())
  const policies = { 'away, local': 'local', 'away, open': 'open', 'away, closed': 'closed' } as const
  return redisRateLimiter(redis, { onUnavailable: policies[kind] })
}
