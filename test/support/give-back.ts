import { randomUUID } from 'node:crypto'
import type { RateLimiter } from 'latchkey'
import type { CompiledLimit } from '../../lib/core/limits/rate-limit.ts'
import type { SettleAnswer } from '../../lib/core/limits/rate-limiter.ts'

/** Gives back what a call has cost every one of these limits. */
export function giveBack<Limiter extends Pick<RateLimiter, 'settle'>>(
  limiter: Limiter,
  given: { lineageId: string; cost: number; chargedAt: number; limits: readonly CompiledLimit[] },
): ReturnType<NonNullable<Limiter['settle']>> {
  const { lineageId, cost, chargedAt, limits } = given
  const changes = limits.map(() => [{ units: -cost, chargedAt }])
  type Answer = ReturnType<NonNullable<Limiter['settle']>>
  const request = { lineageId, id: randomUUID(), limits, changes }
  return limiter.settle?.(request) satisfies SettleAnswer | PromiseLike<SettleAnswer> | undefined as Answer
}
