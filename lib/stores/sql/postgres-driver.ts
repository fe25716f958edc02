import type { Answer, Statement } from './plan.ts'

/** How a driver runs statements. */
export interface PostgresDriver {
  /** Runs statements that only read. It fails if the application left a transaction open, in which they could see old data. */
  read<T>(work: (execute: Execute) => Promise<T>): Promise<T>
  /** Runs writes that need no transaction. */
  write<T>(work: (execute: Execute) => Promise<T>): Promise<T>
  /**
   * Runs statements in a transaction with read committed, whatever the default is: the store locks rows before it reads them to decide,
   * so it needs no more.
   */
  inTransaction<T>(work: (execute: Execute) => Promise<T>): Promise<T>
}

export type Execute = (statement: Statement) => Promise<Answer>
