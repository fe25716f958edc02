import { checkArray, isObject } from '../../internal/options.ts'
import type { Clock } from '../clock.ts'
import type { DependencyRunner } from '../faults.ts'
import type { KeyStore, QuotaSwapResult } from '../keys/key-store.ts'
import { isQuotaRecord } from '../keys/record.ts'
import type { PendingSwap, QuotaAccount } from './quota-account.ts'

/** A try is lost to a faster process. With up to this many at once, every one of them gets through. */
const MAX_TRIES = 100

/** Exchanges units between accounts and the store, one exchange at a time for each account. */
export class QuotaExchanges {
  private readonly underWay = new Set<QuotaAccount>()

  /** @param settled is called after every exchange: what the account holds may have changed */
  constructor(
    private readonly store: KeyStore,
    private readonly blockSize: number,
    private readonly clock: Clock,
    private readonly guard: DependencyRunner,
    private readonly settled: (account: QuotaAccount, hasFailed: boolean) => void,
  ) {}

  /**
   * Exchanges units for those who wait, or to give back what is held. Resolves when that is done, or has failed and the
   * waiting calls have the error.
   */
  exchange(account: QuotaAccount, isReturn = false): Promise<void> {
    if (isReturn && account.returning) return account.returning
    const before = account.running
    const run = () => this.exchangeAll(account, isReturn)
    const running = this.occupy(account, before ? before.then(run) : run())
    if (!isReturn) return running
    account.returning = running.then(() => {
      account.returning = null
    })
    return account.returning
  }

  /** Keeps an account for `work` alone, and goes on with those who came meanwhile. */
  private occupy(account: QuotaAccount, work: Promise<unknown>): Promise<void> {
    const end = (hasFailed: boolean) => {
      if (account.running !== running) return
      account.running = null
      this.underWay.delete(account)
      this.settled(account, hasFailed)
      if (account.waiting.length > 0) void this.exchange(account)
    }
    const running: Promise<void> = work.then(
      () => end(false),
      (error) => {
        for (const call of account.waiting.splice(0)) call.fail(error)
        end(true)
      },
    )
    account.running = running
    this.underWay.add(account)
    return running
  }

  private async exchangeAll(account: QuotaAccount, isReturn: boolean): Promise<void> {
    // Calls that come together share an exchange.
    await null
    if (account.pending) await this.sendSwap(account, account.pending)
    let isReturning = isReturn
    for (let tries = 0; tries < MAX_TRIES; tries += 1) {
      const now = this.clock.now()
      account.serve(now, false)
      if (account.waiting.length === 0 && !isReturning && !account.isNearEnd(now)) return
      const swap = account.propose(new Date(now), this.blockSize, isReturning)
      if (!swap && !isReturning) {
        account.serve(now, true)
        account.refuseWaiting(now)
        return
      }
      const outcome = swap ? await this.sendSwap(account, swap) : 'swapped'
      if (outcome === 'gone') return
      if (outcome === 'conflict') continue
      account.serve(this.clock.now(), true)
      if (account.waiting.length === 0) return
      isReturning = false
    }
    throw this.guard.toError('store', new Error('other processes keep changing the quota'))
  }

  /** Sends a swap, for the first time or once more, and takes note of its outcome. */
  private async sendSwap(account: QuotaAccount, swap: PendingSwap): Promise<'swapped' | 'conflict' | 'gone'> {
    const asking = [...account.waiting]
    const [result] = await this.send([swap])
    // The store was looked at after these had come.
    for (const call of asking) call.hasLooked = true
    const outcome = account.conclude(swap, result as QuotaSwapResult, this.clock.now())
    if (outcome === 'gone') {
      for (const call of account.waiting.splice(0)) call.answer({ outcome: 'gone' })
    }
    return outcome
  }

  /** Gives back in one store call, if possible; returns the accounts whose outcome is unknown. */
  async giveBackTogether(giving: readonly QuotaAccount[]): Promise<readonly QuotaAccount[]> {
    const atRest = this.store.swapQuotas ? giving.filter(({ running, pending }) => !running && !pending) : []
    if (atRest.length < 2) return []
    const swaps = atRest.flatMap(
      (account) => account.propose(new Date(this.clock.now()), this.blockSize, true) ?? [],
    )
    if (swaps.length === 0) return []
    const work = this.send(swaps).then((results) => {
      const now = this.clock.now()
      for (const [i, swap] of swaps.entries()) swap.account.conclude(swap, results[i] as QuotaSwapResult, now)
    })
    const done = swaps.map(({ account }) => this.occupy(account, work))
    try {
      await work
      return []
    } catch {
      return swaps.map(({ account }) => account)
    } finally {
      await Promise.all(done)
    }
  }

  /** Rejects if the outcome is not known; a swap that the store makes after all is noted then. */
  private async send(swaps: readonly PendingSwap[]): Promise<readonly QuotaSwapResult[]> {
    const sentAt = this.clock.now()
    for (const swap of swaps) {
      swap.sentAt = sentAt
      swap.copies += 1
    }
    const work = swapAll(this.store, swaps)
    try {
      return await this.guard.run('store', () => work, [], 'swapQuota')
    } catch (error) {
      // It may answer after all.
      work.then(
        (results) => this.concludeLate(swaps, results),
        () => {},
      )
      throw error
    }
  }

  /** A late refusal says nothing: the swap may have been made by then, and forgotten. */
  private concludeLate(swaps: readonly PendingSwap[], results: readonly QuotaSwapResult[]): void {
    for (const [i, swap] of swaps.entries()) {
      const { account } = swap
      const result = results[i] as QuotaSwapResult
      if (account.pending !== swap || !result.swapped) continue
      account.conclude(swap, result, this.clock.now())
      this.settled(account, false)
    }
  }

  /** Resolves once what is being exchanged now is held, and so can be given back. */
  async allSettled(): Promise<void> {
    await Promise.all(Array.from(this.underWay, ({ running }) => running))
  }
}

/** @throws TypeError when a store returns an invalid result. */
async function swapAll(store: KeyStore, swaps: readonly PendingSwap[]): Promise<readonly QuotaSwapResult[]> {
  const [first, second] = swaps
  const results =
    first && !second
      ? [await store.swapQuota?.(first.lineageId, first.expected, first.next)]
      : await store.swapQuotas?.(
          swaps.map(({ lineageId, expected, next }) => ({ lineageId, expected, next })),
        )
  return checkResults(results, swaps.length)
}

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
