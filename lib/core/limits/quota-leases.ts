import { LRUCache } from 'lru-cache'
import type { Clock } from '../clock.ts'
import type { DependencyRunner } from '../faults.ts'
import type { KeyStore } from '../keys/key-store.ts'
import type { CachedKey } from '../verify/record-cache.ts'
import type { QuotaRecord } from './quota.ts'
import {
  QuotaAccount,
  type QuotaAnswer,
  type QuotaForesight,
  type QuotaLease,
  quotaState,
} from './quota-account.ts'
import { QuotaExchanges } from './quota-exchanges.ts'
import type { LimitState } from './rate-limit.ts'

export interface QuotaLeaseOptions {
  /** The most units that a lease takes beyond what waiting calls cost. */
  readonly blockSize: number
  /** How long this process holds units, in milliseconds. */
  readonly leaseMs: number
  /** How many lineages are known at most. Units of those that are dropped go back to the store. */
  readonly maxEntries: number
}

/** Leases that end within this part of a lease's life go back together. */
const TOGETHER_WITHIN = 0.2
const BATCH = 100
/** How often a process that ends tries to give back what it holds. */
const CLOSING_TRIES = 3

/**
 * Leases units of quotas from the store and spends them in memory. A quota lives in the store and nowhere else. Units
 * move by compare-and-swap, so that whatever is lost, late or sent twice, no unit comes from nothing.
 *
 * - Calls that come together share one swap. A lease takes what they cost, and as much beyond as its use suggests.
 * - A lease ends after `leaseMs`. What is left of it goes back with the next exchange, or on a timer.
 * - A swap with an unknown outcome is sent again unchanged. If the store then refuses it, it may still have been made
 *   before: the units it offered and the units it asked for are given up.
 * - No call is refused before the store was read after the call came, unless the quota has not changed for `leaseMs`:
 *   then no live process holds spare units.
 */
export class QuotaLeases {
  private readonly leaseMs: number
  private readonly accounts: LRUCache<string, QuotaAccount>
  private readonly exchanges: QuotaExchanges
  /** Those with a `dueAt`, as a rule the earliest first. */
  private readonly holding = new Set<QuotaAccount>()
  private cancelTimer: (() => void) | null = null
  private isClosed = false

  constructor(
    store: KeyStore,
    { blockSize, leaseMs, maxEntries }: QuotaLeaseOptions,
    private readonly clock: Clock,
    guard: DependencyRunner,
  ) {
    this.leaseMs = leaseMs
    this.accounts = new LRUCache({
      max: maxEntries,
      dispose: (account, _lineageId, reason) => {
        if (reason === 'evict' && account.dueAt !== null) void this.giveBackAll([account])
      },
    })
    this.exchanges = new QuotaExchanges(store, blockSize, clock, guard, (account, hasFailed) =>
      this.watch(account, hasFailed),
    )
  }

  /** Takes units from memory; null if `take` is needed. */
  takeNow(cached: CachedKey, cost: number): QuotaLease | null {
    const account = this.accounts.get(cached.apiKey.lineageId)
    if (!account) return null
    if (account.seen !== cached.quota) observe(account, cached)
    const now = this.clock.now()
    const lease = account.takeNow(cost, now)
    if (lease && !account.running && account.isNearEnd(now)) void this.exchanges.exchange(account)
    return lease
  }

  /**
   * Takes units, from the store if need be.
   *
   * @param isFresh whether the record was read after the call came
   * @throws LatchkeyError `unavailable` where the store fails.
   */
  take(cached: CachedKey, cost: number, isFresh: boolean): Promise<QuotaAnswer> {
    const account = this.accountOf(cached.apiKey.lineageId, cached.quota as QuotaRecord, cached.readAt)
    observe(account, cached)
    return new Promise((answer, fail) => {
      account.waiting.push({ cost, hasLooked: isFresh, answer, fail })
      if (!account.running) void this.exchanges.exchange(account)
    })
  }

  /** What would become of a call that takes units of a record that was just read. It takes none. */
  foresee(cached: CachedKey, cost: number): QuotaForesight {
    const { lineageId } = cached.apiKey
    const quota = cached.quota as QuotaRecord
    let account = this.accounts.peek(lineageId)
    if (account) observe(account, cached)
    else account = new QuotaAccount(lineageId, quota, cached.readAt, this.leaseMs)
    return account.foresee(cost, this.clock.now())
  }

  private accountOf(lineageId: string, quota: QuotaRecord, readAt: number): QuotaAccount {
    let account = this.accounts.get(lineageId)
    if (!account) {
      account = new QuotaAccount(lineageId, quota, readAt, this.leaseMs)
      this.accounts.set(lineageId, account)
    }
    return account
  }

  /** Returns taken units that were not spent. Units of an ended epoch are worth nothing: false. */
  putBack(lease: QuotaLease, cost: number): boolean {
    const { account, epoch } = lease
    const current = this.accounts.get(account.lineageId) ?? account
    if (current === account) this.accounts.set(account.lineageId, account)
    const isBack = current.putBack(epoch, cost, this.clock.now())
    if (isBack && current.dueAt === null) this.watch(current)
    return isBack
  }

  /** The same, unless a refill that is due would make them worthless. */
  putBackIfKept(lease: QuotaLease, cost: number): boolean {
    const current = this.accounts.get(lease.account.lineageId) ?? lease.account
    return !current.wouldLose(cost, this.clock.now()) && this.putBack(lease, cost)
  }

  /** The state of a record's quota, as far as this process knows. */
  stateOf(cached: CachedKey, exceeded: boolean): LimitState {
    const quota = cached.quota as QuotaRecord
    const account = this.accounts.peek(cached.apiKey.lineageId)
    const now = this.clock.now()
    if (!account) {
      return quotaState(quota, quota.remaining, quota.nextRefillAt?.getTime() ?? Infinity, now, exceeded)
    }
    if (account.seen !== quota) observe(account, cached)
    return account.state(now, exceeded)
  }

  /** The units of this quota that this process holds. */
  heldOf(lineageId: string, { epoch }: QuotaRecord): number {
    const lease = this.accounts.peek(lineageId)?.lease
    return lease?.epoch === epoch ? lease.units : 0
  }

  /** Takes note of a quota that was just set: units of the one before are worth nothing from now on. */
  wasSet(lineageId: string, quota: QuotaRecord): void {
    this.accounts.peek(lineageId)?.learn(quota, this.clock.now())
  }

  /** Gives back what this process holds, of all lineages; false if that failed, which is reported, and tried again later. */
  async giveBack(): Promise<boolean> {
    await this.exchanges.allSettled()
    const giving = [...this.holding]
    await this.giveBackAll(giving)
    return giving.every(({ pending }) => pending === null)
  }

  /** The same, and stops the timer. */
  async close(): Promise<void> {
    this.isClosed = true
    this.cancelTimer?.()
    this.cancelTimer = null
    await this.exchanges.allSettled()
    // A fault that passes must not cost what nobody will give back later.
    for (let tries = 0; tries < CLOSING_TRIES && this.holding.size > 0; tries += 1) {
      await this.giveBackAll([...this.holding])
    }
  }

  /** Has what an account holds go back when it is due. */
  private watch(account: QuotaAccount, hasFailed = false): void {
    this.holding.delete(account)
    account.dueAt = null
    const isForgotten = this.accounts.peek(account.lineageId) !== account
    if ((account.lease.units === 0 && !account.pending) || (hasFailed && isForgotten)) return
    const again = this.clock.now() + this.leaseMs
    account.dueAt = hasFailed || account.lease.units === 0 ? again : Math.min(account.endsAt, again)
    this.holding.add(account)
    this.startTimer()
  }

  private startTimer(): void {
    const [first] = this.holding
    if (this.cancelTimer || this.isClosed || !first) return
    const delayMs = Math.max(1, (first.dueAt ?? 0) - this.clock.now())
    this.cancelTimer = this.clock.setTimer(() => this.onTimer(), delayMs, { background: true })
  }

  private onTimer(): void {
    this.cancelTimer = null
    const now = this.clock.now()
    const until = now + this.leaseMs * TOGETHER_WITHIN
    const due = [...this.holding].filter(({ dueAt }) => dueAt !== null && dueAt <= until)
    // They have their turn now: a store that hangs is not asked about them again and again.
    for (const account of due) {
      this.holding.delete(account)
      account.dueAt = now + this.leaseMs
      this.holding.add(account)
    }
    void this.giveBackAll(due).then(() => this.startTimer())
  }

  private async giveBackAll(giving: readonly QuotaAccount[]): Promise<void> {
    for (let from = 0; from < giving.length; from += BATCH) {
      const some = giving.slice(from, from + BATCH)
      const failed = await this.exchanges.giveBackTogether(some)
      // Those that could not go with the others, and those with whom somebody else was faster.
      const rest = some.filter((account) => account.dueAt !== null && !failed.includes(account))
      await Promise.all(rest.map((account) => this.exchanges.exchange(account, true)))
    }
  }
}

function observe(account: QuotaAccount, { quota, readAt }: CachedKey): void {
  account.seen = quota
  if (quota) account.learn(quota, readAt)
}
