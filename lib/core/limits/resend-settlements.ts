import type { Clock } from '../clock.ts'
import type { DependencyRunner } from '../faults.ts'
import { checkSettleAnswer, type RateLimiter, type SettleAnswer, type SettleRequest } from './rate-limiter.ts'

/** A settlement whose outcome is not known. */
interface Open {
  readonly request: SettleRequest
  readonly giveUpAt: number
  onSettled(answer: SettleAnswer): void
}

/** The open settlements of one call, in their order: units must not be given back before they are charged. */
export type OpenSettlements = Open[]

/** How long a settlement is sent again. Limiters remember its id for longer. */
const RESEND_FOR_MS = 60_000
const RESEND_EVERY_MS = 1_000
/** How many settlements wait to be sent again. Further ones are lost, which is reported. */
const MAX_OPEN = 1_000
/** A round ends after so many failures: most likely, the limiter is still away. */
const MAX_FAILURES = 3

/**
 * Sends settlements to the limiter. One without an answer may have been made or not, so it is sent again under the same id, for a
 * minute: the limiter makes it once.
 */
export class Resending {
  /** Those of calls, with at least one that had no answer. */
  private readonly waiting = new Set<OpenSettlements>()
  private openCount = 0
  private cancelTimer: (() => void) | null = null
  private round: Promise<void> | null = null
  private isClosed = false

  constructor(
    private readonly limiter: RateLimiter,
    private readonly clock: Clock,
    private readonly guard: DependencyRunner,
  ) {}

  /**
   * Settles after the earlier settlements of the call, which may be open.
   *
   * @throws LatchkeyError `unavailable` when there is no answer. It is sent again all the same.
   */
  async settle(
    earlier: OpenSettlements,
    request: SettleRequest,
    onSettled: (answer: SettleAnswer) => void,
  ): Promise<SettleAnswer> {
    const open = { request, onSettled, giveUpAt: this.clock.now() + RESEND_FOR_MS }
    earlier.push(open)
    this.openCount += 1
    let last: SettleAnswer | undefined
    const send = async () => {
      last = await this.sendInOrder(earlier)
    }
    try {
      await this.guard.run('rate_limiter', send)
    } catch (error) {
      this.keep(earlier, open)
      throw error
    }
    return last ?? { limits: [], settledAt: 0 }
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
    for (const all of this.waiting) for (const open of [...all]) this.giveUp(all, open)
    this.waiting.clear()
  }

  /** Returns the answer to the last one. */
  private async sendInOrder(all: OpenSettlements): Promise<SettleAnswer | undefined> {
    const { limiter } = this
    if (!limiter.settle) throw new TypeError('the rate limiter has no "settle"')
    let answer: SettleAnswer | undefined
    for (let open = all[0]; open; open = all[0]) {
      answer = checkSettleAnswer(await limiter.settle(open.request), open.request)
      // It may have been sent twice at once, or given up meanwhile.
      if (all[0] !== open) continue
      open.onSettled(answer)
      this.drop(all, open)
    }
    return answer
  }

  private drop(all: OpenSettlements, open: Open): void {
    const at = all.indexOf(open)
    if (at === -1) return
    all.splice(at, 1)
    this.openCount -= 1
  }

  private keep(all: OpenSettlements, latest: Open): void {
    if (this.openCount > MAX_OPEN || this.isClosed) this.giveUp(all, latest)
    if (all.length === 0) return
    this.waiting.add(all)
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
    this.round ??= this.sendAll().finally(() => {
      this.round = null
    })
    return this.round
  }

  private async sendAll(): Promise<void> {
    let failures = 0
    for (const all of [...this.waiting]) {
      this.waiting.delete(all)
      try {
        await this.withDeadline(this.sendInOrder(all))
      } catch {
        failures += 1
        const now = this.clock.now()
        for (const open of [...all]) if (now >= open.giveUpAt) this.giveUp(all, open)
        // Behind the others, whose server may answer.
        if (all.length > 0) this.waiting.add(all)
        if (failures >= MAX_FAILURES) return
      }
    }
  }

  /** The first fault was reported; further ones are not, until a settlement is given up. */
  private withDeadline(sending: Promise<unknown>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const expire = () => reject(new Error('no answer'))
      const cancel = this.clock.setTimer(expire, 2 * RESEND_EVERY_MS, { background: true })
      sending.then(resolve, reject).finally(cancel)
    })
  }

  private giveUp(all: OpenSettlements, open: Open): void {
    this.drop(all, open)
    this.guard.toError('rate_limiter', new Error('a settlement got no answer and was given up'))
  }
}
