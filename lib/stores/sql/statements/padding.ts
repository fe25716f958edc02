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

/** Cuts a list into parts whose lengths are powers of two, at most `max`, which is one: so that few texts suffice for any list. */
export function* inPowersOfTwo<T>(values: readonly T[], max: number): Generator<readonly T[]> {
  for (let from = 0; from < values.length; ) {
    const count = 2 ** Math.floor(Math.log2(Math.min(values.length - from, max)))
    yield values.slice(from, from + count)
    from += count
  }
}
