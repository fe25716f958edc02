import type { Dialect } from '../dialect.ts'

/**
 * Pads a list with its last value, or with `filler`, to a power of two in MySQL. MySQL keeps every prepared SQL text, up to a limit
 * that all its clients share, so lists of any length must not each have a text of their own.
 */
export function padded<T>(dialect: Dialect, values: readonly T[], filler = values.at(-1)): readonly T[] {
  const missing = roundedUp(dialect, values.length) - values.length
  return [...values, ...Array<T>(missing).fill(filler as T)]
}

/** The next power of two in MySQL; the number itself elsewhere. */
export function roundedUp({ name }: Dialect, count: number): number {
  if (name !== 'mysql' || count === 0) return count
  return 2 ** Math.ceil(Math.log2(count))
}
