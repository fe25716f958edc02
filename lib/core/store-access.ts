import { checkArray, checkInteger, checkMethods } from '../internal/options.ts'
import type { DependencyRunner } from './faults.ts'
import type { KeySettings } from './keys/key-settings.ts'
import {
  comparisonOf,
  type KeyFilter,
  type KeyStore,
  type ListPage,
  type Proposal,
} from './keys/key-store.ts'
import { lacks } from './keys/lacks.ts'
import { checkRecord, expiresEarlier, isOwnedBy, type KeyRecord } from './keys/record.ts'
import { type HourlyCount, isPermissionCounter, type UsageSelection } from './usage/usage-counts.ts'

/** What a store that counts use has, all or nothing. */
const COUNTING = ['addUsage', 'readUsage', 'removeUsage'] as const

const OUTCOMES = ['updated', 'conflict', 'missing'] as const

/**
 * The store as the core uses it: with a deadline, its failures as `unavailable`, and its records checked, so that
 * a broken store is a 503 and never a pass. @throws TypeError when `store` is not one.
 */
export function createStoreAccess(store: KeyStore, guard: DependencyRunner): KeyStore {
  checkMethods('store', store, ['insert', 'find', 'update', 'replaceDigest', 'list', 'purge'])
  if (COUNTING.some((method) => store[method])) checkMethods('store', store, COUNTING)
  const run = <T>(method: keyof KeyStore, work: () => Promise<T>) => guard.run('store', work, [], method)
  // That a text cannot be kept is no fault of the store's: to ask again would not help.
  const write = <T>(method: keyof KeyStore, work: () => Promise<T>) =>
    guard.run('store', work, ['duplicate_key', 'unsupported'], method)

  const access: KeyStore = {
    insert: (records) => write('insert', () => store.insert(records)),
    find: (by) =>
      run('find', async () => {
        const found = await store.find(by)
        if (found === null) return null
        const record = checkRecord(found)
        const isAskedFor = 'id' in by ? record.id === by.id : by.lookups.includes(record.lookup)
        if (!isAskedFor) throw new TypeError('the store returned a record that was not requested')
        return record
      }),
    update: (id, expectedVersion, change) =>
      write('update', async () => oneOf(await store.update(id, expectedVersion, change), OUTCOMES)),
    replaceDigest: (id, expected, next) =>
      run('replaceDigest', async () => oneOf(await store.replaceDigest(id, expected, next), [true, false])),
    list: (filter, page) =>
      run('list', async () => {
        const found = await store.list(filter, page)
        const records = checkArray('records', found, page.limit).map(checkRecord)
        checkListing(records, filter, page)
        return records
      }),
    purge: (ids, at) =>
      run('purge', async () => checkInteger('purged', await store.purge(ids, at), 0, ids.length)),
  }
  const { count, forget, recordUsage, swapQuota, swapQuotas, agree, addUsage, readUsage, removeUsage } = store
  if (count) {
    access.count = (filter) =>
      run('count', async () =>
        checkInteger('count', await count.call(store, filter), 0, Number.MAX_SAFE_INTEGER),
      )
  }
  if (forget) {
    access.forget = (id, expectedVersion, forgetting) =>
      run('forget', async () => oneOf(await forget.call(store, id, expectedVersion, forgetting), OUTCOMES))
  }
  // The deadlines of these are their callers', who have to know what becomes of a write that is late.
  if (recordUsage) access.recordUsage = (batch) => recordUsage.call(store, batch)
  if (swapQuota) {
    access.swapQuota = (lineageId, expected, next) => swapQuota.call(store, lineageId, expected, next)
    if (swapQuotas) access.swapQuotas = (swaps) => swapQuotas.call(store, swaps)
  }
  if (addUsage) access.addUsage = (batch) => addUsage.call(store, batch)
  if (readUsage) {
    access.readUsage = (selection) =>
      run('readUsage', async () => checkCounts(await readUsage.call(store, selection), selection))
  }
  if (removeUsage)
    access.removeUsage = (removal) => run('removeUsage', () => removeUsage.call(store, removal))
  if (agree)
    access.agree = (name, proposal) =>
      run('agree', async () => checkAgreed(await agree.call(store, name, proposal), proposal))
  return access
}

/**
 * With a store that ignores `owners`, the keys of others would be shown, revoked or removed. If it ignores `expiresBefore`, keys that
 * last would be taken for keys that end. If it lists out of order, pages miss keys or never end.
 */
function checkListing(
  records: readonly KeyRecord[],
  { owners, expiresBefore }: KeyFilter,
  { after, order }: ListPage,
): void {
  const compare = comparisonOf(order)
  let before = after
  for (const record of records) {
    if (owners && !isOwnedBy(record, owners)) {
      throw new TypeError('the store returned a key of an owner that was not requested')
    }
    if (expiresBefore && !expiresEarlier(record, expiresBefore)) {
      throw new TypeError('the store returned a key that does not expire before the requested time')
    }
    if (before && compare(before, record) >= 0) {
      throw new TypeError('the store returned a listing that is out of order')
    }
    before = record
  }
}

/** What a store that ignores the selection returns would be shown as the use of another key. */
function checkCounts(
  counts: readonly HourlyCount[],
  { fromHour, toHour, kind }: UsageSelection,
): readonly HourlyCount[] {
  for (const { hour, counter, amount } of counts) {
    const isRight = Number.isSafeInteger(hour) && Number.isSafeInteger(amount) && typeof counter === 'string'
    if (
      !isRight ||
      hour < fromHour ||
      hour >= toHour ||
      isPermissionCounter(counter) !== (kind === 'permissions')
    ) {
      throw new TypeError('the store returned a count that was not requested')
    }
  }
  return counts
}

/** Somebody else's value is an answer; none where one was proposed is not. */
function checkAgreed(agreed: string | null, proposal: Proposal | null): string | null {
  if (typeof agreed === 'string' || (agreed === null && !proposal)) return agreed
  throw new TypeError('the store returned an unexpected value')
}

/** Requires that the store can keep what these settings need. @throws LatchkeyError `unsupported`, naming what it lacks */
export function requireCapabilities(store: KeyStore, { quota, idleExpiryMs }: Partial<KeySettings>): void {
  if (quota && !store.swapQuota) throw lacks('quota', 'swapQuota')
  if (idleExpiryMs && !store.recordUsage) throw lacks('idleExpiryMs', 'recordUsage')
}

function oneOf<T>(value: T, allowed: readonly NoInfer<T>[]): T {
  if (!allowed.includes(value)) throw new TypeError('the store returned an unexpected value')
  return value
}
