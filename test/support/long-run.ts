/** Of `npm test`, `npm run test:soak` or `npm run test:long`. */
type Length = 'short' | 'soak' | 'long'

const length = (process.env.TEST_LENGTH ?? 'short') as Length

export const isShort = length === 'short'

/** How often to do something in this run. */
export function times(counts: Readonly<Partial<Record<Length, number>>> & { readonly soak: number }): number {
  return counts[length] ?? counts.soak
}

/** What `npm test` leaves out. */
export function soakOnly<T extends object>(cases: T): T | Record<string, never> {
  return isShort ? {} : cases
}

/** What only `npm run test:long` does. */
export function longOnly<T extends object>(cases: T): T | Record<string, never> {
  return isLong ? cases : {}
}

/** Where the seeds of this run begin, so that a longer one does not repeat what a shorter one has shown. */
export const firstSeed = { short: 1, soak: 1_000_001, long: 2_000_001 }[length]

export const isLong = length === 'long'
