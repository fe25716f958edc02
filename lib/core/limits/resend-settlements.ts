import { type Clock, inTime, monotonicClock } from '../clock.ts'
import type { DependencyRunner } from '../faults.ts'
import type { LimitCosts, OpenChange } from './limit-costs.ts'
import { checkSettleAnswer, type RateLimiter, type SettleAnswer } from './rate-limiter.ts'

/** How long a change is sent again. Limiters remember its id for longer, but not for ever: then they would make it twice. */
const RESEND_FOR_MS = 60_000
const RESEND_EVERY_MS = 1_000
const ANSWER_MS = 2_000
/** How many calls with a change without an answer wait for it to be sent again. Further ones are lost, which is reported. */
const MAX_WAITING = 1_000
/** A round ends after so many failures: most likely, the limiter is still away. */
const MAX_FAILURES = 3

/**
 * Sends settlements to the limiter. One without an answer may have been made or not, so it is sent again under the same id, for a
 * minute: the limiter makes it once.
 */
export class Resending {
  /** Those with a change that had no answer. */
  private readonly waiting = new Set<LimitCosts>()
  private cancelTimer: (() => void) | null = null
  private round: Promise<void> | null = null
  private isClosed = false

  constructor(
    private readonly limiter: RateLimiter,
    private readonly clock: Clock,
    private readonly guard: DependencyRunner,
  ) {}

  /**
   * Makes a call cost what it should. A change of it that is open comes first.
   *
   * @throws LatchkeyError `unavailable` when there is no answer. It is sent again all the same.
   */
  async settle(costs: LimitCosts): Promise<SettleAnswer> {
    try {
      return await this.guard.run('rate_limiter', () => this.sendAllOf(costs), [], 'settle')
    } catch (error) {
      this.keep(costs)
      throw error
    }
  }

  /** Sends again what is open; whether nothing is open then. */
  async flush(): Promise<boolean> {
    await this.resend()
    return this.waiting.size === 0
  }

  /** The same, and stops the timer. */
  async close(): Promise<void> {
    this.isClosed = true
    this.cancelTimer?.()
    this.cancelTimer = null
    await this.resend()
    for (const costs of this.waiting) this.giveUp(costs)
    this.waiting.clear()
  }

  /** Sends change after change until nothing is left to change. Returns the answer to the last one. */
  private async sendAllOf(costs: LimitCosts): Promise<SettleAnswer> {
    const { limiter } = this
    if (!limiter.settle) throw new TypeError('the rate limiter has no "settle"')
    let answer: SettleAnswer
    do {
      const open = this.nextOf(costs)
      answer = checkSettleAnswer(await limiter.settle(open.request), open.request)
      costs.conclude(open, answer)
    } while (!costs.isReached)
    return answer
  }

  /** The change to send now. Asked before every send: any wait may have been longer than it seemed. */
  private nextOf(costs: LimitCosts): OpenChange {
    this.giveUpIfExpired(costs)
    const at = this.clock.now() + RESEND_FOR_MS
    return costs.propose({ at, monotonic: monotonicClock.now() + RESEND_FOR_MS })
  }

  private keep(costs: LimitCosts): void {
    const isFull = this.waiting.size >= MAX_WAITING && !this.waiting.has(costs)
    if (isFull || this.isClosed) this.giveUp(costs)
    if (costs.isReached) return
    this.waiting.add(costs)
    this.startTimer()
  }

  private startTimer(): void {
    if (this.cancelTimer || this.isClosed || this.waiting.size === 0) return
    this.cancelTimer = this.clock.setTimer(() => this.onTimer(), RESEND_EVERY_MS, { background: true })
  }

  private onTimer(): void {
    this.cancelTimer = null
    void this.resend().then(() => this.startTimer())
  }

  private resend(): Promise<void> {
    this.round ??= this.sendWaiting().finally(() => {
      this.round = null
    })
    return this.round
  }

  private async sendWaiting(): Promise<void> {
    // The round may end before it comes to the last ones.
    for (const costs of this.waiting) this.giveUpIfExpired(costs)
    let failures = 0
    for (const costs of [...this.waiting]) {
      this.waiting.delete(costs)
      this.giveUpIfExpired(costs)
      if (costs.isReached) continue
      try {
        // The first fault was reported; further ones are not, until a settlement is given up.
        await inTime(this.clock, ANSWER_MS, () => this.sendAllOf(costs))
      } catch {
        failures += 1
        // After the others, whose server may answer.
        if (!costs.isReached) this.waiting.add(costs)
        if (failures >= MAX_FAILURES) return
      }
    }
  }

  private giveUpIfExpired(costs: LimitCosts): void {
    const { at = Infinity, monotonic = Infinity } = costs.open?.giveUpAt ?? {}
    if (this.clock.now() >= at || monotonicClock.now() >= monotonic) this.giveUp(costs)
  }

  private giveUp(costs: LimitCosts): void {
    if (!costs.open) return
    costs.giveUp(costs.open)
    this.guard.toError('rate_limiter', new Error('a settlement got no answer and was given up'))
  }
}
