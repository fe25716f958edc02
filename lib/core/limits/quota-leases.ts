import { LRUCache } from 'lru-cache'
import { checkArray, isObject } from '../../internal/options.ts'
import type { Clock } from '../clock.ts'
import type { DependencyRunner } from '../faults.ts'
import type { KeyStore, QuotaSwapResult } from '../keys/key-store.ts'
import { isQuotaRecord } from '../keys/record.ts'
import type { CachedKey } from '../verify/record-cache.ts'
import type { QuotaRecord } from './quota.ts'
import {
  type PendingSwap,
  QuotaAccount,
  type QuotaAnswer,
  type QuotaLease,
  quotaState,
} from './quota-account.ts'
import type { LimitState } from './rate-limit.ts'

export interface QuotaLeases {
  /** Takes units from memory; null if `take` is needed. */
  takeNow(cached: CachedKey, cost: number): QuotaLease | null
  /**
   * Takes units, from the store if need be.
   *
   * @param isFresh whether the record was read after the call came
   * @throws LatchkeyError `unavailable` where the store fails.
   */
  take(cached: CachedKey, cost: number, isFresh: boolean): Promise<QuotaAnswer>
  /** Returns taken units that were not spent. Units of an ended epoch are worth nothing. */
  putBack(lease: QuotaLease, cost: number): void
  /** The state of a record's quota, as far as this process knows. */
  stateOf(cached: CachedKey, exceeded: boolean): LimitState
  /** The units of this quota that this process holds. */
  heldOf(lineageId: string, quota: QuotaRecord): number
  /** Takes note of a quota that was just set: units of the one before are worth nothing from now on. */
  wasSet(lineageId: string, quota: QuotaRecord): void
  /** Gives back what this process holds, of all lineages; false if that failed, which is reported, and tried again later. */
  giveBack(): Promise<boolean>
  /** The same, and stops the timer. */
  close(): Promise<void>
}

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
/** A try is lost to a faster process. With up to this many at once, every one of them gets through. */
const MAX_TRIES = 100
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
export function createQuotaLeases(
  store: KeyStore,
  { blockSize, leaseMs, maxEntries }: QuotaLeaseOptions,
  clock: Clock,
  guard: DependencyRunner,
): QuotaLeases {
  const accounts = new LRUCache<string, QuotaAccount>({
    max: maxEntries,
    dispose(account, _lineageId, reason) {
      if (reason === 'evict' && account.dueAt !== null) void giveBackAll([account])
    },
  })
  /** Those with a `dueAt`, as a rule the earliest first. */
  const holding = new Set<QuotaAccount>()
  const exchanging = new Set<QuotaAccount>()
  let cancelTimer: (() => void) | null = null
  let isClosed = false

  function takeNow(cached: CachedKey, cost: number): QuotaLease | null {
    const account = accounts.get(cached.apiKey.lineageId)
    if (!account) return null
    if (account.seen !== cached.quota) observe(account, cached)
    const now = clock.now()
    const lease = account.takeNow(cost, now)
    if (lease && !account.running && account.isNearEnd(now)) void exchange(account)
    return lease
  }

  function take(cached: CachedKey, cost: number, isFresh: boolean): Promise<QuotaAnswer> {
    const account = accountOf(cached.apiKey.lineageId, cached.quota as QuotaRecord, cached.readAt)
    observe(account, cached)
    return new Promise((answer, fail) => {
      const hasLooked = isFresh || account.isIdle(clock.now())
      account.waiting.push({ cost, hasLooked, answer, fail })
      if (!account.running) void exchange(account)
    })
  }

  function accountOf(lineageId: string, quota: QuotaRecord, readAt: number): QuotaAccount {
    let account = accounts.get(lineageId)
    if (!account) {
      account = new QuotaAccount(lineageId, quota, readAt, leaseMs)
      accounts.set(lineageId, account)
    }
    return account
  }

  function observe(account: QuotaAccount, { quota, readAt }: CachedKey): void {
    account.seen = quota
    if (quota) account.learn(quota, readAt)
  }

  /**
   * Exchanges units for those who wait, or to give back what is held. Resolves when that is done, or has failed and the
   * waiting calls have the error.
   */
  function exchange(account: QuotaAccount, isReturn = false): Promise<void> {
    if (isReturn && account.returning) return account.returning
    const before = account.running
    const run = () => exchangeAll(account, isReturn)
    const running = occupy(account, before ? before.then(run) : run())
    if (!isReturn) return running
    account.returning = running.then(() => {
      account.returning = null
    })
    return account.returning
  }

  /** Keeps an account for `work` alone, and goes on with those who came meanwhile. */
  function occupy(account: QuotaAccount, work: Promise<unknown>): Promise<void> {
    const end = (hasFailed: boolean) => {
      if (account.running !== running) return
      account.running = null
      exchanging.delete(account)
      watch(account, hasFailed)
      if (account.waiting.length > 0) void exchange(account)
    }
    const running: Promise<void> = work.then(
      () => end(false),
      (error) => {
        for (const call of account.waiting.splice(0)) call.fail(error)
        end(true)
      },
    )
    account.running = running
    exchanging.add(account)
    return running
  }

  async function exchangeAll(account: QuotaAccount, isReturn: boolean): Promise<void> {
    // Calls that come together share an exchange.
    await null
    if (account.pending) await sendSwap(account, account.pending)
    let isReturning = isReturn
    for (let tries = 0; tries < MAX_TRIES; tries += 1) {
      const now = clock.now()
      account.serve(now, false)
      if (account.waiting.length === 0 && !isReturning && !account.isNearEnd(now)) return
      const swap = account.propose(new Date(now), blockSize, isReturning)
      if (!swap && !isReturning) {
        account.serve(now, true)
        account.refuseWaiting(now)
        return
      }
      const outcome = swap ? await sendSwap(account, swap) : 'swapped'
      if (outcome === 'gone') return
      if (outcome === 'conflict') continue
      account.serve(clock.now(), true)
      if (account.waiting.length === 0) return
      isReturning = false
    }
    throw guard.toError('store', new Error('other processes keep changing the quota'))
  }

  /** Sends a swap, for the first time or once more, and takes note of its outcome. */
  async function sendSwap(
    account: QuotaAccount,
    swap: PendingSwap,
  ): Promise<'swapped' | 'conflict' | 'gone'> {
    const asking = [...account.waiting]
    const [result] = await send([swap])
    // The store was looked at after these had come.
    for (const call of asking) call.hasLooked = true
    const outcome = account.conclude(swap, result as QuotaSwapResult, clock.now())
    if (outcome === 'gone') {
      for (const call of account.waiting.splice(0)) call.answer({ outcome: 'gone' })
    }
    return outcome
  }

  async function send(swaps: readonly PendingSwap[]): Promise<readonly QuotaSwapResult[]> {
    const sentAt = clock.now()
    for (const swap of swaps) {
      swap.sentAt = sentAt
      swap.copies += 1
    }
    const work = (async () => checkResults(await swapAll(swaps), swaps.length))()
    try {
      return await guard.run('store', () => work)
    } catch (error) {
      // It may answer after all.
      work.then(
        (results) => concludeLate(swaps, results),
        () => {},
      )
      throw error
    }
  }

  async function swapAll(swaps: readonly PendingSwap[]): Promise<unknown> {
    const [first, second] = swaps
    if (first && !second) return [await store.swapQuota?.(first.lineageId, first.expected, first.next)]
    return store.swapQuotas?.(swaps.map(({ lineageId, expected, next }) => ({ lineageId, expected, next })))
  }

  /** A late refusal says nothing: the swap may have been made by then, and forgotten. */
  function concludeLate(swaps: readonly PendingSwap[], results: readonly QuotaSwapResult[]): void {
    for (const [i, swap] of swaps.entries()) {
      const { account } = swap
      const result = results[i] as QuotaSwapResult
      if (account.pending !== swap || !result.swapped) continue
      account.conclude(swap, result, clock.now())
      watch(account)
    }
  }

  function putBack(lease: QuotaLease, cost: number): void {
    const { account, epoch } = lease
    const current = accounts.get(account.lineageId) ?? account
    if (current === account) accounts.set(account.lineageId, account)
    if (current.putBack(epoch, cost, clock.now()) && current.dueAt === null) watch(current)
  }

  /** Has what an account holds go back when it is due. */
  function watch(account: QuotaAccount, hasFailed = false): void {
    holding.delete(account)
    account.dueAt = null
    const isForgotten = accounts.peek(account.lineageId) !== account
    if ((account.lease.units === 0 && !account.pending) || (hasFailed && isForgotten)) return
    const again = clock.now() + leaseMs
    account.dueAt = hasFailed || account.lease.units === 0 ? again : Math.min(account.endsAt, again)
    holding.add(account)
    startTimer()
  }

  function startTimer(): void {
    const [first] = holding
    if (cancelTimer || isClosed || !first) return
    const delayMs = Math.max(1, (first.dueAt ?? 0) - clock.now())
    cancelTimer = clock.setTimer(onTimer, delayMs, { background: true })
  }

  function onTimer(): void {
    cancelTimer = null
    const now = clock.now()
    const until = now + leaseMs * TOGETHER_WITHIN
    const due = [...holding].filter(({ dueAt }) => dueAt !== null && dueAt <= until)
    // They have their turn now: a store that hangs is not asked about them again and again.
    for (const account of due) {
      holding.delete(account)
      account.dueAt = now + leaseMs
      holding.add(account)
    }
    void giveBackAll(due).then(startTimer)
  }

  async function giveBackAll(giving: readonly QuotaAccount[]): Promise<void> {
    for (let from = 0; from < giving.length; from += BATCH) {
      const some = giving.slice(from, from + BATCH)
      const failed = await giveBackTogether(some)
      // Those that could not go with the others, and those with whom somebody else was faster.
      const rest = some.filter((account) => account.dueAt !== null && !failed.includes(account))
      await Promise.all(rest.map((account) => exchange(account, true)))
    }
  }

  /** Gives back in one store call, if possible; returns the accounts whose outcome is unknown. */
  async function giveBackTogether(giving: readonly QuotaAccount[]): Promise<readonly QuotaAccount[]> {
    const atRest = store.swapQuotas ? giving.filter(({ running, pending }) => !running && !pending) : []
    if (atRest.length < 2) return []
    const swaps = atRest.flatMap((account) => account.propose(new Date(clock.now()), blockSize, true) ?? [])
    if (swaps.length === 0) return []
    const work = send(swaps).then((results) => {
      const now = clock.now()
      for (const [i, swap] of swaps.entries()) swap.account.conclude(swap, results[i] as QuotaSwapResult, now)
    })
    const done = swaps.map(({ account }) => occupy(account, work))
    try {
      await work
      return []
    } catch {
      return swaps.map(({ account }) => account)
    } finally {
      await Promise.all(done)
    }
  }

  /** Resolves once what is being exchanged now is held, and so can be given back. */
  async function exchangesUnderWay(): Promise<void> {
    await Promise.all(Array.from(exchanging, ({ running }) => running))
  }

  return {
    takeNow,
    take,
    putBack,
    stateOf(cached, exceeded) {
      const quota = cached.quota as QuotaRecord
      const account = accounts.peek(cached.apiKey.lineageId)
      const now = clock.now()
      if (!account) {
        return quotaState(quota, quota.remaining, quota.nextRefillAt?.getTime() ?? Infinity, now, exceeded)
      }
      if (account.seen !== quota) observe(account, cached)
      return account.state(now, exceeded)
    },
    heldOf(lineageId, { epoch }) {
      const lease = accounts.peek(lineageId)?.lease
      return lease?.epoch === epoch ? lease.units : 0
    },
    wasSet(lineageId, quota) {
      accounts.peek(lineageId)?.learn(quota, clock.now())
    },
    async giveBack() {
      await exchangesUnderWay()
      const giving = [...holding]
      await giveBackAll(giving)
      return giving.every(({ pending }) => pending === null)
    },
    async close() {
      isClosed = true
      cancelTimer?.()
      cancelTimer = null
      await exchangesUnderWay()
      // A fault that passes must not cost what nobody will give back later.
      for (let tries = 0; tries < CLOSING_TRIES && holding.size > 0; tries += 1)
        await giveBackAll([...holding])
    },
  }
}

/** @throws TypeError when a store returns an invalid result. */
function checkResults(value: unknown, count: number): readonly QuotaSwapResult[] {
  const results = checkArray('results', value, count)
  if (results.length !== count || !results.every(isSwapResult)) {
    throw new TypeError('the store returned an invalid swap result')
  }
  return results
}

function isSwapResult(value: unknown): value is QuotaSwapResult {
  if (!isObject(value)) return false
  return (
    value.swapped === true ||
    (value.swapped === false && (value.current === null || isQuotaRecord(value.current)))
  )
}
