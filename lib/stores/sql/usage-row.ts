import type { HourlyCount } from '../../core/usage/usage-counts.ts'
import { LatchkeyError } from '../../errors.ts'
import type { Row } from './plan.ts'

/** The hours of a day, each of which has a column. */
export const HOURS_OF_DAY: readonly number[] = Object.freeze(Array.from({ length: 24 }, (_, hour) => hour))

/** The column of an hour: `h00` to `h23`. */
export function hourColumn(hour: number): string {
  return `h${String(hour).padStart(2, '0')}`
}

/** The counts of a row that are not 0. @throws LatchkeyError `malformed_record` */
export function fromUsageRow(row: Row): HourlyCount[] {
  const { day, counter } = row
  return HOURS_OF_DAY.map((hour) => ({
    hour: integerOf(day) * 24 + hour,
    counter: String(counter),
    amount: integerOf(row[hourColumn(hour)]),
  })).filter(({ amount }) => amount !== 0)
}

/** Drivers return large integers as numbers, texts or bigints. What is beyond them is shown as the greatest. */
function integerOf(cell: unknown): number {
  const value = Number(cell)
  if (cell !== null && Number.isInteger(value)) return Math.min(value, Number.MAX_SAFE_INTEGER)
  throw new LatchkeyError('malformed_record', 'A count of use is not an integer')
}
