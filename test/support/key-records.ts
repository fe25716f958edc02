import { type QuotaRecord, startQuota } from 'latchkey'

export { keyRecord as record } from 'latchkey/testing'

const T0 = Date.UTC(2026, 0, 15, 12)

/** So many milliseconds after the records of tests were made. */
export const at = (ms: number) => new Date(T0 + ms)

/** A quota as it is at first; with `everyMs` it is filled up again so often. */
export const quota = (remaining: number, everyMs?: number): QuotaRecord =>
  startQuota({ remaining, refill: everyMs ? { amount: remaining, everyMs } : null }, null, at(0))
