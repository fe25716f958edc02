import assert from 'node:assert/strict'
import {
  type KeyPosition,
  type KeyRecord,
  type KeyStore,
  keyStatus,
  LatchkeyError,
  memoryStore,
  type QuotaRecord,
  type QuotaSwapResult,
  type UsageDelta,
} from 'latchkey'
import { type StoreConformanceOptions, storeConformance } from 'latchkey/testing'
import { describe, expect, it } from 'vitest'
import { startProgram } from '../support/program.ts'

type FullStore = Required<KeyStore>
type MakeStore = Parameters<typeof storeConformance>[1]
interface Report {
  readonly titles: string[]
  /** The message of each failure, by the title of its case. */
  readonly failures: Map<string, string>
}

/** Runs the kit as a test runner would, one case after the other; or one of them only. */
async function runKit(
  makeStore: MakeStore,
  options: Partial<StoreConformanceOptions> = {},
  only?: string,
): Promise<Report> {
  const cases: [string, () => Promise<void>][] = []
  storeConformance({ test: (name, run) => void cases.push([name, run]), assert, ...options }, makeStore)
  const failures = new Map<string, string>()
  for (const [name, run] of cases) {
    if (only !== undefined && name !== only) continue
    try {
      await run()
    } catch (error) {
      failures.set(name, (error as Error).message)
    }
  }
  return { titles: cases.map(([name]) => name), failures }
}

/** A memory store with some methods replaced. */
function broken(fault: (inner: FullStore) => Partial<KeyStore>): () => KeyStore {
  return () => {
    const inner = memoryStore() as FullStore
    return { ...inner, ...fault(inner) }
  }
}

const ALL = { limit: Number.MAX_SAFE_INTEGER }
const everything = (store: KeyStore) => store.list({}, ALL)
const isRecordOf = (by: Parameters<KeyStore['find']>[0], record: KeyRecord) =>
  'id' in by ? record.id === by.id : by.lookups.includes(record.lookup)
/** What a database does while somebody else is let in. */
const pause = () => new Promise<void>((resolve) => setImmediate(resolve))

/** Answers with records that have gone through `change`. */
const answering = (change: (record: KeyRecord) => KeyRecord) =>
  broken((inner) => ({
    async find(by) {
      const found = await inner.find(by)
      return found && change(found)
    },
    list: async (...args) => (await inner.list(...args)).map(change),
  }))

/** Keeps records that have gone through `change`. */
const keeping = (change: (record: KeyRecord) => KeyRecord) =>
  broken((inner) => ({ insert: (records) => inner.insert(records.map(change)) }))

/** Any quota that no store has. */
const NONE: QuotaRecord = { remaining: 0, epoch: -1, allotted: 0, refill: null, nextRefillAt: null }
const QUOTA_NUMBERS = ['epoch', 'allotted', 'remaining'] as const

async function quotaOf(inner: FullStore, lineageId: string): Promise<QuotaRecord | null> {
  const result = await inner.swapQuota(lineageId, NONE, NONE)
  return result.swapped ? NONE : result.current
}

/** Writes whatever is there. */
async function setQuota(inner: FullStore, lineageId: string, next: QuotaRecord): Promise<QuotaSwapResult> {
  const current = await quotaOf(inner, lineageId)
  return current ? inner.swapQuota(lineageId, current, next) : { swapped: false, current }
}

function isSame(
  one: QuotaRecord,
  other: QuotaRecord,
  numbers: readonly (typeof QUOTA_NUMBERS)[number][] = QUOTA_NUMBERS,
): boolean {
  return numbers.every((name) => one[name] === other[name])
}

/** Swaps where these numbers are as expected, whatever the others are. */
const swappingWhere = (...numbers: (typeof QUOTA_NUMBERS)[number][]) =>
  broken((inner) => ({
    async swapQuota(lineageId, expected, next) {
      const current = await quotaOf(inner, lineageId)
      if (!current || !isSame(current, expected, numbers)) return { swapped: false, current }
      return inner.swapQuota(lineageId, current, next)
    },
  }))

/** Answers swaps with results that have gone through `change`. */
const answeringSwaps = (change: (result: QuotaSwapResult) => QuotaSwapResult) =>
  broken((inner) => ({
    swapQuota: async (...args) => change(await inner.swapQuota(...args)),
  }))

const LEFT_ALONE = 'swapQuota: leaves the quota alone and returns it if any number differs'
const TOGETHER = 'swapQuota: swaps several quotas together, if the store can'

/** Compares by `fold` where it should compare as it is. */
function folding(fold: (text: string) => string): () => KeyStore {
  return broken((inner) => ({
    async insert(records) {
      const taken = (await everything(inner)).flatMap(({ id, lookup }) => [
        `i ${fold(id)}`,
        `l ${fold(lookup)}`,
      ])
      for (const { id, lookup } of records) {
        if (taken.includes(`i ${fold(id)}`) || taken.includes(`l ${fold(lookup)}`)) {
          throw new LatchkeyError('duplicate_key')
        }
      }
      return inner.insert(records)
    },
  }))
}

const CODE_POINTS = 'insert: treats texts as equal only if they are identical'
const TIMES = 'stored values: keeps times to the millisecond, near and far'

/** Sorts and pages by `compare` where ids decide. */
function listing(inner: FullStore, compare: (a: string, b: string) => number): Pick<KeyStore, 'list'> {
  const order = (a: KeyPosition, b: KeyPosition) =>
    a.createdAt.getTime() - b.createdAt.getTime() || (a.id === b.id ? 0 : compare(a.id, b.id))
  return {
    async list(filter, { limit, after }) {
      const all = (await inner.list(filter, ALL)).sort(order)
      return all.filter((record) => !after || order(record, after) > 0).slice(0, limit)
    },
  }
}

const MIXED = 'list: mixes the keys of several owners in one order, page by page'
const NEWEST = 'list: reverses the order if the newest come first'
const EXPIRING = 'list: filters by "expiresAt", to the millisecond'
const COUNTED = 'list: counts what it lists, if the store can count'
const byMoment = (a: KeyPosition, b: KeyPosition) => a.createdAt.getTime() - b.createdAt.getTime()

/** Lists the newest first by `order`, and the oldest as it should. */
function listingNewest(
  inner: FullStore,
  order: (a: KeyPosition, b: KeyPosition) => number,
): Pick<KeyStore, 'list'> {
  return {
    async list(filter, page) {
      if (!page.order) return inner.list(filter, page)
      const { limit, after } = page
      const all = (await inner.list(filter, ALL)).sort(order)
      return all.filter((record) => !after || order(record, after) > 0).slice(0, limit)
    },
  }
}

const byTime = (a: KeyRecord, b: KeyRecord) =>
  a.createdAt.getTime() - b.createdAt.getTime() || (a.id < b.id ? -1 : 1)

type ListPage = Parameters<KeyStore['list']>[1]

/** Asks for each owner by itself, and makes one listing of what was found. */
function listingEach(
  inner: FullStore,
  join: (page: ListPage, found: KeyRecord[][]) => KeyRecord[],
): Pick<KeyStore, 'list'> {
  return {
    async list({ owners, ...filter }, page) {
      if (!owners) return inner.list(filter, page)
      const found = owners.map((owner) => inner.list({ ...filter, owners: [owner] }, page))
      return join(page, await Promise.all(found))
    },
  }
}

interface LastUse {
  at: Date | null
  ip: string | null
}

/** Decides the last use by `next`, in place of the store. */
function usageOverlay(
  inner: FullStore,
  next: (kept: LastUse, use: UsageDelta) => LastUse,
): Partial<KeyStore> {
  const uses = new Map<string, LastUse>()
  return {
    async recordUsage(batch) {
      await inner.recordUsage(batch)
      for (const use of batch) uses.set(use.id, next(uses.get(use.id) ?? { at: null, ip: null }, use))
    },
    async find(by) {
      const found = await inner.find(by)
      const use = found && uses.get(found.id)
      return found && use ? { ...found, lastUsedAt: use.at, lastUsedIp: use.ip } : found
    },
  }
}

/** The clock on the wall, read as if it were UTC: an hour each autumn is there twice. */
function localTimeInBerlin(date: Date): number {
  const wall = new Date(date.toLocaleString('en-US', { timeZone: 'Europe/Berlin' })).getTime()
  return wall - 3_600_000
}

function cutTexts(metadata: KeyRecord['metadata'], length: number): KeyRecord['metadata'] {
  const cut = (value: unknown) => (typeof value === 'string' ? value.slice(0, length) : value)
  return Object.fromEntries(Object.entries(metadata).map(([name, value]) => [name, cut(value)]))
}

function reviveDates(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value), (_name, member) =>
    typeof member === 'string' && /^\d{4}-\d\d-\d\dT/.test(member) ? new Date(member) : member,
  )
}

const toSeconds = (date: Date) => new Date(Math.floor(date.getTime() / 1_000) * 1_000)
const onlyOneAtATime = () => {
  let last: Promise<unknown> = Promise.resolve()
  return <T>(work: () => Promise<T>): Promise<T> => {
    const next = last.then(work, work)
    last = next
    return next
  }
}

/** What is wrong with a store, and one case that must fail for it. */
const FAULTS: [fault: string, makeStore: () => KeyStore, title: string][] = [
  [
    'insert stops half-way',
    broken((inner) => ({
      async insert(records) {
        for (const record of records) await inner.insert([record])
      },
    })),
    'insert: adds none of the records if a lookup is twice in the batch',
  ],
  [
    'insert removes all of a batch that fails, also what was there before',
    broken((inner) => ({
      async insert(records) {
        try {
          for (const record of records) await inner.insert([record])
        } catch (error) {
          for (const { id } of records) {
            await inner.update(id, 1, { revokedAt: new Date(0), updatedAt: new Date(0) })
            await inner.purge([id], new Date(0))
          }
          throw error
        }
      },
    })),
    'insert: adds none of the records if the first already exists',
  ],
  [
    'insert overwrites what exists',
    broken((inner) => ({
      async insert(records) {
        for (const record of records) {
          const old = await inner.find({ id: record.id })
          if (old) {
            await inner.update(record.id, old.version, { revokedAt: new Date(0), updatedAt: new Date(0) })
            await inner.purge([record.id], new Date(0))
          }
        }
        return inner.insert(records)
      },
    })),
    'insert: adds none of the records if an id exists',
  ],
  [
    'insert passes over duplicates in silence',
    broken((inner) => ({ insert: (records) => inner.insert(records).catch(() => {}) })),
    'insert: adds none of the records if an id exists',
  ],
  [
    'insert reports a duplicate by an error of the driver',
    broken((inner) => ({
      insert: (records) =>
        inner.insert(records).catch((error) => {
          throw new Error('UNIQUE constraint failed', { cause: error })
        }),
    })),
    'insert: adds none of the records if an id exists',
  ],
  [
    'insert looks for duplicates, then writes',
    () => {
      const records = new Map<string, KeyRecord>()
      const inner = memoryStore() as FullStore
      return {
        ...inner,
        async insert(batch) {
          const all = [...records.values()]
          for (const { id, lookup } of batch) {
            if (all.some((record) => record.id === id || record.lookup === lookup))
              throw new LatchkeyError('duplicate_key')
          }
          await pause()
          for (const record of batch) records.set(record.id, record)
          await inner.insert(batch).catch(() => {})
        },
      }
    },
    'insert: lets one of 50 concurrent inserts of the same id win',
  ],
  [
    'lookups are not unique',
    broken((inner) => {
      const lookups = new Map<string, string>()
      const outward = (record: KeyRecord | null) =>
        record && { ...record, lookup: lookups.get(record.id) as string }
      return {
        async insert(records) {
          await inner.insert(records.map((record) => ({ ...record, lookup: record.id })))
          for (const { id, lookup } of records) lookups.set(id, lookup)
        },
        async find(by) {
          if ('id' in by) return outward(await inner.find(by))
          const [id] = [...lookups].find(([, lookup]) => by.lookups.includes(lookup)) ?? []
          return id === undefined ? null : outward(await inner.find({ id }))
        },
        list: async (...args) => (await inner.list(...args)).map((record) => outward(record) as KeyRecord),
      }
    }),
    'insert: adds none of the records if a lookup exists',
  ],
  ['texts are compared without case', folding((text) => text.toLowerCase()), CODE_POINTS],
  ['texts are compared without trailing blanks', folding((text) => text.replace(/ +$/, '')), CODE_POINTS],
  [
    'texts are compared without accents',
    folding((text) => text.normalize('NFKD').replace(/\p{M}/gu, '')),
    CODE_POINTS,
  ],
  [
    'texts are compared as numbers where they look like some',
    folding((text) => `${Number(text) || text}`),
    CODE_POINTS,
  ],
  [
    'find ignores the order of the lookups',
    broken((inner) => ({
      async find(by) {
        return (await everything(inner)).find((record) => isRecordOf(by, record)) ?? null
      },
    })),
    'find: returns the first of several, in the order of the lookups',
  ],
  [
    'find takes a pattern',
    broken((inner) => ({
      async find(by) {
        if (!('id' in by)) return inner.find(by)
        const pattern = new RegExp(
          `^${by.id
            .replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
            .replace(/%/g, '.*')
            .replace(/_/g, '.')}$`,
        )
        return (await inner.find(by)) ?? (await everything(inner)).find(({ id }) => pattern.test(id)) ?? null
      },
    })),
    'find: finds nothing by a text that only resembles a stored one',
  ],
  [
    'find by an id falls back to the lookup',
    broken((inner) => ({
      find: async (by) => (await inner.find(by)) ?? ('id' in by ? inner.find({ lookups: [by.id] }) : null),
    })),
    'find: returns null if there is no such key',
  ],
  [
    'find answers from a cache',
    broken((inner) => {
      const cached = new Map<string, KeyRecord | null>()
      return {
        async find(by) {
          const name = JSON.stringify(by)
          const found = cached.get(name) ?? (await inner.find(by))
          if (found) cached.set(name, found)
          return found
        },
      }
    }),
    'find: sees every completed write at once',
  ],
  [
    'list answers from a replica that is one write behind',
    broken((inner) => {
      let behind = memoryStore()
      let ahead: KeyRecord[] = []
      const written = async () => {
        behind = memoryStore()
        await behind.insert(ahead)
        ahead = await everything(inner)
      }
      return {
        insert: async (records) => inner.insert(records).then(written),
        async update(...args) {
          const outcome = await inner.update(...args)
          await written()
          return outcome
        },
        list: (...args) => behind.list(...args),
      }
    }),
    'list: includes every completed write at once',
  ],
  [
    'update reads, then writes, and compares nothing',
    broken((inner) => ({
      async update(id, _expectedVersion, change) {
        const record = await inner.find({ id })
        if (!record) return 'missing'
        return inner.update(id, record.version, change)
      },
    })),
    'update: changes nothing for an older version',
  ],
  [
    'update compares, then writes',
    broken((inner) => ({
      async update(id, expectedVersion, change) {
        const record = await inner.find({ id })
        if (!record) return 'missing'
        if (record.version !== expectedVersion) return 'conflict'
        await pause()
        for (;;) {
          const now = await inner.find({ id })
          if (!now) return 'missing'
          if ((await inner.update(id, now.version, change)) === 'updated') return 'updated'
        }
      },
    })),
    'update: lets one of 50 concurrent calls win, version after version',
  ],
  [
    'update loses changes that overlap',
    broken((inner) => {
      const changes = new Map<string, KeyRecord>()
      const overlay = (record: KeyRecord | null) => (record && changes.get(record.id)) ?? record
      return {
        find: async (by) => overlay(await inner.find(by)),
        async update(id, expectedVersion, change) {
          const record = overlay(await inner.find({ id }))
          if (!record) return 'missing'
          if (record.version !== expectedVersion) return 'conflict'
          await pause()
          const { quota: _quota, ...rest } = change
          changes.set(id, { ...record, ...rest, version: expectedVersion + 1 })
          return 'updated'
        },
      }
    }),
    'update: loses none of 20 concurrent changes, each made after reading the last',
  ],
  [
    'update answers "missing" for a conflict',
    broken((inner) => ({
      update: async (...args) => ((await inner.update(...args)) === 'updated' ? 'updated' : 'missing'),
    })),
    'update: changes nothing for an older version',
  ],
  [
    'update leaves the version alone where nothing changes',
    broken((inner) => ({
      async update(id, expectedVersion, change) {
        if (Object.keys(change).length > 1) return inner.update(id, expectedVersion, change)
        const record = await inner.find({ id })
        return record?.version === expectedVersion ? 'updated' : 'conflict'
      },
    })),
    'update: raises the version even if only the time is given',
  ],
  [
    'update clears a revocation',
    broken((inner) => {
      const cleared = new Set<string>()
      return {
        async update(id, expectedVersion, change) {
          if (change.revokedAt === null) cleared.add(id)
          return inner.update(id, expectedVersion, change)
        },
        async find(by) {
          const found = await inner.find(by)
          return found && cleared.has(found.id) ? { ...found, revokedAt: null } : found
        },
      }
    }),
    'update: never clears a revocation',
  ],
  [
    'update passes over null',
    broken((inner) => ({
      update: (id, version, change) =>
        inner.update(
          id,
          version,
          Object.fromEntries(Object.entries(change).filter(([, value]) => value !== null)) as typeof change,
        ),
    })),
    'update: can change and clear every member of a change',
  ],
  [
    'update forgets a member',
    broken((inner) => ({
      update: (id, version, { idleExpiryMs: _, ...change }) => inner.update(id, version, change),
    })),
    'update: can change and clear every member of a change',
  ],
  [
    'update merges metadata into what was there',
    broken((inner) => ({
      async update(id, version, change) {
        const record = await inner.find({ id })
        const metadata = { ...record?.metadata, ...change.metadata }
        return inner.update(id, version, { ...change, metadata })
      },
    })),
    'stored values: keeps metadata unchanged',
  ],
  [
    'update writes the whole document back, with the digest that it has read',
    broken((inner) => ({
      async update(id, version, change) {
        const before = await inner.find({ id })
        await pause()
        const outcome = await inner.update(id, version, change)
        const now = await inner.find({ id })
        if (outcome === 'updated' && before && now) await inner.replaceDigest(id, now.digest, before.digest)
        return outcome
      },
    })),
    'update: neither fails because of a new digest nor undoes it',
  ],
  [
    'replaceDigest compares nothing',
    broken((inner) => ({
      async replaceDigest(id, _expected, next) {
        const record = await inner.find({ id })
        return record !== null && inner.replaceDigest(id, record.digest, next)
      },
    })),
    'replaceDigest: returns false if the digest differs or there is no key',
  ],
  [
    'replaceDigest compares, then writes',
    broken((inner) => ({
      async replaceDigest(id, expected, next) {
        if ((await inner.find({ id }))?.digest !== expected) return false
        await pause()
        const now = await inner.find({ id })
        return now !== null && inner.replaceDigest(id, now.digest, next)
      },
    })),
    'replaceDigest: lets one of 50 concurrent calls win',
  ],
  [
    'replaceDigest raises the version',
    broken((inner) => ({
      async replaceDigest(id, expected, next) {
        const record = await inner.find({ id })
        const isReplaced = await inner.replaceDigest(id, expected, next)
        if (isReplaced && record) await inner.update(id, record.version, { updatedAt: record.updatedAt })
        return isReplaced
      },
    })),
    'replaceDigest: replaces only the digest and keeps the version',
  ],
  [
    'list goes by the rules of a language',
    broken((inner) => listing(inner, (a, b) => a.localeCompare(b, 'en'))),
    'list: compares ids by code point',
  ],
  [
    'list compares by UTF-16 units',
    broken((inner) => listing(inner, (a, b) => (a < b ? -1 : 1))),
    'list: compares ids by code point',
  ],
  [
    'list goes by the order of insertion',
    broken((inner) => {
      const order: string[] = []
      return {
        insert: async (records) => {
          await inner.insert(records)
          order.push(...records.map(({ id }) => id))
        },
        ...listing(inner, (a, b) => order.indexOf(a) - order.indexOf(b)),
      }
    }),
    'list: orders by creation, then by id, whatever the order of insertion',
  ],
  [
    'list begins behind the time of a position, and forgets its id',
    broken((inner) => ({
      list: (filter, { limit, after }) =>
        inner.list(filter, { limit, ...(after && { after: { ...after, id: '\u{10ffff}' } }) }),
    })),
    'list: orders by creation, then by id, whatever the order of insertion',
  ],
  [
    'list compares the time and the id of a position one by one',
    broken((inner) => ({
      async list(filter, { limit, after }) {
        const all = await inner.list(filter, ALL)
        return all
          .filter(({ createdAt, id }) => !after || (createdAt >= after.createdAt && id > after.id))
          .slice(0, limit)
      },
    })),
    'list: begins after a position, whether or not a key is there',
  ],
  [
    'list goes on by counting',
    broken((inner) => ({
      async list(filter, { limit, after }) {
        const all = await inner.list(filter, ALL)
        const from = after ? all.findIndex(({ id }) => id === after.id) + 1 : 0
        return all.slice(from, from + limit)
      },
    })),
    'list: returns every key once, with keys inserted and removed between the pages',
  ],
  [
    'list takes the page, then filters',
    broken((inner) => ({
      async list(filter, page) {
        const passing = await inner.list(filter, ALL)
        const ids = passing.map(({ id }) => id)
        return (await inner.list({}, page)).filter(({ id }) => ids.includes(id))
      },
    })),
    'list: filters, then takes the page',
  ],
  [
    'list answers 1,000 at most',
    broken((inner) => ({
      list: (filter, page) => inner.list(filter, { ...page, limit: Math.min(page.limit, 1_000) }),
    })),
    'list: returns as many as requested',
  ],
  [
    'list passes over the type of an owner',
    broken((inner) => ({
      async list({ owners, ...filter }, { limit }) {
        const all = await inner.list(filter, ALL)
        return all
          .filter((record) => !owners || owners.some(({ id }) => record.owner.id === id))
          .slice(0, limit)
      },
    })),
    'list: filters by every member, and by all given members together',
  ],
  [
    'list ignores owners',
    broken((inner) => ({ list: ({ owners: _, ...filter }, page) => inner.list(filter, page) })),
    'list: filters by every member, and by all given members together',
  ],
  [
    'list goes by the first owner only',
    broken((inner) => ({
      list: ({ owners, ...filter }, page) =>
        inner.list({ ...filter, ...(owners && { owners: owners.slice(0, 1) }) }, page),
    })),
    MIXED,
  ],
  [
    'list compares the types of several owners apart from their ids',
    broken((inner) => ({
      async list({ owners, ...filter }, { limit, after }) {
        const all = await inner.list(filter, { ...ALL, ...(after && { after }) })
        const isAsked = ({ owner }: KeyRecord) =>
          owners?.some(({ type }) => type === owner.type) && owners.some(({ id }) => id === owner.id)
        return all.filter((record) => !owners || isAsked(record)).slice(0, limit)
      },
    })),
    MIXED,
  ],
  [
    'list shows one owner after the other',
    broken((inner) => listingEach(inner, ({ limit }, found) => found.flat().slice(0, limit))),
    MIXED,
  ],
  [
    'list takes "limit" keys of each owner',
    broken((inner) => listingEach(inner, (_page, found) => found.flat().sort(byTime))),
    MIXED,
  ],
  [
    'list sorts the keys of several owners by time alone',
    broken((inner) =>
      listingEach(inner, ({ limit }, found) =>
        found
          .flat()
          .sort((a, b) => a.createdAt.getTime() - b.createdAt.getTime())
          .slice(0, limit),
      ),
    ),
    MIXED,
  ],
  [
    'list knows "after" of one owner only',
    broken((inner) => ({
      list: (filter, { limit, after }) =>
        inner.list(filter, {
          limit,
          ...(after && (filter.owners ?? []).length < 2 && { after }),
        }),
    })),
    MIXED,
  ],
  [
    'list passes over the name where there are several owners',
    broken((inner) => ({
      list: ({ name, ...filter }, page) =>
        inner.list({ ...filter, ...(name !== undefined && !filter.owners?.[1] && { name }) }, page),
    })),
    MIXED,
  ],
  [
    'list takes 64 owners at most',
    broken((inner) => ({
      list: ({ owners, ...filter }, page) =>
        inner.list({ ...filter, ...(owners && { owners: owners.slice(0, 64) }) }, page),
    })),
    'list: lists the keys of 100 owners',
  ],
  [
    'list ignores the order',
    broken((inner) => ({ list: (filter, { order: _, ...page }) => inner.list(filter, page) })),
    NEWEST,
  ],
  [
    'list turns the page round, rather than the listing',
    broken((inner) => ({
      async list(filter, { order, ...page }) {
        const found = await inner.list(filter, page)
        return order === 'newest' ? found.reverse() : found
      },
    })),
    NEWEST,
  ],
  [
    'list with the newest first goes by id upwards',
    broken((inner) => listingNewest(inner, (a, b) => byMoment(b, a) || (a.id < b.id ? -1 : 1))),
    NEWEST,
  ],
  [
    'list with the newest first forgets the id of a position',
    broken((inner) => ({
      list: (filter, page) =>
        inner.list(filter, page.order && page.after ? { ...page, after: { ...page.after, id: '' } } : page),
    })),
    NEWEST,
  ],
  [
    'list with the newest first compares by UTF-16 units',
    broken((inner) => listingNewest(inner, (a, b) => byMoment(b, a) || (a.id < b.id ? 1 : -1))),
    'list: compares ids by code point, newest first',
  ],
  [
    'list ignores the order where there are several owners',
    broken((inner) => ({
      list: (filter, { order, ...page }) =>
        inner.list(filter, { ...page, ...(order && !filter.owners?.[1] && { order }) }),
    })),
    MIXED,
  ],
  [
    'list ignores "expiresBefore"',
    broken((inner) => ({ list: ({ expiresBefore: _, ...filter }, page) => inner.list(filter, page) })),
    EXPIRING,
  ],
  [
    'list takes "expiresBefore" for "endedBefore"',
    broken((inner) => ({
      list: ({ expiresBefore, ...filter }, page) =>
        inner.list({ ...filter, ...(expiresBefore && { endedBefore: expiresBefore }) }, page),
    })),
    EXPIRING,
  ],
  [
    'list includes what expires at the moment of "expiresBefore"',
    broken((inner) => ({
      list: ({ expiresBefore: before, ...filter }, page) =>
        inner.list({ ...filter, ...(before && { expiresBefore: new Date(before.getTime() + 1) }) }, page),
    })),
    EXPIRING,
  ],
  [
    'list passes over "expiresBefore" where it filters by status',
    broken((inner) => ({
      list: ({ expiresBefore, ...filter }, page) =>
        inner.list({ ...filter, ...(expiresBefore && !filter.status && { expiresBefore }) }, page),
    })),
    EXPIRING,
  ],
  ['count passes over the filter', broken((inner) => ({ count: () => inner.count({}) })), COUNTED],
  [
    'count takes one owner only',
    broken((inner) => ({
      count: ({ owners, ...filter }) =>
        inner.count({ ...filter, ...(owners && { owners: owners.slice(0, 1) }) }),
    })),
    COUNTED,
  ],
  [
    'count answers what it has counted before',
    broken((inner) => {
      const counted = new Map<string, number>()
      return {
        async count(filter) {
          const name = JSON.stringify(filter)
          const count = counted.get(name) || (await inner.count(filter))
          counted.set(name, count)
          return count
        },
      }
    }),
    COUNTED,
  ],
  [
    'list looks at one member of the filter only',
    broken((inner) => ({
      list: (filter, page) => inner.list(Object.fromEntries(Object.entries(filter).slice(0, 1)), page),
    })),
    'list: filters by every member, and by all given members together',
  ],
  [
    'list passes over the name where it goes by the owner',
    broken((inner) => ({
      list: ({ name, ...filter }, page) =>
        inner.list({ ...filter, ...(name !== undefined && !filter.owners && { name }) }, page),
    })),
    'list: filters by any members together, page by page',
  ],
  [
    'list begins anew where it filters by status',
    broken((inner) => ({
      list: (filter, page) => inner.list(filter, filter.status ? { limit: page.limit } : page),
    })),
    'list: filters by any members together, page by page',
  ],
  [
    'a key expires a millisecond late',
    broken((inner) => ({
      list: ({ status, ...filter }, page) =>
        inner.list(
          { ...filter, ...(status && { status: { ...status, at: new Date(status.at.getTime() - 1) } }) },
          page,
        ),
    })),
    'list: filters by status, at its exact millisecond',
  ],
  [
    'list decides the status by the clock of the machine',
    broken((inner) => ({
      list: ({ status, ...filter }, page) =>
        inner.list({ ...filter, ...(status && { status: { ...status, at: new Date() } }) }, page),
    })),
    'list: filters by status, at its exact millisecond',
  ],
  [
    'a disabled key that has expired is called disabled',
    broken((inner) => ({
      async list({ status, ...filter }, { limit }) {
        const all = await inner.list(filter, ALL)
        const statusOf = (record: KeyRecord, at: Date) =>
          record.enabled || record.revokedAt ? keyStatus(record, at) : 'disabled'
        return all.filter((record) => !status || statusOf(record, status.at) === status.is).slice(0, limit)
      },
    })),
    'list: filters by status, at its exact millisecond',
  ],
  [
    'endedBefore includes its own millisecond',
    broken((inner) => ({
      list: ({ endedBefore, ...filter }, page) =>
        inner.list(
          { ...filter, ...(endedBefore && { endedBefore: new Date(endedBefore.getTime() + 1) }) },
          page,
        ),
    })),
    'list: filters by the end of a key, to the millisecond',
  ],
  [
    'times are cut to seconds',
    keeping((record) => ({ ...record, createdAt: toSeconds(record.createdAt) })),
    TIMES,
  ],
  [
    'times end in 2038',
    keeping((record) => ({
      ...record,
      expiresAt: record.expiresAt && new Date(Math.min(record.expiresAt.getTime(), 2 ** 31 * 1_000 - 1)),
    })),
    TIMES,
  ],
  [
    'times are kept without their zone',
    keeping((record) => ({ ...record, createdAt: new Date(localTimeInBerlin(record.createdAt)) })),
    TIMES,
  ],
  [
    'metadata is cut at 64 kB',
    keeping((record) => ({ ...record, metadata: cutTexts(record.metadata, 65_535) })),
    'stored values: keeps 100 kB of metadata',
  ],
  [
    'texts are cut at 100 characters',
    keeping((record) => ({ ...record, name: record.name.slice(0, 100) })),
    'stored values: keeps texts of the greatest length',
  ],
  [
    'what is beyond the basic plane is lost',
    keeping((record) => ({ ...record, name: record.name.replace(/[\u{10000}-\u{10ffff}]/gu, '?') })),
    'stored values: keeps every text unchanged',
  ],
  [
    'metadata that holds NUL is refused',
    broken((inner) => ({
      async insert(records) {
        if (JSON.stringify(records).includes('\\u0000'))
          throw new Error('unsupported Unicode escape sequence')
        return inner.insert(records)
      },
    })),
    'stored values: keeps metadata unchanged',
  ],
  [
    'lone surrogates are replaced',
    keeping((record) => ({
      ...record,
      metadata: JSON.parse(JSON.stringify(record.metadata).replace(/\\ud[89a-f]../g, '\ufffd')),
    })),
    'stored values: keeps metadata unchanged',
  ],
  [
    'texts in metadata that look like times become times',
    answering((record) => ({ ...record, metadata: reviveDates(record.metadata) as KeyRecord['metadata'] })),
    'stored values: keeps metadata unchanged',
  ],
  [
    'large counts come back as text',
    answering((record) => ({ ...record, usageCount: String(record.usageCount) as never })),
    'stored values: keeps every member of a record',
  ],
  [
    'booleans come back as numbers',
    answering((record) => ({ ...record, enabled: Number(record.enabled) as never })),
    'stored values: keeps every member of a record',
  ],
  [
    'an empty list of limits becomes none of its own',
    answering((record) => ({ ...record, rateLimits: record.rateLimits?.length ? record.rateLimits : null })),
    'update: can change and clear every member of a change',
  ],
  [
    'what is handed in is kept, and what is kept is handed out',
    () => {
      const kept = new Map<string, KeyRecord>()
      const inner = memoryStore() as FullStore
      return {
        ...inner,
        async insert(records) {
          await inner.insert(records)
          for (const record of records) kept.set(record.id, record)
        },
        find: async (by) => [...kept.values()].find((record) => isRecordOf(by, record)) ?? null,
      }
    },
    'stored values: copies what it is given',
  ],
  [
    'what is kept is handed out',
    () => {
      const kept = new Map<string, KeyRecord>()
      const inner = memoryStore() as FullStore
      return {
        ...inner,
        async find(by) {
          const found = await inner.find(by)
          if (found && !kept.has(found.id)) kept.set(found.id, found)
          return found && (kept.get(found.id) as KeyRecord)
        },
      }
    },
    'stored values: returns copies',
  ],
  [
    'purge removes living keys',
    broken((inner) => ({
      async purge(ids, at) {
        for (const id of ids) {
          const record = await inner.find({ id })
          if (record) await inner.update(id, record.version, { revokedAt: at, updatedAt: at })
        }
        return inner.purge(ids, at)
      },
    })),
    'purge: removes keys that are revoked or expired at that moment, and no living key',
  ],
  [
    'purge looks, then removes',
    broken((inner) => ({
      async purge(ids, at) {
        let count = 0
        const doomed = await Promise.all(ids.map((id) => inner.find({ id })))
        await pause()
        for (const record of doomed) {
          if (!record || !['revoked', 'expired'].includes(keyStatus(record, at))) continue
          const now = await inner.find({ id: record.id })
          if (now) await inner.update(now.id, now.version, { revokedAt: at, updatedAt: at })
          count += await inner.purge([record.id], at)
        }
        return count
      },
    })),
    'purge: removes no key that gets more time meanwhile',
  ],
  [
    'purge returns how many it was asked for',
    broken((inner) => ({ purge: (ids, at) => inner.purge(ids, at).then(() => ids.length) })),
    'purge: counts each key once, and ignores unknown ids',
  ],
  [
    'purge removes all that has ended',
    broken((inner) => ({
      purge: async (_ids, at) =>
        inner.purge(
          (await everything(inner)).map(({ id }) => id),
          at,
        ),
    })),
    'purge: removes only the given keys, and frees the id and the lookup',
  ],
  [
    'purge goes by the clock of the machine',
    broken((inner) => ({ purge: (ids) => inner.purge(ids, new Date(8.64e15)) })),
    'purge: removes keys that are revoked or expired at that moment, and no living key',
  ],
  [
    'purge keeps the lookup taken',
    broken((inner) => {
      const taken = new Set<string>()
      return {
        async insert(records) {
          if (records.some(({ lookup }) => taken.has(lookup))) throw new LatchkeyError('duplicate_key')
          await inner.insert(records)
          for (const { lookup } of records) taken.add(lookup)
        },
      }
    }),
    'purge: removes only the given keys, and frees the id and the lookup',
  ],
  [
    'recordUsage sets instead of adding',
    broken((inner) => {
      const counts = new Map<string, number>()
      return {
        async recordUsage(batch) {
          await inner.recordUsage(batch)
          for (const { id, count } of batch) counts.set(id, count)
        },
        async find(by) {
          const found = await inner.find(by)
          return found && { ...found, usageCount: counts.get(found.id) ?? found.usageCount }
        },
      }
    }),
    'recordUsage: adds counts, batch by batch and within one',
  ],
  [
    'recordUsage takes a key twice in a batch for one',
    broken((inner) => ({
      recordUsage: (batch) =>
        inner.recordUsage([...new Map(batch.map((delta) => [delta.id, delta])).values()]),
    })),
    'recordUsage: adds counts, batch by batch and within one',
  ],
  [
    'recordUsage fails for a key that is gone',
    broken((inner) => ({
      async recordUsage(batch) {
        for (const delta of batch) {
          if (!(await inner.find({ id: delta.id }))) throw new Error('no such row')
          await inner.recordUsage([delta])
        }
      },
    })),
    'recordUsage: ignores keys that are gone',
  ],
  [
    'recordUsage raises the version',
    broken((inner) => ({
      async recordUsage(batch) {
        await inner.recordUsage(batch)
        for (const { id, lastUsedAt } of batch) {
          const record = await inner.find({ id })
          if (record) await inner.update(id, record.version, { updatedAt: lastUsedAt })
        }
      },
    })),
    'recordUsage: touches neither the version nor the time of the last change',
  ],
  [
    'recordUsage takes the last use for the latest',
    broken((inner) => usageOverlay(inner, (_kept, use) => ({ at: use.lastUsedAt, ip: use.lastUsedIp }))),
    'recordUsage: adds counts, batch by batch and within one',
  ],
  [
    'recordUsage keeps an address that belongs to another use',
    broken((inner) =>
      usageOverlay(inner, (kept, use) => ({
        at: kept.at && kept.at > use.lastUsedAt ? kept.at : use.lastUsedAt,
        ip: use.lastUsedIp ?? kept.ip,
      })),
    ),
    'recordUsage: keeps the latest use together with its own address',
  ],
  [
    'forget clears nothing',
    broken((inner) => ({
      forget: (id, version, { updatedAt }) => inner.update(id, version, { updatedAt }),
    })),
    'forget: clears the given members, raises the version by one and leaves the rest',
  ],
  [
    'forget clears more than it is given',
    broken((inner) => ({
      forget: (id, version, forgetting) =>
        inner.forget(id, version, { ...forgetting, revokedBy: null, lastUsedIp: null }),
    })),
    'forget: clears the given members, raises the version by one and leaves the rest',
  ],
  [
    'forget reads, then writes',
    broken((inner) => ({
      async forget(id, version, forgetting) {
        const before = await inner.find({ id })
        if (before?.version !== version) return before ? 'conflict' : 'missing'
        await pause()
        const now = (await inner.find({ id })) as KeyRecord
        return inner.forget(id, now.version, forgetting)
      },
    })),
    'forget: is one compare-and-swap, like a change: neither undoes the other',
  ],
  [
    'a list by createdBy still has what was forgotten',
    broken((inner) => {
      const creators = new Map<string, string>()
      return {
        async forget(id, version, forgetting) {
          const before = await inner.find({ id })
          if (before?.createdBy) creators.set(id, before.createdBy)
          return inner.forget(id, version, forgetting)
        },
        async list({ createdBy, ...filter }, { limit }) {
          const all = await inner.list(filter, ALL)
          const creatorOf = (record: KeyRecord) => record.createdBy ?? creators.get(record.id)
          return all
            .filter((record) => createdBy === undefined || creatorOf(record) === createdBy)
            .slice(0, limit)
        },
      }
    }),
    'forget: no longer lists the key by its issuer, and lists it by everything else as before',
  ],
  [
    'forget changes a key of another version',
    broken((inner) => ({
      async forget(id, version, forgetting) {
        const record = await inner.find({ id })
        return inner.forget(id, record?.version ?? version, forgetting)
      },
    })),
    'forget: changes nothing for an older version',
  ],
  [
    'forget writes the whole document back',
    broken((inner) => {
      const documents = new Map<string, KeyRecord>()
      return {
        async forget(id, version, forgetting) {
          const before = await inner.find({ id })
          await pause()
          const outcome = await inner.forget(id, version, forgetting)
          const now = await inner.find({ id })
          if (before && now) documents.set(id, { ...now, usageCount: before.usageCount })
          return outcome
        },
        async find(by) {
          const found = await inner.find(by)
          return found && (documents.get(found.id) ?? found)
        },
      }
    }),
    'forget: counts every concurrent use',
  ],
  [
    'recordUsage reads, then writes',
    broken((inner) => {
      const counts = new Map<string, number>()
      return {
        async recordUsage(batch) {
          await inner.recordUsage(batch)
          for (const { id, count } of batch) {
            const before = counts.get(id) ?? 0
            await pause()
            counts.set(id, before + count)
          }
        },
        async find(by) {
          const found = await inner.find(by)
          return found && { ...found, usageCount: counts.get(found.id) ?? found.usageCount }
        },
      }
    }),
    'recordUsage: adds the counts of 50 concurrent batches',
  ],
  [
    'recordUsage writes the whole document back',
    broken((inner) => {
      const documents = new Map<string, KeyRecord>()
      return {
        async recordUsage(batch) {
          const before = await Promise.all(batch.map(({ id }) => inner.find({ id })))
          await pause()
          await inner.recordUsage(batch)
          for (const record of before) {
            const now = record && (await inner.find({ id: record.id }))
            if (now)
              documents.set(now.id, { ...record, usageCount: now.usageCount, lastUsedAt: now.lastUsedAt })
          }
        },
        async find(by) {
          const found = await inner.find(by)
          return found && (documents.get(found.id) ?? found)
        },
      }
    }),
    'recordUsage: neither blocks a change nor undoes it',
  ],
  [
    'idleness counts from the creation alone',
    broken((inner) => ({
      async list({ status, ...filter }, { limit }) {
        const all = await inner.list(filter, ALL)
        const isRight = (record: KeyRecord) =>
          !status || keyStatus({ ...record, lastUsedAt: null }, status.at) === status.is
        return all.filter(isRight).slice(0, limit)
      },
    })),
    'recordUsage: makes list and purge respect idleness, to the millisecond',
  ],
  [
    'agree looks, then writes',
    broken((inner) => ({
      async agree(name, proposal) {
        const kept = await inner.agree(name, null)
        await pause()
        return proposal && kept === null ? inner.agree(name, { ...proposal, replace: true }) : kept
      },
    })),
    'agree: lets one of 50 concurrent calls win',
  ],
  [
    'agree lets the last win',
    broken((inner) => ({
      agree: (name, proposal) => inner.agree(name, proposal && { ...proposal, replace: true }),
    })),
    'agree: keeps the first proposal and returns it to every caller',
  ],
  [
    'agree answers the proposal, whatever is kept',
    broken((inner) => ({
      agree: async (name, proposal) => {
        const kept = await inner.agree(name, proposal)
        return proposal?.value ?? kept
      },
    })),
    'agree: keeps the first proposal and returns it to every caller',
  ],
  [
    'agree replaces nothing',
    broken((inner) => ({
      agree: (name, proposal) => inner.agree(name, proposal && { ...proposal, replace: false }),
    })),
    'agree: replaces the value with "replace"',
  ],
  [
    'agree ignores "expected"',
    broken((inner) => ({
      agree: (name, proposal) =>
        inner.agree(name, proposal && { value: proposal.value, replace: proposal.replace }),
    })),
    'agree: replaces with "expected" that value and no other',
  ],
  [
    'agree replaces with "expected" whatever is kept',
    broken((inner) => ({
      agree: (name, proposal) =>
        inner.agree(name, proposal && { ...proposal, replace: proposal.expected !== undefined }),
    })),
    'agree: replaces with "expected" that value and no other',
  ],
  [
    'agree compares with "expected", then writes',
    broken((inner) => ({
      async agree(name, proposal) {
        if (proposal?.expected === undefined) return inner.agree(name, proposal)
        const kept = await inner.agree(name, null)
        await pause()
        const isExpected = kept === null || kept === proposal.expected
        return isExpected ? inner.agree(name, { ...proposal, replace: true }) : kept
      },
    })),
    'agree: replaces with "expected" that value and no other',
  ],
  [
    'agree folds case',
    broken((inner) => ({ agree: (name, proposal) => inner.agree(name.toLowerCase(), proposal) })),
    'agree: compares names by code point, and keeps values as they are',
  ],
  [
    'agree keeps what is only looked for',
    broken((inner) => ({
      agree: async (name, proposal) => {
        const kept = await inner.agree(name, proposal)
        if (kept === null) await inner.agree(name, { value: '', replace: false })
        return kept
      },
    })),
    'agree: returns null if nothing is agreed on, and writes nothing without a proposal',
  ],
  [
    'agreements go with the last key',
    broken((inner) => {
      let isGone = false
      return {
        async purge(ids, at) {
          isGone = true
          return inner.purge(ids, at)
        },
        agree: async (name, proposal) => (isGone ? null : inner.agree(name, proposal)),
      }
    }),
    'agree: is separate from keys and outlives them',
  ],
  [
    'addUsage adds what comes again',
    broken((inner) => {
      let number = 0
      return {
        addUsage: (batch) => {
          number += 1
          return inner.addUsage({ ...batch, writer: 'w', number })
        },
      }
    }),
    'addUsage: adds one batch that comes 20 times at once a single time',
  ],
  [
    'addUsage forgets who has gone on',
    broken((inner) => {
      const last = new Map<string, number>()
      let round = 0
      return {
        addUsage: (batch) => {
          // Only the very same number counts as known.
          if (last.get(batch.writer) !== batch.number) round += 1
          const writer = `w${round}`
          last.set(batch.writer, batch.number)
          return inner.addUsage({ ...batch, writer })
        },
      }
    }),
    'addUsage: adds a batch once, and none of a writer that has gone on',
  ],
  [
    'addUsage counts permissions for owners',
    broken((inner) => ({
      readUsage: async (selection) =>
        inner.readUsage('owner' in selection.of ? { ...selection, of: { keyId: 'a' } } : selection),
    })),
    'addUsage: adds what is counted of keys to their owner, but no permissions',
  ],
  [
    'readUsage ends an hour late',
    broken((inner) => ({
      readUsage: (selection) => inner.readUsage({ ...selection, toHour: selection.toHour + 1 }),
    })),
    'addUsage: reads the hours that are asked for, and no others',
  ],
  [
    'readUsage shows what adds up to nothing',
    broken((inner) => ({
      async addUsage(batch) {
        await inner.addUsage({
          ...batch,
          counts: batch.counts.map((one) => ({ ...one, amount: Math.abs(one.amount) })),
        })
      },
    })),
    'addUsage: gives units back, and leaves out what adds up to nothing',
  ],
  [
    'addUsage fails for keys that are gone',
    broken((inner) => ({
      async addUsage(batch) {
        for (const { keyId } of batch.counts) if (!(await inner.find({ id: keyId }))) return
        await inner.addUsage(batch)
      },
    })),
    'addUsage: leaves out keys that are gone, and counts the others of a batch',
  ],
  [
    'removeUsage keeps owners',
    broken((inner) => ({ removeUsage: async (of) => ('owner' in of ? undefined : inner.removeUsage(of)) })),
    'addUsage: removes the counts of an owner, or those from before an hour',
  ],
  [
    'removeUsage keeps what is old',
    broken((inner) => ({ removeUsage: async (of) => ('owner' in of ? inner.removeUsage(of) : undefined) })),
    'addUsage: removes the counts of an owner, or those from before an hour',
  ],
  [
    'swapQuota reads, then writes',
    broken((inner) => ({
      async swapQuota(lineageId, expected, next) {
        const current = await quotaOf(inner, lineageId)
        if (!current || !isSame(current, expected)) return { swapped: false, current }
        await pause()
        return setQuota(inner, lineageId, next)
      },
    })),
    'swapQuota: moves units once, however often the same swap is sent',
  ],
  [
    'swapQuota adds what is to be moved to what it finds',
    broken((inner) => ({
      async swapQuota(lineageId, expected, next) {
        for (;;) {
          const current = await quotaOf(inner, lineageId)
          if (!current) return { swapped: false, current }
          const remaining = current.remaining + next.remaining - expected.remaining
          const allotted = current.allotted + next.allotted - expected.allotted
          const result = await inner.swapQuota(lineageId, current, { ...next, remaining, allotted })
          if (result.swapped) return result
        }
      },
    })),
    'swapQuota: moves units once, however often the same swap is sent',
  ],
  ['swapQuota ignores the epoch', swappingWhere('allotted', 'remaining'), LEFT_ALONE],
  ['swapQuota ignores what was allotted', swappingWhere('epoch', 'remaining'), LEFT_ALONE],
  ['swapQuota ignores what remains', swappingWhere('epoch', 'allotted'), LEFT_ALONE],
  [
    'swapQuota does not say what is there instead',
    answeringSwaps((result) => (result.swapped ? result : { swapped: false, current: null })),
    LEFT_ALONE,
  ],
  [
    'swapQuota answers what was there before',
    broken((inner) => {
      const before = new Map<string, QuotaRecord>()
      return {
        async swapQuota(lineageId, expected, next) {
          const result = await inner.swapQuota(lineageId, expected, next)
          if (result.swapped) before.set(lineageId, expected)
          return result.swapped ? result : { ...result, current: before.get(lineageId) ?? result.current }
        },
      }
    }),
    'swapQuota: moves units once, however often the same swap is sent',
  ],
  [
    'swapQuota remembers what it has answered',
    broken((inner) => {
      let answered: QuotaRecord | null = null
      return {
        async swapQuota(...args) {
          const result = await inner.swapQuota(...args)
          if (result.swapped) return result
          answered ??= result.current
          return { ...result, current: answered }
        },
      }
    }),
    LEFT_ALONE,
  ],
  [
    'swapQuota swaps, and says that it did not',
    broken((inner) => ({
      async swapQuota(lineageId, expected, next) {
        await inner.swapQuota(lineageId, expected, next)
        return { swapped: false, current: await quotaOf(inner, lineageId) }
      },
    })),
    'swapQuota: swaps the quota if it is as expected',
  ],
  [
    'swapQuota is a change of the key',
    broken((inner) => ({
      async swapQuota(lineageId, expected, next) {
        const result = await inner.swapQuota(lineageId, expected, next)
        const [key] = await inner.list({ lineageId }, { limit: 1 })
        if (key && result.swapped) await inner.update(key.id, key.version, { updatedAt: key.updatedAt })
        return result
      },
    })),
    'swapQuota: swaps the quota if it is as expected',
  ],
  [
    'swapQuota leaves the next refill as it was',
    broken((inner) => ({
      swapQuota: (lineageId, expected, { nextRefillAt: _, ...next }) =>
        inner.swapQuota(lineageId, expected, { ...next, nextRefillAt: expected.nextRefillAt }),
    })),
    'swapQuota: begins a new epoch by a swap, and makes no older swap after it',
  ],
  [
    'swapQuota takes a new epoch for the old one',
    broken((inner) => ({
      swapQuota: (lineageId, expected, next) =>
        inner.swapQuota(lineageId, expected, { ...next, epoch: expected.epoch }),
    })),
    'swapQuota: begins a new epoch by a swap, and makes no older swap after it',
  ],
  [
    'swapQuota swaps a quota that was removed',
    broken((inner) => {
      const removed = new Map<string, QuotaRecord>()
      return {
        async update(id, version, change) {
          const before = await inner.find({ id })
          const outcome = await inner.update(id, version, change)
          if (before?.quota && change.quota === null) removed.set(before.lineageId, before.quota)
          return outcome
        },
        async swapQuota(lineageId, expected, next) {
          const kept = removed.get(lineageId)
          if (!kept || !isSame(kept, expected)) return inner.swapQuota(lineageId, expected, next)
          removed.set(lineageId, next)
          return { swapped: true }
        },
      }
    }),
    'swapQuota: removes the quota by null, and keeps its epoch',
  ],
  [
    'swapQuota answers a quota that was removed',
    broken((inner) => {
      const removed = new Map<string, QuotaRecord>()
      return {
        async update(id, version, change) {
          const before = await inner.find({ id })
          const outcome = await inner.update(id, version, change)
          if (before?.quota && change.quota === null) removed.set(before.lineageId, before.quota)
          return outcome
        },
        async swapQuota(lineageId, expected, next) {
          const result = await inner.swapQuota(lineageId, expected, next)
          return result.swapped
            ? result
            : { ...result, current: result.current ?? removed.get(lineageId) ?? null }
        },
      }
    }),
    'swapQuota: removes the quota by null, and keeps its epoch',
  ],
  [
    'swapQuota takes the id of a key for its lineage',
    broken((inner) => ({
      async swapQuota(id, expected, next) {
        const record = await inner.find({ id })
        return record ? inner.swapQuota(record.lineageId, expected, next) : { swapped: false, current: null }
      },
    })),
    'swapQuota: swaps the quota if it is as expected',
  ],
  [
    'swapQuotas swaps all or none',
    broken((inner) => ({
      async swapQuotas(swaps) {
        const found = await Promise.all(swaps.map(({ lineageId }) => quotaOf(inner, lineageId)))
        const areExpected = swaps.every(({ expected }, i) => {
          const current = found[i]
          return current && isSame(current, expected)
        })
        if (areExpected) return inner.swapQuotas(swaps)
        return found.map((current) => ({ swapped: false, current: current ?? null }))
      },
    })),
    TOGETHER,
  ],
  [
    'swapQuotas stops at the first that it cannot swap',
    broken((inner) => ({
      async swapQuotas(swaps) {
        const results: QuotaSwapResult[] = []
        for (const { lineageId, expected, next } of swaps) {
          if (results.some(({ swapped }) => !swapped)) {
            results.push({ swapped: false, current: await quotaOf(inner, lineageId) })
          } else results.push(await inner.swapQuota(lineageId, expected, next))
        }
        return results
      },
    })),
    TOGETHER,
  ],
  [
    'swapQuotas answers in an order of its own',
    broken((inner) => ({
      swapQuotas: (swaps) => inner.swapQuotas(swaps.toSorted((a, b) => (a.lineageId < b.lineageId ? -1 : 1))),
    })),
    TOGETHER,
  ],
  [
    'swapQuotas leaves out what it has not swapped',
    broken((inner) => ({
      swapQuotas: async (swaps) => (await inner.swapQuotas(swaps)).filter(({ swapped }) => swapped),
    })),
    TOGETHER,
  ],
  [
    'swapQuotas reads, then writes',
    broken((inner) => ({
      async swapQuotas(swaps) {
        const found = await Promise.all(swaps.map(({ lineageId }) => quotaOf(inner, lineageId)))
        await pause()
        return Promise.all(
          swaps.map(async ({ lineageId, expected, next }, i) => {
            const current = found[i]
            if (!current || !isSame(current, expected)) return { swapped: false, current: current ?? null }
            return setQuota(inner, lineageId, next)
          }),
        )
      },
    })),
    'swapQuota: swaps concurrent batches, in any order',
  ],
  [
    'a successor brings its own quota',
    broken((inner) => ({
      async insert(records) {
        await inner.insert(records)
        for (const { id, version, quota, updatedAt } of records) {
          if (quota) await inner.update(id, version, { quota: { remaining: quota.remaining }, updatedAt })
        }
      },
    })),
    'swapQuota: keeps one quota for all keys of a lineage: a successor joins it',
  ],
  [
    'the quota is set though the change loses',
    broken((inner) => ({
      async update(id, version, change) {
        const record = await inner.find({ id })
        if (record && record.version !== version && change.quota) {
          await inner.update(id, record.version, { quota: change.quota, updatedAt: change.updatedAt })
        }
        return inner.update(id, version, change)
      },
    })),
    'swapQuota: keeps the quota when a change loses its race or cannot be stored',
  ],
  [
    'a new epoch begins where the last quota was forgotten',
    broken((inner) => {
      const offsets = new Map<string, number>()
      const shift = (record: KeyRecord | null): KeyRecord | null =>
        record?.quota
          ? {
              ...record,
              quota: { ...record.quota, epoch: offsets.get(record.lineageId) ?? record.quota.epoch },
            }
          : record
      return {
        async update(id, version, change) {
          const before = await inner.find({ id })
          const outcome = await inner.update(id, version, change)
          if (before && !before.quota && change.quota) {
            offsets.set(before.lineageId, change.updatedAt.getTime())
          }
          return outcome
        },
        find: async (by) => shift(await inner.find(by)),
      }
    }),
    'swapQuota: removes the quota by null, and keeps its epoch',
  ],
  [
    'the quota goes with the first key of its lineage that is purged',
    broken((inner) => ({
      async purge(ids, at) {
        const purged = await Promise.all(ids.map((id) => inner.find({ id })))
        const count = await inner.purge(ids, at)
        for (const record of purged) {
          const [relative] = await inner.list({ lineageId: record?.lineageId ?? '' }, { limit: 1 })
          if (relative && count > 0)
            await inner.update(relative.id, relative.version, { quota: null, updatedAt: at })
        }
        return count
      },
    })),
    'swapQuota: keeps the quota as long as one key of its lineage is left',
  ],
  [
    'methods fail when many call at once',
    broken((inner) => {
      let isBusy = false
      return {
        async update(...args) {
          if (isBusy) throw new Error('database is locked')
          isBusy = true
          await pause()
          isBusy = false
          return inner.update(...args)
        },
      }
    }),
    'update: lets one of 50 concurrent calls win, version after version',
  ],
]

describe('the kit', () => {
  it('passes a store that is well, and one that takes its time', async () => {
    const slow = () => {
      const inner = memoryStore() as FullStore
      const inTurn = onlyOneAtATime()
      const methods = Object.entries(inner).map(([name, method]) => {
        const call = (...args: unknown[]) =>
          inTurn(async () => {
            await pause()
            return (method as (...args: unknown[]) => Promise<unknown>)(...args)
          })
        return [name, call]
      })
      return Object.fromEntries(methods) as KeyStore
    }
    expect((await runKit(memoryStore)).failures).toEqual(new Map())
    expect((await runKit(slow)).failures).toEqual(new Map())
  })

  it.each(FAULTS)('notices that %s', async (_fault, makeStore, title) => {
    const { titles, failures } = await runKit(makeStore, {}, title)
    expect(titles).toContain(title)
    expect([...failures.keys()]).toEqual([title])
  })

  it('says what the port promises where it fails', async () => {
    const { failures } = await runKit(
      broken((inner) => ({ purge: (ids, at) => inner.purge(ids, at).then(() => 0) })),
    )
    const [message] = failures.values()
    expect(message).toContain('purge removes what still is revoked or expired at')
  })

  it('makes a store for each case, and closes each, that of a case that fails too', async () => {
    const [made, closed] = [[] as KeyStore[], [] as KeyStore[]]
    const makeStore = async () => {
      const store = broken((inner) => ({ purge: (ids, at) => inner.purge(ids, at).then(() => 0) }))()
      made.push(store)
      return { store, close: async () => void closed.push(store) }
    }
    const { titles, failures } = await runKit(makeStore)
    expect(failures.size).toBeGreaterThan(0)
    expect(new Set(made).size).toBe(titles.length)
    expect(closed).toEqual(made)
  })

  it('takes a store that is an instance of a class, and has a member named store', async () => {
    class Wrapper {
      readonly store = memoryStore() as FullStore
      insert = (...args: Parameters<FullStore['insert']>) => this.store.insert(...args)
      find = (...args: Parameters<FullStore['find']>) => this.store.find(...args)
      update = (...args: Parameters<FullStore['update']>) => this.store.update(...args)
      replaceDigest = (...args: Parameters<FullStore['replaceDigest']>) => this.store.replaceDigest(...args)
      list = (...args: Parameters<FullStore['list']>) => this.store.list(...args)
      purge = (...args: Parameters<FullStore['purge']>) => this.store.purge(...args)
      forget = (...args: Parameters<FullStore['forget']>) => this.store.forget(...args)
      recordUsage = (...args: Parameters<FullStore['recordUsage']>) => this.store.recordUsage(...args)
      swapQuota = (...args: Parameters<FullStore['swapQuota']>) => this.store.swapQuota(...args)
      agree = (...args: Parameters<FullStore['agree']>) => this.store.agree(...args)
      addUsage = (...args: Parameters<FullStore['addUsage']>) => this.store.addUsage(...args)
      readUsage = (...args: Parameters<FullStore['readUsage']>) => this.store.readUsage(...args)
      removeUsage = (...args: Parameters<FullStore['removeUsage']>) => this.store.removeUsage(...args)
    }
    expect((await runKit(() => new Wrapper())).failures).toEqual(new Map())
  })

  it('leaves out the cases of what a store does without, and says so by name', async () => {
    const bare = () => {
      const {
        forget: _forget,
        recordUsage: _usage,
        swapQuota: _quota,
        agree: _agree,
        addUsage: _add,
        readUsage: _read,
        removeUsage: _remove,
        ...store
      } = memoryStore() as FullStore
      return store
    }
    const { titles, failures } = await runKit(bare, {
      without: ['forget', 'recordUsage', 'swapQuota', 'addUsage', 'agree'],
    })
    expect(failures).toEqual(new Map())
    expect(titles.filter((title) => /forget|usage|quota|agree/i.test(title))).toEqual([
      'without forget: createApiKeys refuses "erase" as unsupported',
      'without recordUsage: createApiKeys refuses "idleExpiryMs" as unsupported',
      'without swapQuota: createApiKeys refuses "quota" as unsupported',
      'without addUsage: createApiKeys verifies uncounted, and refuses "usage" as unsupported',
      'without agree: createApiKeys verifies unchecked, and refuses "acceptConfiguration" as unsupported',
    ])
    const all = await runKit(memoryStore)
    expect(titles.length).toBeLessThan(all.titles.length)
  })

  it.each(['forget', 'recordUsage', 'swapQuota', 'addUsage', 'agree'] as const)(
    'fails a store that lacks %s unsaid',
    async (method) => {
      const { titles, failures } = await runKit(broken(() => ({ [method]: undefined })))
      expect(failures.size).toBe(titles.length)
      expect([...failures.values()][0]).toContain(`without: ['${method}']`)
    },
  )

  it('fails a store that has what it is said to do without, or lacks what is not optional', async () => {
    const had = await runKit(memoryStore, { without: ['recordUsage'] })
    expect([...had.failures.values()][0]).toContain('take it out of "without"')
    const lacking = await runKit(broken(() => ({ purge: undefined as never })))
    expect([...lacking.failures.values()][0]).toContain('a store must have the method "purge"')
  })

  it.each([
    ['no options', undefined, '"options" must be an object'],
    ['an unknown option', { test: it, assert, witout: [] }, 'did you mean "without"?'],
    ['no test', { assert }, '"test" must be a function'],
    [
      'an assert that lacks what is used',
      { test: it, assert: { ok() {} } },
      '"assert" must have a method "strictEqual"',
    ],
    ['a method that every store needs', { test: it, assert, without: ['find'] }, '"without" may name'],
    [
      'a method that no store needs',
      { test: it, assert, without: ['count'] },
      'No store needs "count" and "swapQuotas"',
    ],
  ])('refuses %s', (_what, options, message) => {
    expect(() => storeConformance(options as never, memoryStore)).toThrow(message)
  })

  it('refuses to run without a store', () => {
    expect(() => storeConformance({ test: it, assert }, undefined as never)).toThrow(
      '"makeStore" must be a function',
    )
  })

  it('runs under node:test, in the same three lines', async () => {
    const program = startProgram([
      '--input-type=module',
      '--eval',
      `import assert from 'node:assert/strict'
       import { test } from 'node:test'
       import { memoryStore } from 'latchkey'
       import { storeConformance } from 'latchkey/testing'
       storeConformance({ test, assert }, memoryStore)`,
    ])
    expect(await program.ended()).toBe(0)
    const { titles } = await runKit(memoryStore)
    expect(program.stdout).toContain(`pass ${titles.length}\n`)
    expect(program.stdout).toContain('fail 0\n')
  })
})
