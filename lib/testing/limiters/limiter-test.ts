import { randomUUID } from 'node:crypto'
import { compileServiceLimits } from '../../core/limits/compile-limits.ts'
import type { CostChange } from '../../core/limits/meter.ts'
import type { PlacesRequest } from '../../core/limits/places.ts'
import type { CompiledLimit } from '../../core/limits/rate-limit.ts'
import type {
  LimitAnswer,
  LimitRequest,
  RateLimiter,
  SettleAnswer,
  SettleRequest,
} from '../../core/limits/rate-limiter.ts'
import type { ServiceRateLimit } from '../../core/limits/service-limits.ts'
import { isPromiseLike } from '../../internal/awaitable.ts'
import { copyData } from '../../internal/plain-data.ts'
import type { TestAssert } from '../test-runner.ts'
import { problemOfAnswer, problemOfSettlement } from './answer-shape.ts'

/** The time of a limiter, which a test moves. `fakeClock()` is one. */
export interface LimiterClock {
  /** The time by which the limiter counts, in milliseconds since 1970. */
  now(): number
  /** Moves it by so many milliseconds. Less than 0 sets it back. */
  advance(ms: number): unknown
}

/** A limiter that has counted nothing yet, and the time by which it counts. */
export interface MadeLimiter {
  readonly limiter: RateLimiter
  readonly clock: LimiterClock
  /**
   * A second limiter that shares the counts, as another process has it.
   *
   * @default `limiter` itself
   */
  readonly peer?: RateLimiter
  /** The kit calls it after the test, even if the test failed. */
  close?(): unknown
}

/** A call by default: one unit of a fresh record. */
export type Call = Partial<LimitRequest>
export type Admitted = Extract<LimitAnswer, { outcome: 'admitted' }>
export type Limited = Extract<LimitAnswer, { outcome: 'limited' }>
/** The optional methods too: the kit skips the cases for missing ones. */
export type FullLimiter = RateLimiter & Required<Pick<RateLimiter, 'settle' | 'release' | 'renew'>>

/** What a limiter must do, by name. */
export type LimiterCases = Readonly<Record<string, (test: LimiterTest) => Promise<void>>>

/** How the cost of a call changes: more is charged now, less is given back. */
export interface Settlement extends Partial<SettleRequest> {
  readonly limits: SettleRequest['limits']
  /** The same units for each limit. */
  readonly units?: number
  readonly chargedAt?: number
}

/** A limiter and helpers for the cases. `promise` is the message of a failure. */
export interface LimiterTest {
  readonly limiter: FullLimiter
  /** The limiter of another process. */
  readonly peer: FullLimiter
  now(): number
  /** Moves the time. */
  pass(ms: number): Promise<void>
  holds(condition: boolean, promise: string): void
  same(actual: unknown, expected: unknown, promise: string): void
  /** Asks, and requires an answer of the documented form. */
  ask(call: Call, limiter?: RateLimiter): Promise<LimitAnswer>
  admits(call: Call, promise: string, limiter?: RateLimiter): Promise<Admitted>
  refuses(call: Call, promise: string, limiter?: RateLimiter): Promise<Limited>
  isStale(call: Call, promise: string, limiter?: RateLimiter): Promise<void>
  /** What remains of each limit, as a call says that only looks. */
  left(call: Call, limiter?: RateLimiter): Promise<readonly number[]>
  /** As many calls as are admitted, one after the other. */
  drain(call: Call, limiter?: RateLimiter): Promise<number>
  settle(settlement: Settlement, limiter?: FullLimiter): Promise<SettleAnswer>
  /** Whether the answer to a settlement may be lost on its way. */
  answersLater(): Promise<boolean>
}

export const SECOND = 1_000
export const MINUTE = 60_000
export const HOUR = 3_600_000
export const DAY = 86_400_000

export function createLimiterTest(made: MadeLimiter, assert: TestAssert): LimiterTest {
  const { clock } = made
  const limiter = made.limiter as FullLimiter
  const peer = (made.peer ?? made.limiter) as FullLimiter

  async function ask(call: Call, by: RateLimiter = limiter): Promise<LimitAnswer> {
    const request = requestOf(call)
    const answer = await by.check(request)
    const problem = problemOfAnswer(request, answer, clock.now())
    assert.ok(problem === null, `every answer of "check" has the documented form: ${problem}`)
    return answer
  }

  async function answersWith<Outcome extends LimitAnswer['outcome']>(
    outcome: Outcome,
    call: Call,
    promise: string,
    by?: RateLimiter,
  ): Promise<Extract<LimitAnswer, { outcome: Outcome }>> {
    const answer = await ask(call, by)
    assert.strictEqual(answer.outcome, outcome, promise)
    return answer as Extract<LimitAnswer, { outcome: Outcome }>
  }

  const test: LimiterTest = {
    limiter,
    peer,
    now: () => clock.now(),
    pass: async (ms) => void (await clock.advance(ms)),
    holds: (condition, promise) => assert.ok(condition, promise),
    same: (actual, expected, promise) =>
      assert.deepStrictEqual(copyData(actual), copyData(expected), promise),
    ask,
    admits: (call, promise, by) => answersWith('admitted', call, promise, by),
    refuses: (call, promise, by) => answersWith('limited', call, promise, by),
    isStale: async (call, promise, by) => void (await answersWith('stale', call, promise, by)),

    async left(call, by) {
      const answer = await ask({ ...call, cost: 0, costs: undefined }, by)
      assert.strictEqual(answer.outcome, 'admitted', 'a call that only looks is never refused')
      return (answer as Admitted).limits.map(({ remaining }) => remaining)
    },

    async drain(call, by) {
      for (let admitted = 0; admitted < MAX_DRAINED; admitted += 1) {
        if ((await ask(call, by)).outcome !== 'admitted') return admitted
      }
      return MAX_DRAINED
    },

    async settle(settlement, by = limiter) {
      const request = settleRequestOf(settlement)
      const answer = await by.settle(request)
      const problem = problemOfSettlement(request, answer, clock.now(), settlement.id !== undefined)
      assert.ok(problem === null, `every answer of "settle" has the documented form: ${problem}`)
      return answer
    },

    async answersLater() {
      const answer = limiter.settle(settleRequestOf({ limits: [] }))
      await answer
      return isPromiseLike(answer)
    },
  }
  return test
}

/** More calls than any case admits: a limiter that never refuses must not go on for ever. */
const MAX_DRAINED = 1_000

export function requestOf(call: Call): LimitRequest {
  const defaults = {
    lineageId: 'l',
    keyId: 'k',
    version: 1,
    fresh: true,
    cost: 1,
    limits: [],
    retainMs: HOUR,
  }
  return { ...defaults, ...call }
}

function settleRequestOf({ units = 0, chargedAt = 0, ...given }: Settlement): SettleRequest {
  const changes: readonly (readonly CostChange[])[] = given.limits.map(() => [{ units, chargedAt }])
  return { lineageId: 'l', id: randomUUID(), changes, ...given }
}

/** A call that takes places. */
export function placesOf(id: string, limits: readonly CompiledLimit[], call: Partial<PlacesRequest> = {}) {
  const { lineageId = 'l', owner } = call
  return { request: { lineageId, owner, id, limits }, call: { lineageId, owner, places: { id, limits } } }
}

/** Limits as limiters see them: those of the owner come last. */
export function limitsOf(...limits: readonly ServiceRateLimit[]): readonly CompiledLimit[] {
  return compileServiceLimits('rateLimits', limits)
}

/** A call by a key with this limit, and one by a key whose owner has it. */
export function byKeyAndByOwner(limit: ServiceRateLimit): readonly Call[] {
  const owned = { lineageId: 'owned', owner: '4:user:u_1', limits: limitsOf({ ...limit, scope: 'owner' }) }
  return [{ limits: limitsOf(limit) }, owned]
}
