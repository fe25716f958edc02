import { type KeyStore, type QuotaRecord, startQuota } from 'latchkey'

export { keyRecord as record } from 'latchkey/testing'

const T0 = Date.UTC(2026, 0, 15, 12)

/** So many milliseconds after the records of tests were made. */
export const at = (ms: number) => new Date(T0 + ms)

/** A quota as it is at first; with `everyMs` it is filled up again so often. */
export const quota = (remaining: number, everyMs?: number): QuotaRecord =>
  startQuota({ remaining, refill: everyMs ? { amount: remaining, everyMs } : null }, null, at(0))

/** The quota after a process has leased so many units of it. */
export const leased = (given: QuotaRecord, units: number): QuotaRecord => ({
  ...given,
  remaining: given.remaining - units,
  allotted: given.allotted + units,
})

/** Leases so many units, or what is left, as often as others are faster. Null where there is no quota. */
export async function lease(
  store: Pick<KeyStore, 'swapQuota'>,
  lineageId: string,
  units: number,
): Promise<number | null> {
  // An empty quota is changed to what it is, by which nothing is changed.
  let [current, next] = [quota(0), quota(0)]
  for (let granted = 0; ; ) {
    const result = await store.swapQuota?.(lineageId, current, next)
    if (result?.swapped) return granted
    if (!result?.current) return null
    current = result.current
    granted = Math.min(units, current.remaining)
    next = leased(current, granted)
  }
}
