/** What a database holds in one column of one row. */
export type Cell = string | number | boolean | null
/** A row as a driver returns it. Nothing of it is believed before it is read. */
export type Row = Readonly<Record<string, unknown>>

export interface Statement {
  readonly sql: string
  readonly parameters: readonly unknown[]
}

export interface Answer {
  readonly rows: readonly Row[]
  /** How many rows a write found. */
  readonly affected: number
}

/**
 * Statements that a method of the store runs one after the other, each knowing the answers to those before. A generator,
 * since PostgreSQL and MySQL are waited for and SQLite is not: there a transaction runs from begin to commit in one go, so
 * that nothing else in the process can put a statement of its own in between.
 */
export type Plan<T> = Generator<Statement, T, Answer>

/** Runs a plan over a connection that is waited for. */
export async function runPlan<T>(
  plan: Plan<T>,
  execute: (statement: Statement) => Promise<Answer>,
): Promise<T> {
  let step = plan.next()
  while (!step.done) step = plan.next(await execute(step.value))
  return step.value
}

/** Runs a plan over a connection that answers at once. */
export function runPlanNow<T>(plan: Plan<T>, execute: (statement: Statement) => Answer): T {
  let step = plan.next()
  while (!step.done) step = plan.next(execute(step.value))
  return step.value
}

/** The rows that a statement answers. */
export function* rowsOf(statement: Statement): Plan<readonly Row[]> {
  return (yield statement).rows
}

/** How many rows a statement wrote. */
export function* affectedBy(statement: Statement): Plan<number> {
  return (yield statement).affected
}
