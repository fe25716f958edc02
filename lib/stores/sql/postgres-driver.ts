import type { Answer, Statement } from './plan.ts'

/** How a driver runs statements. */
export interface PostgresDriver {
  /** Runs statements that need no transaction. */
  alone<T>(work: (execute: Execute) => Promise<T>): Promise<T>
  /**
   * Runs statements in a transaction with read committed, whatever the default is: the store locks rows before it reads them to decide,
   * so it needs no more.
   */
  inTransaction<T>(work: (execute: Execute) => Promise<T>): Promise<T>
}

export type Execute = (statement: Statement) => Promise<Answer>
