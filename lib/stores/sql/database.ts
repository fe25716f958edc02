import { DatabaseFailure, toStoreError } from './database-errors.ts'
import type { Dialect } from './dialect.ts'
import type { Plan } from './plan.ts'

/**
 * A database as the store uses it. Each method takes a function that creates the plan, because a plan runs again if the database
 * rolled it back, for example after a deadlock or a lock timeout.
 */
export interface Database {
  readonly dialect: Dialect
  /**
   * Runs statements that only read, without a transaction. If the application returned the connection with an open transaction, they
   * could see old data: the call fails, and the connection ends.
   */
  read<T>(plan: () => Plan<T>): Promise<T>
  /** Runs independent writes that may be lost. A connection with an open transaction ends here too. */
  write<T>(plan: () => Plan<T>): Promise<T>
  /** Runs a plan in one transaction, all or nothing. */
  transact<T>(plan: () => Plan<T>): Promise<T>
  /** Runs a plan that changes the schema. Only one process at a time does so for a table. */
  alter<T>(table: string, plan: () => Plan<T>): Promise<T>
  /** Closes what the store opened itself. */
  close(): Promise<void>
}

const MAX_WAIT_MS = 5_000
const MAX_PAUSE_MS = 400

/**
 * Tries again what the database rolled back, for about 5 seconds. The final error is a `LatchkeyError`, or an `Error` whose message
 * repeats no value of a row.
 */
export async function attempt<T>({ title }: Dialect, work: () => Promise<T>): Promise<T> {
  const giveUpAt = performance.now() + MAX_WAIT_MS
  for (let count = 1; ; count += 1) {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof DatabaseFailure)) throw error
      if (error.kind !== 'rolled_back' || performance.now() > giveUpAt) throw toStoreError(error, title)
    }
    await pause(Math.min(2 ** count, MAX_PAUSE_MS))
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
