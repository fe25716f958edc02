/** What a database holds in one column of one row. */
export type Cell = string | number | boolean | null
/** A row as a driver returns it. `key-row.ts` checks every cell. */
export type Row = Readonly<Record<string, unknown>>

export interface Statement {
  readonly sql: string
  readonly parameters: readonly unknown[]
}

export interface Answer {
  readonly rows: readonly Row[]
  /** How many rows a write matched. */
  readonly affected: number
}

/**
 * The statements of one method of the store, in order. Each may depend on the answers to earlier ones. A plan is a generator because
 * PostgreSQL and MySQL answer asynchronously and SQLite does not: there, a transaction runs from begin to commit without a pause, so
 * that nothing else in the process can run a statement in between.
 */
export type Plan<T> = Generator<Statement, T, Answer>

/** Runs a plan over an asynchronous connection. */
export async function runPlan<T>(
  plan: Plan<T>,
  execute: (statement: Statement) => Promise<Answer>,
): Promise<T> {
  let step = plan.next()
  while (!step.done) step = plan.next(await execute(step.value))
  return step.value
}

/** Runs a plan over a synchronous connection. */
export function runPlanNow<T>(plan: Plan<T>, execute: (statement: Statement) => Answer): T {
  let step = plan.next()
  while (!step.done) step = plan.next(execute(step.value))
  return step.value
}

/** The rows that a statement returns. */
export function* rowsOf(statement: Statement): Plan<readonly Row[]> {
  return (yield statement).rows
}

/** How many rows a statement wrote. */
export function* affectedBy(statement: Statement): Plan<number> {
  return (yield statement).affected
}
