import type { QuotaSwap, QuotaSwapResult } from '../keys/key-store.ts'
import { decideExchange, isLaterQuota, nextRefillMs, type QuotaExchange, type QuotaRecord } from './quota.ts'
import type { LimitState } from './rate-limit.ts'

/** Units of one epoch of a lineage's quota that this process has leased and not spent. */
export interface QuotaLease {
  readonly account: QuotaAccount
  readonly epoch: number
  units: number
}

/** A call that waits for units. */
export interface WaitingCall {
  readonly cost: number
  /** Whether the store was read since the call came. */
  hasLooked: boolean
  answer(answer: QuotaAnswer): void
  fail(error: unknown): void
}

export type QuotaAnswer =
  /** The units are taken from this lease. */
  | { readonly outcome: 'taken'; readonly lease: QuotaLease }
  /** Too few units are left. `retryAfterMs` is null if there never will be more. */
  | { readonly outcome: 'short'; readonly retryAfterMs: number | null }
  /** Too few known units, and the store was not read since the call came: try again with a fresh record. */
  | { readonly outcome: 'unknown' }
  /** The store has no such quota: the record is out of date. */
  | { readonly outcome: 'gone' }

/** What would become of a call that needs units. */
export interface QuotaForesight {
  readonly suffices: boolean
  /** Milliseconds until they may suffice; 0 if they do, null if they never will. */
  readonly retryAfterMs: number | null
}

/** A swap that was sent, and whose outcome is not known yet. */
export interface PendingSwap extends QuotaSwap {
  readonly account: QuotaAccount
  readonly exchange: QuotaExchange
  /** The lease that it gives units back of. */
  readonly lease: QuotaLease
  /** What had been spent of that lease. */
  readonly spent: number
  sentAt: number
  /** How often it was sent. What was sent once and refused was certainly not made. */
  copies: number
}

/** From this part of its life on a lease that is in use is renewed. */
const RENEW_AT = 0.75

/**
 * What this process knows of the quota of one lineage, and the units that it holds of it. It does no I/O: every method is one
 * step that is made at once.
 */
export class QuotaAccount {
  readonly lineageId: string
  lease: QuotaLease
  readonly waiting: WaitingCall[] = []
  pending: PendingSwap | null = null
  /** The exchange that is under way. */
  running: Promise<void> | null = null
  /** The return of units that is under way, or waits for its turn. */
  returning: Promise<void> | null = null
  /** When what is held has to go back, or what is pending is sent again; null where there is neither. */
  dueAt: number | null = null
  /** The quota that was looked at last; the same object needs no second look. */
  seen: QuotaRecord | null = null
  readonly #leaseMs: number
  /** The latest state of the store that was seen. */
  #known: QuotaRecord
  /** When the call to the store began that saw this state first, and when the latest one began that still did. */
  #knownSince: number
  #confirmedAt: number
  /** A call to the store that begins after this sees this state or a later one, unless the store was set back. */
  #settledAt: number
  /** When the lease began. It ages from when it was asked for. */
  #leasedAt = -Infinity
  #refillAtMs: number
  /** Units spent since the lease began. */
  #spent = 0

  constructor(lineageId: string, quota: QuotaRecord, readAt: number, leaseMs: number) {
    this.lineageId = lineageId
    this.lease = { account: this, epoch: quota.epoch, units: 0 }
    this.#leaseMs = leaseMs
    this.#known = quota
    this.#knownSince = readAt
    this.#confirmedAt = readAt
    this.#settledAt = readAt
    this.#refillAtMs = quota.nextRefillAt?.getTime() ?? Infinity
  }

  get known(): QuotaRecord {
    return this.#known
  }

  /** Takes units from memory; null where there are too few, or the lease has ended. */
  takeNow(cost: number, now: number): QuotaLease | null {
    if (this.lease.units < cost || this.waiting.length > 0 || !this.#isUsable(now)) return null
    return this.#take(cost)
  }

  #take(cost: number): QuotaLease {
    this.lease.units -= cost
    this.#spent += cost
    return this.lease
  }

  #isUsable(now: number): boolean {
    const age = now - this.#leasedAt
    return age >= 0 && age < this.#leaseMs && now < this.#refillAtMs
  }

  /** When the lease ends. */
  get endsAt(): number {
    return this.#leasedAt + this.#leaseMs
  }

  /** Whether the lease nears its end, and is to be renewed if it is in use. */
  isNearEnd(now: number): boolean {
    return now - this.#leasedAt >= this.#leaseMs * RENEW_AT
  }

  /** Returns units to the lease they were taken from; false where that has ended. */
  putBack(epoch: number, cost: number, now: number): boolean {
    if (this.lease.epoch !== epoch) return false
    if (this.lease.units === 0 && !this.#isUsable(now)) this.#leasedAt = now
    this.lease.units += cost
    this.#spent = Math.max(0, this.#spent - cost)
    return true
  }

  /** Whether units that come back now would be lost: a refill is due, and begins a new epoch as far as is known. */
  wouldLose(cost: number, now: number): boolean {
    const { refill, remaining } = this.#known
    return refill !== null && now >= this.#refillAtMs && remaining + this.lease.units + cost < refill.amount
  }

  /** Records what a call to the store that began at `readAt` found. */
  learn(quota: QuotaRecord, readAt: number): void {
    if (isLaterQuota(quota, this.#known)) this.#adopt(quota, readAt)
    else if (!isLaterQuota(this.#known, quota)) this.#confirmedAt = Math.max(this.#confirmedAt, readAt)
    else if (this.#wasSetBack(readAt)) this.#adopt(quota, readAt)
  }

  /**
   * Whether an earlier state that was read now is what the store holds: it was restored from a backup. Where units are held or a
   * swap is open, the next swap finds that out, and nothing is lost by a late read.
   */
  #wasSetBack(readAt: number): boolean {
    return readAt > this.#settledAt && this.lease.units === 0 && this.pending === null
  }

  #adopt(quota: QuotaRecord, readAt: number): void {
    if (quota.epoch !== this.lease.epoch) {
      this.lease = { account: this, epoch: quota.epoch, units: 0 }
      this.#spent = 0
    }
    this.#known = quota
    this.#knownSince = readAt
    this.#confirmedAt = readAt
    this.#settledAt = Math.max(this.#settledAt, readAt)
    this.#refillAtMs = quota.nextRefillAt?.getTime() ?? Infinity
  }

  /**
   * Whether no live process holds units: otherwise a lease would have come back since this state was first seen. True
   * only while the state was read recently.
   */
  isIdle(now: number): boolean {
    const seenForMs = this.#confirmedAt - this.#knownSince
    return seenForMs >= this.#leaseMs && now - this.#confirmedAt < this.#leaseMs
  }

  /** Answers waiting calls in order, as far as there are units. */
  serve(now: number, isExchanged: boolean): void {
    if (!isExchanged && !this.#isUsable(now)) return
    const rest = this.waiting.filter((call) => {
      if (this.lease.units < call.cost) return true
      call.answer({ outcome: 'taken', lease: this.#take(call.cost) })
      return false
    })
    this.waiting.splice(0, this.waiting.length, ...rest)
  }

  /** Answers all calls that wait: there are too few units for them. */
  refuseWaiting(now: number): void {
    // An exchange since the call came may have brought news: what was known before does not count.
    const isIdle = this.isIdle(now)
    for (const { cost, hasLooked, answer } of this.waiting.splice(0)) {
      if (hasLooked || isIdle) answer({ outcome: 'short', retryAfterMs: this.#retryAfterMs(cost, now) })
      else answer({ outcome: 'unknown' })
    }
  }

  #retryAfterMs(cost: number, now: number): number | null {
    const { refill, remaining, allotted } = this.#known
    const refillMs = refill && cost <= refill.amount ? Math.max(1, this.#refillAtMs - now) : null
    // Others may hold what was allotted, for as long as a lease lasts.
    const maySuffice = cost <= remaining + allotted && !this.isIdle(now)
    return maySuffice ? Math.min(this.#leaseMs, refillMs ?? Infinity) : refillMs
  }

  /** Whether a call that came now would get so many units, as far as is known. It takes none. */
  foresee(cost: number, now: number): QuotaForesight {
    const wish = { epoch: this.lease.epoch, held: this.lease.units, costs: [cost], maxExtra: 0 }
    const { granted } = decideExchange(this.#known, wish, new Date(now))
    if (granted >= cost) return { suffices: true, retryAfterMs: 0 }
    return { suffices: false, retryAfterMs: this.#retryAfterMs(cost, now) }
  }

  /** The exchange that is to be made for those who wait, or to give units back; null where there is nothing to exchange. */
  propose(at: Date, blockSize: number, isReturn: boolean): PendingSwap | null {
    // Where the last lease has ended before this call, what is leased ahead would go back unused as well.
    const isInUse = at.getTime() - this.#leasedAt < this.#leaseMs
    const wish = {
      epoch: this.lease.epoch,
      held: this.lease.units,
      costs: isReturn ? [] : this.waiting.map(({ cost }) => cost),
      maxExtra: isReturn || !isInUse ? 0 : Math.min(blockSize, 2 * this.#spent),
    }
    const exchange = decideExchange(this.#known, wish, at)
    if (exchange.next === this.#known) {
      this.#refillAtMs = nextRefillMs(this.#known, at) ?? Infinity
      return null
    }
    this.lease.units -= exchange.returned
    this.pending = {
      account: this,
      lineageId: this.lineageId,
      expected: this.#known,
      next: exchange.next,
      exchange,
      lease: this.lease,
      spent: this.#spent,
      sentAt: 0,
      copies: 0,
    }
    return this.pending
  }

  /** Takes note of what has become of a swap, as was answered at `now`. */
  conclude(swap: PendingSwap, result: QuotaSwapResult, now: number): 'swapped' | 'conflict' | 'gone' {
    this.#settledAt = Math.max(this.#settledAt, now)
    // An answer that came late may have said it already.
    const isOpen = this.pending === swap
    if (isOpen) this.pending = null
    if (result.swapped) {
      this.learn(swap.next, swap.sentAt)
      if (isOpen && this.lease.epoch === swap.next.epoch) {
        this.lease.units += swap.exchange.granted - swap.exchange.kept
        this.#leasedAt = swap.sentAt
        this.#spent -= Math.min(swap.spent, this.#spent)
      }
      return 'swapped'
    }
    // Where an earlier copy may have been made, nobody knows: what it offered and asked for is given up.
    if (isOpen && swap.copies === 1) swap.lease.units += swap.exchange.returned
    if (result.current === null) {
      this.lease.units = 0
      return 'gone'
    }
    // What the store answers goes, even where it was set back to an earlier state. But its answer may have been under way for long, and
    // a later read have found a later state: the next swap shows which of them holds.
    const isOvertaken = this.#knownSince > swap.sentAt && isLaterQuota(this.#known, result.current)
    if (!isOvertaken) this.#adopt(result.current, swap.sentAt)
    return 'conflict'
  }

  /** How the quota stands. */
  state(now: number, exceeded: boolean): LimitState {
    const { remaining } = this.#known
    return quotaState(this.#known, remaining + this.lease.units, this.#refillAtMs, now, exceeded)
  }
}

/** The state of a quota with `remaining` units left. */
export function quotaState(
  { refill }: QuotaRecord,
  remaining: number,
  refillAtMs: number,
  now: number,
  exceeded: boolean,
): LimitState {
  return {
    type: 'quota',
    name: 'quota',
    limit: refill?.amount ?? null,
    remaining,
    windowMs: null,
    resetMs: refillAtMs === Infinity ? null : Math.max(1, refillAtMs - now),
    exceeded,
  }
}
