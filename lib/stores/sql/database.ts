import { DatabaseFailure, toStoreError } from './database-errors.ts'
import type { Dialect } from './dialect.ts'
import type { Plan } from './plan.ts'

/**
 * A database as the store uses it. Plans are handed over as functions, since what the database undid itself, for a
 * deadlock or a lock that it waited for in vain, is begun anew.
 */
export interface Database {
  readonly dialect: Dialect
  /**
   * Runs statements that only read, and need not agree with each other. Over a connection that an application has given back with a
   * transaction open they would see what there was when that began: it fails, and the connection is ended.
   */
  read<T>(plan: () => Plan<T>): Promise<T>
  /** Runs a plan whose writes each stand by themselves, and may be lost. Such a connection is ended here too. */
  write<T>(plan: () => Plan<T>): Promise<T>
  /** Runs a plan in one transaction, all or nothing. */
  transact<T>(plan: () => Plan<T>): Promise<T>
  /** Runs a plan that changes the schema, while no other process runs one for the table of this name. */
  alter<T>(table: string, plan: () => Plan<T>): Promise<T>
  /** Closes what the store opened itself. */
  close(): Promise<void>
}

const MAX_WAIT_MS = 5_000
const MAX_PAUSE_MS = 400

/**
 * Begins anew what was rolled back, for some 5 seconds. What fails for good is a `LatchkeyError`, or an `Error` whose
 * message holds nothing that came from a row.
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
