import { LatchkeyError } from '../../errors.ts'
import { type Awaitable, isPromiseLike } from '../../internal/awaitable.ts'
import { type Clock, inTime } from '../clock.ts'
import type { DependencyRunner } from '../faults.ts'
import type { PlacesRequest } from './places.ts'
import type { RateLimiter } from './rate-limiter.ts'

/** The places that a call holds. */
export interface Hold {
  readonly request: PlacesRequest
  /** Whether only this process counts the places, until it renews them. */
  isLocal: boolean
  isReleased: boolean
  /** Where they are renewed; null until somebody wants to keep them. */
  round: Round | null
  /** Settles when a renewal under way is over; never rejects. */
  renewal: Promise<void> | null
  /** Until when a question without an answer may still take the places, by the clock of this process. */
  unsureUntil: number
}

/** Calls whose places are renewed at the same moments. */
interface Round {
  readonly holds: Set<Hold>
  cancelTimer: (() => void) | null
  isUnderWay: boolean
}

/** A release that had no answer. */
interface Open {
  readonly hold: Hold
  /** When the places have come free by themselves. */
  readonly giveUpAt: number
}

/** A place is renewed three times within the time for which it is taken, so that two renewals may fail. */
const RENEWALS = 3
const RESEND_EVERY_MS = 1_000
const ANSWER_MS = 2_000
/** How many releases wait to be sent again. The places of further ones come free by themselves. */
const MAX_OPEN = 10_000
/** A round of releases ends after so many failures: most likely, the limiter is still away. */
const MAX_FAILURES = 3

/**
 * Keeps the places of calls under way, and gives them back. A question to the limiter that has no answer may still reach it until its
 * deadline: only after that is a release certain to be the last word.
 */
export class HeldPlaces {
  /** By the time between two renewals. */
  private readonly rounds = new Map<number, Round>()
  private readonly open = new Set<Open>()
  private cancelTimer: (() => void) | null = null
  private resending: Promise<boolean> | null = null
  private isClosed = false
  private readonly unsureMs: number

  constructor(
    private readonly limiter: RateLimiter,
    private readonly clock: Clock,
    private readonly guard: DependencyRunner,
  ) {
    this.unsureMs = Math.max(ANSWER_MS, 2 * (limiter.timeoutMs ?? 0))
  }

  /** @throws LatchkeyError `unsupported` when the limiter could not give places back. */
  check(): void {
    if (this.limiter.release && this.limiter.renew) return
    throw new LatchkeyError('unsupported', 'limits with "concurrent" need a limiter with "release"')
  }

  /** Places that a call is about to take. */
  prepare(request: PlacesRequest): Hold {
    return { request, isLocal: false, isReleased: false, round: null, renewal: null, unsureUntil: 0 }
  }

  /** Notes that the limiter may still take places, or has taken them unnoticed. */
  doubt(hold: Hold): void {
    hold.unsureUntil = this.clock.now() + this.unsureMs
  }

  /** Renews the places until they are released. */
  keep(hold: Hold): void {
    if (hold.isReleased || this.isClosed) return
    const everyMs = renewalMs(hold)
    const round = this.rounds.get(everyMs) ?? { holds: new Set(), cancelTimer: null, isUnderWay: false }
    this.rounds.set(everyMs, round)
    // Other keys on the same limiter may have kept them so far.
    hold.round?.holds.delete(hold)
    hold.round = round
    round.holds.add(hold)
    this.startRound(everyMs, round)
  }

  /** Gives the places back; false if they were given back before. Without an answer, it is sent again. */
  async release(hold: Hold): Promise<boolean> {
    if (hold.isReleased) return false
    hold.isReleased = true
    hold.round?.holds.delete(hold)
    await hold.renewal
    const isSent = await this.send(hold)
    const isLast = this.clock.now() >= hold.unsureUntil
    if (!isSent || !isLast) this.sendLater(hold)
    return true
  }

  /** Sends the releases that had no answer; whether all of them have one now. */
  flush(): Promise<boolean> {
    this.resending ??= this.resend().finally(() => {
      this.resending = null
    })
    return this.resending
  }

  /** The same once more, and stops all timers. What is still held comes free when it is released, or by itself. */
  async close(): Promise<void> {
    this.isClosed = true
    this.cancelTimer?.()
    for (const round of this.rounds.values()) round.cancelTimer?.()
    this.rounds.clear()
    await this.flush()
    this.open.clear()
  }

  private startRound(everyMs: number, round: Round): void {
    if (round.cancelTimer || this.isClosed) return
    const run = () => {
      round.cancelTimer = null
      if (round.holds.size === 0) {
        this.rounds.delete(everyMs)
        return
      }
      this.startRound(everyMs, round)
      if (!round.isUnderWay) void this.renew(round)
    }
    round.cancelTimer = this.clock.setTimer(run, everyMs, { background: true })
  }

  private async renew(round: Round): Promise<void> {
    const holds = [...round.holds]
    round.isUnderWay = true
    const renewal = this.askToRenew(holds)
    for (const hold of holds) {
      hold.isLocal = false
      hold.renewal = renewal
    }
    await renewal
    for (const hold of holds) hold.renewal = null
    round.isUnderWay = false
  }

  private async askToRenew(holds: readonly Hold[]): Promise<void> {
    try {
      const requests = holds.map(({ request }) => request)
      const lost = await this.inTime(this.limiter.renew?.(requests) ?? 0)
      if (lost === 0) return
      const what = `${lost} ${lost === 1 ? 'call' : 'calls'} under way had lost a place and took it again`
      this.guard.toError(
        'rate_limiter',
        new Error(`${what}: more calls than a limit allows may be under way`),
      )
    } catch (error) {
      for (const hold of holds) this.doubt(hold)
      this.guard.toError('rate_limiter', error)
    }
  }

  private async send({ request, isLocal }: Hold): Promise<boolean> {
    try {
      await this.inTime(this.limiter.release?.(isLocal ? { ...request, isLocal } : request))
      return true
    } catch (error) {
      // While the limiter is away, one event is enough.
      if (this.open.size === 0) this.guard.toError('rate_limiter', error)
      return false
    }
  }

  private sendLater(hold: Hold): void {
    if (this.isClosed || this.open.size >= MAX_OPEN) return
    const heldMs = Math.max(...hold.request.limits.map(({ maxHeldMs }) => maxHeldMs))
    this.open.add({ hold, giveUpAt: this.clock.now() + heldMs })
    this.startTimer()
  }

  private startTimer(): void {
    if (this.cancelTimer || this.isClosed || this.open.size === 0) return
    const run = () => {
      this.cancelTimer = null
      void this.flush().then(() => this.startTimer())
    }
    this.cancelTimer = this.clock.setTimer(run, RESEND_EVERY_MS, { background: true })
  }

  private async resend(): Promise<boolean> {
    let failures = 0
    for (const open of [...this.open]) {
      const { hold, giveUpAt } = open
      if (this.clock.now() < hold.unsureUntil) continue
      if (await this.send(hold)) this.open.delete(open)
      else {
        failures += 1
        if (this.clock.now() >= giveUpAt) this.open.delete(open)
        if (failures >= MAX_FAILURES) break
      }
    }
    return failures === 0
  }

  private inTime<T>(answer: Awaitable<T>): Awaitable<T> {
    // What is there already, or has a deadline of its own, needs no timer.
    if (!isPromiseLike(answer) || this.limiter.timeoutMs !== undefined) return answer
    return inTime(this.clock, ANSWER_MS, () => answer)
  }
}

function renewalMs({ request }: Hold): number {
  return Math.floor(Math.min(...request.limits.map(({ maxHeldMs }) => maxHeldMs)) / RENEWALS)
}
