import {
  type KeyChange,
  type KeyFilter,
  type KeyPosition,
  type KeyRecord,
  type KeyStore,
  type QuotaRecord,
  startQuota,
} from 'latchkey'
import { beforeEach, describe, expect, it } from 'vitest'

const T0 = Date.UTC(2026, 0, 15, 12)
/** So many milliseconds into the cases. */
export const at = (ms: number) => new Date(T0 + ms)
export const quota = (remaining: number, everyMs?: number): QuotaRecord =>
  startQuota({ remaining, refill: everyMs ? { amount: remaining, everyMs } : null }, null, at(0))

/** A record; what is not given is that of a plain active key, with `id` as its lookup and lineage. */
export function record(given: Partial<KeyRecord> & { id: string }): KeyRecord {
  return {
    lookup: given.id,
    digest: `$sha256$${given.id}`,
    lineageId: given.id,
    name: 'CI',
    prefix: 'acme',
    hint: `acme_${given.id}`,
    owner: { type: 'user', id: 'u_1' },
    createdBy: null,
    permissions: { projects: ['read'] },
    metadata: { team: { name: 'blue' } },
    enabled: true,
    rateLimits: null,
    quota: null,
    allowedIps: ['192.0.2.0/24'],
    createdAt: at(0),
    updatedAt: at(0),
    expiresAt: null,
    idleExpiryMs: null,
    usageCount: 0,
    lastUsedAt: null,
    lastUsedIp: null,
    revokedAt: null,
    revokedBy: null,
    revokedReason: null,
    rotatedFrom: null,
    rotatedTo: null,
    version: 1,
    ...given,
  }
}

/** What every store must do. `createStore` makes an empty one for each test. */
export function describeKeyStore(createStore: () => Required<KeyStore> | Promise<Required<KeyStore>>): void {
  let store: Required<KeyStore>
  beforeEach(async () => {
    store = await createStore()
  })

  const find = (id: string) => store.find({ id })
  const idsOf = (records: readonly KeyRecord[]) => records.map(({ id }) => id)
  const list = async (filter: KeyFilter = {}) => idsOf(await store.list(filter, { limit: 100 }))

  describe('insert', () => {
    it.each([
      ['an id that exists', [record({ id: 'new' }), record({ id: 'old', lookup: 'other' })]],
      ['a lookup that exists', [record({ id: 'new' }), record({ id: 'other', lookup: 'old' })]],
      ['an id twice in the batch', [record({ id: 'new' }), record({ id: 'new', lookup: 'other' })]],
      ['a lookup twice in the batch', [record({ id: 'new' }), record({ id: 'other', lookup: 'new' })]],
    ])('adds none of the records where there is %s', async (_what, batch) => {
      await store.insert([record({ id: 'old', name: 'first' })])
      await expect(store.insert(batch)).rejects.toMatchObject({ code: 'duplicate_key', status: 409 })
      expect(await list()).toEqual(['old'])
      expect(await store.find({ lookups: ['new', 'other'] })).toBeNull()
      expect(await find('old')).toMatchObject({ name: 'first' })
    })

    it('adds none of the records where one cannot be kept', async () => {
      const metadata = {
        get unreadable() {
          throw new Error('unreadable')
        },
      }
      const broken = record({ id: 'b', metadata })
      await expect(store.insert([record({ id: 'a', quota: quota(5) }), broken])).rejects.toThrow('unreadable')
      expect(await list()).toEqual([])
      await store.insert([record({ id: 'a' })])
      expect(await find('a')).toMatchObject({ quota: null })
    })

    it('adds all of them, or nothing for an empty batch', async () => {
      await store.insert([])
      await store.insert([record({ id: 'a' }), record({ id: 'b' })])
      expect(await list()).toEqual(['a', 'b'])
    })

    it('lets one of many win that insert the same key at once', async () => {
      const attempts = Array.from({ length: 20 }, (_, i) => store.insert([record({ id: 'a', name: `${i}` })]))
      const outcomes = await Promise.allSettled(attempts)
      expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
      const winner = outcomes.findIndex(({ status }) => status === 'fulfilled')
      expect(await find('a')).toMatchObject({ name: `${winner}` })
    })
  })

  describe('find', () => {
    it.each([
      [{ id: 'b' }],
      [{ id: 'lookup of a' }],
      [{ id: '__proto__' }],
      [{ lookups: ['a'] }],
      [{ lookups: [] }],
      [{ lookups: ['constructor'] }],
    ])('answers null for %j', async (by) => {
      await store.insert([record({ id: 'a', lookup: 'lookup of a' })])
      expect(await store.find(by)).toBeNull()
    })

    it('finds by id, and by any of several lookups', async () => {
      const stored = record({ id: 'a', lookup: 'lookup of a' })
      await store.insert([stored])
      expect(await store.find({ id: 'a' })).toEqual(stored)
      expect(await store.find({ lookups: ['x', 'lookup of a', 'y'] })).toEqual(stored)
    })
  })

  describe('what goes in and out', () => {
    /** Changes everything that can be reached in a record. */
    function vandalise(value: object) {
      for (const member of Object.values(value)) {
        if (member instanceof Date) member.setTime(0)
        else if (typeof member === 'object' && member !== null) vandalise(member)
      }
      if (Array.isArray(value)) value.push('vandal')
      else if (!(value instanceof Date)) Object.assign(value, { vandal: true, name: 'vandal', id: 'vandal' })
    }
    const full = () =>
      record({
        id: 'a',
        expiresAt: at(1),
        lastUsedAt: at(0),
        quota: quota(5, 1_000),
        rateLimits: [{ name: 'm', limit: 1, windowMs: 1 }],
      })

    it('is copied, so that nobody changes what is kept', async () => {
      const given = full()
      await store.insert([given])
      vandalise(given)
      expect(await find('a')).toEqual(full())
      for (const answer of [await find('a'), ...(await store.list({}, { limit: 1 }))])
        vandalise(answer as KeyRecord)
      expect(await find('a')).toEqual(full())
      expect(await store.list({}, { limit: 1 })).toEqual([full()])
    })

    it('is copied also by update, recordUsage and reserveQuota', async () => {
      await store.insert([full()])
      const change = {
        permissions: { a: ['x'] },
        expiresAt: at(9),
        updatedAt: at(7),
        quota: { remaining: 3, refill: { amount: 3, everyMs: 5_000 } },
      }
      await store.update('a', 1, change)
      const usage = { id: 'a', count: 1, lastUsedAt: at(8), lastUsedIp: null }
      await store.recordUsage([usage])
      const before = await find('a')
      vandalise(change)
      vandalise(usage)
      vandalise((await store.reserveQuota('a', 0, at(8))) as object)
      expect(await find('a')).toEqual(before)
      expect(before).toMatchObject({ permissions: { a: ['x'] }, updatedAt: at(7), lastUsedAt: at(8) })
    })

    it('keeps names that every object has', async () => {
      const permissions = JSON.parse('{"__proto__":["read"],"constructor":["read"]}')
      await store.insert([record({ id: 'a', permissions })])
      expect(Object.entries((await find('a'))?.permissions ?? {})).toEqual(Object.entries(permissions))
    })

    it('keeps every text, number and date as it is', async () => {
      const metadata = {
        texts: [
          '',
          ' ',
          'Zoë',
          '\u{1F511}',
          'e\u0301',
          '\ud800',
          '\0',
          '\u2028',
          '"\\',
          '%s {0} $1 {x}',
          'x'.repeat(9_999),
        ],
        numbers: [0, 0.1, -1.5e-7, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, Number.MAX_VALUE],
        others: [null, true, false, [], {}, [[]]],
        expiresAt: '2026-01-15T12:00:00.000Z',
        createdAt: 0,
      }
      const stored = record({
        id: '\u{1F511} of Zoë',
        owner: { type: 'organization', id: 'Ö\u{1F3E2}' },
        permissions: { '*': ['*'], 'a:b': ['x\ny'] },
        metadata,
        rateLimits: [],
        allowedIps: [],
        createdAt: new Date(1),
        updatedAt: at(123),
        expiresAt: new Date(Date.UTC(9999, 11, 31, 23, 59, 59, 999)),
        lastUsedAt: at(-1),
      })
      await store.insert([stored])
      expect(await find(stored.id)).toEqual(stored)
      expect(await store.list({ owner: stored.owner }, { limit: 1 })).toEqual([stored])
      await store.update(stored.id, 1, { metadata: { again: metadata }, updatedAt: at(456) })
      const changed = { metadata: { again: metadata }, updatedAt: at(456), version: 2 }
      expect(await find(stored.id)).toEqual({ ...stored, ...changed })
    })
  })

  describe('update', () => {
    beforeEach(() => store.insert([record({ id: 'a', version: 3 })]))

    it.each([
      ['a key nobody knows', 'b', 3, 'missing'],
      ['an older version', 'a', 2, 'conflict'],
      ['a version of the future', 'a', 4, 'conflict'],
    ])('changes nothing for %s', async (_what, id, version, outcome) => {
      const before = await find('a')
      expect(await store.update(id, version, { name: 'new', updatedAt: at(1) })).toBe(outcome)
      expect(await find('a')).toEqual(before)
    })

    it('changes what is given, raises the version by one and leaves the rest', async () => {
      const before = await find('a')
      const change: KeyChange = { name: 'new', enabled: false, rateLimits: [], updatedAt: at(5) }
      expect(await store.update('a', 3, change)).toBe('updated')
      expect(await find('a')).toEqual({ ...before, ...change, version: 4 })
    })

    it('raises the version where nothing is given but the time', async () => {
      expect(await store.update('a', 3, { updatedAt: at(5) })).toBe('updated')
      expect(await find('a')).toEqual({ ...record({ id: 'a' }), updatedAt: at(5), version: 4 })
    })

    it('lets one of many win', async () => {
      const outcomes = await Promise.all(
        Array.from({ length: 50 }, (_, i) => store.update('a', 3, { name: `${i}`, updatedAt: at(i) })),
      )
      expect(outcomes.filter((outcome) => outcome === 'updated')).toHaveLength(1)
      expect(await find('a')).toMatchObject({ name: `${outcomes.indexOf('updated')}`, version: 4 })
    })

    it('loses none of the changes that many make at once, each after reading the last', async () => {
      const allow = async (resource: string): Promise<number> => {
        const { version, permissions } = (await find('a')) as KeyRecord
        const change = { permissions: { ...permissions, [resource]: ['read'] }, updatedAt: at(1) }
        const outcome = await store.update('a', version, change)
        return outcome === 'updated' ? 1 : 1 + (await allow(resource))
      }
      const resources = Array.from({ length: 20 }, (_, i) => `r${i}`)
      const attempts = await Promise.all(resources.map(allow))
      const { version, permissions } = (await find('a')) as KeyRecord
      expect(version).toBe(3 + resources.length)
      expect(new Set(Object.keys(permissions))).toEqual(new Set(['projects', ...resources]))
      expect(Math.max(...attempts)).toBeGreaterThan(1)
    })

    it('never clears a revocation', async () => {
      await store.update('a', 3, {
        revokedAt: at(1),
        revokedBy: 'admin',
        revokedReason: 'leak',
        updatedAt: at(1),
      })
      await store.update('a', 4, { revokedAt: null, updatedAt: at(2) })
      expect(await find('a')).toMatchObject({ revokedAt: at(1), version: 5 })
    })

    it('takes null for what it is', async () => {
      await store.update('a', 3, { allowedIps: null, expiresAt: at(9), updatedAt: at(1) })
      await store.update('a', 4, { expiresAt: null, updatedAt: at(2) })
      expect(await find('a')).toMatchObject({ allowedIps: null, expiresAt: null })
    })
  })

  describe('replaceDigest', () => {
    beforeEach(() => store.insert([record({ id: 'a', digest: 'old' })]))

    it('answers false where the digest is another, or there is no key', async () => {
      expect(await store.replaceDigest('a', 'older', 'new')).toBe(false)
      expect(await store.replaceDigest('b', 'old', 'new')).toBe(false)
      expect(await find('a')).toMatchObject({ digest: 'old' })
    })

    it('replaces the digest and nothing else, once', async () => {
      const before = await find('a')
      const outcomes = await Promise.all(
        ['n1', 'n2', 'n3'].map((next) => store.replaceDigest('a', 'old', next)),
      )
      expect(outcomes.filter((outcome) => outcome)).toHaveLength(1)
      expect(await find('a')).toEqual({ ...before, digest: `n${outcomes.indexOf(true) + 1}` })
    })
  })

  describe('list', () => {
    /** All pages, with something done between one and the next. */
    async function pages(limit: number, between?: (page: number) => Promise<unknown>) {
      const seen: string[][] = []
      let after: KeyPosition | undefined
      for (;;) {
        const records = await store.list({}, { limit, ...(after && { after }) })
        const last = records.at(-1)
        if (!last) return seen
        seen.push(idsOf(records))
        after = last
        await between?.(seen.length)
      }
    }

    it('goes by creation, then by id, whatever the order of insertion', async () => {
      const inserted = [record({ id: 'b', createdAt: at(2) }), record({ id: 'z', createdAt: at(1) })]
      await store.insert([
        ...inserted,
        record({ id: 'a', createdAt: at(2) }),
        record({ id: 'B', createdAt: at(2) }),
      ])
      expect(await list()).toEqual(['z', 'B', 'a', 'b'])
      expect(await pages(1)).toEqual([['z'], ['B'], ['a'], ['b']])
      expect(await pages(3)).toEqual([['z', 'B', 'a'], ['b']])
    })

    it('shows every key once, with keys inserted and removed between the pages', async () => {
      await store.insert(Array.from({ length: 10 }, (_, i) => record({ id: `k${i}`, createdAt: at(i) })))
      const seen = await pages(3, async (page) => {
        if (page > 2) return
        await store.insert([
          record({ id: `before ${page}`, createdAt: at(-page) }),
          record({ id: `behind ${page}`, createdAt: at(100 + page) }),
        ])
        // The record that the next page begins behind is gone.
        await store.update(`k${page * 3 - 1}`, 1, { revokedAt: at(0), updatedAt: at(0) })
        await store.purge([`k${page * 3 - 1}`], at(0))
      })
      const expected = [...Array.from({ length: 10 }, (_, i) => `k${i}`), 'behind 1', 'behind 2']
      expect(seen.flat()).toEqual(expected)
    })

    const someone = { type: 'user', id: 'someone' }
    const filtered: [string, KeyFilter, string[]][] = [
      ['owner', { owner: someone }, ['mine', 'mine too']],
      ['owner of another type', { owner: { type: 'organization', id: 'someone' } }, []],
      ['creator', { createdBy: 'admin' }, ['mine too']],
      ['name', { name: 'nightly' }, ['mine']],
      ['everything at once', { owner: someone, createdBy: 'admin', name: 'CI' }, ['mine too']],
      ['nothing that is all of it', { createdBy: 'admin', name: 'nightly' }, []],
      ['active keys', { status: { is: 'active', at: at(100) } }, ['mine', 'mine too']],
      [
        'active keys, earlier',
        { status: { is: 'active', at: at(9) } },
        ['expired', 'idle', 'mine', 'mine too'],
      ],
      ['disabled keys', { status: { is: 'disabled', at: at(100) } }, ['disabled']],
      ['expired keys', { status: { is: 'expired', at: at(100) } }, ['expired', 'idle']],
      ['expired keys, at the moment they expire', { status: { is: 'expired', at: at(10) } }, ['expired']],
      ['revoked keys', { status: { is: 'revoked', at: at(100) } }, ['revoked', 'revoked and expired']],
      ['keys that ended before', { endedBefore: at(21) }, ['expired', 'idle', 'revoked and expired']],
      ['keys that ended before, to the millisecond', { endedBefore: at(10) }, ['revoked and expired']],
    ]
    it.each(filtered)('filters by %s', async (_what, filter, ids) => {
      await store.insert([
        record({ id: 'mine', owner: someone, name: 'nightly' }),
        record({ id: 'mine too', owner: someone, createdBy: 'admin' }),
        record({ id: 'disabled', enabled: false }),
        record({ id: 'expired', expiresAt: at(10) }),
        record({ id: 'idle', idleExpiryMs: 15, lastUsedAt: at(5) }),
        record({ id: 'revoked', revokedAt: at(50) }),
        record({ id: 'revoked and expired', revokedAt: at(50), expiresAt: at(5) }),
      ])
      expect(await list(filter)).toEqual(ids)
    })
  })

  describe('purge', () => {
    beforeEach(() =>
      store.insert([
        record({ id: 'active' }),
        record({ id: 'disabled', enabled: false }),
        record({ id: 'expired', expiresAt: at(10) }),
        record({ id: 'expires later', expiresAt: at(11) }),
        record({ id: 'idle', idleExpiryMs: 10 }),
        record({ id: 'used', idleExpiryMs: 10, lastUsedAt: at(5) }),
        record({ id: 'revoked', revokedAt: at(99) }),
      ]),
    )

    it('removes what is revoked or expired at the moment, and nothing else that it is asked for', async () => {
      const all = [...(await list()), 'nobody', 'expired']
      expect(await store.purge(all, at(10))).toBe(3)
      expect(await list()).toEqual(['active', 'disabled', 'expires later', 'used'])
      expect(await store.purge(all, at(10))).toBe(0)
      expect(await store.purge([], at(10))).toBe(0)
    })

    it('removes nothing that it is not asked for, and frees the lookup of what it removes', async () => {
      expect(await store.purge(['revoked'], at(10))).toBe(1)
      expect(await find('expired')).not.toBeNull()
      expect(await store.find({ lookups: ['revoked'] })).toBeNull()
      await store.insert([record({ id: 'revoked' })])
      expect(await store.find({ lookups: ['revoked'] })).toMatchObject({ revokedAt: null })
    })

    it('keeps a quota as long as one key of its lineage is left', async () => {
      await store.insert([
        record({ id: 'q1', lineageId: 'q', quota: quota(5), revokedAt: at(0) }),
        record({ id: 'q2', lineageId: 'q', revokedAt: at(0) }),
      ])
      await store.purge(['q1'], at(10))
      expect(await store.reserveQuota('q', 1, at(10))).toMatchObject({ granted: 1, remaining: 4 })
      await store.purge(['q2'], at(10))
      expect(await store.reserveQuota('q', 1, at(10))).toBeNull()
    })
  })

  describe('recordUsage', () => {
    beforeEach(() => store.insert([record({ id: 'a' }), record({ id: 'b' })]))
    const use = (id: string, count: number, ms: number, lastUsedIp: string | null = null) => ({
      id,
      count,
      lastUsedAt: at(ms),
      lastUsedIp,
    })

    it('adds counts, whatever the order, and passes by keys that are gone', async () => {
      await store.recordUsage([use('a', 2, 10), use('gone', 9, 10), use('b', 1, 1), use('a', 3, 5)])
      await store.recordUsage([use('a', 4, 1)])
      await store.recordUsage([])
      expect(await find('a')).toMatchObject({ usageCount: 9, lastUsedAt: at(10) })
      expect(await find('b')).toMatchObject({ usageCount: 1, lastUsedAt: at(1) })
      expect(await find('gone')).toBeNull()
    })

    it('keeps the latest use together with its own address', async () => {
      await store.recordUsage([use('a', 1, 10, '192.0.2.1')])
      await store.recordUsage([use('a', 1, 9, '192.0.2.2')])
      expect(await find('a')).toMatchObject({ lastUsedAt: at(10), lastUsedIp: '192.0.2.1' })
      await store.recordUsage([use('a', 1, 11, null)])
      expect(await find('a')).toMatchObject({ lastUsedAt: at(11), lastUsedIp: null })
    })

    it('touches neither the version nor the time of the last change', async () => {
      await store.recordUsage([use('a', 1, 10)])
      expect(await find('a')).toMatchObject({ version: 1, updatedAt: at(0) })
    })
  })

  describe('the quota of a lineage', () => {
    it('is null where there is none, and for a lineage nobody knows', async () => {
      await store.insert([record({ id: 'a' })])
      expect(await store.reserveQuota('a', 1, at(0))).toBeNull()
      expect(await store.reserveQuota('nobody', 1, at(0))).toBeNull()
      expect(await find('a')).toMatchObject({ quota: null })
    })

    it('is one for all its keys: a successor joins it and its own is ignored', async () => {
      await store.insert([record({ id: 'a', lineageId: 'l', quota: quota(10) })])
      await store.reserveQuota('l', 4, at(0))
      await store.insert([record({ id: 'b', lineageId: 'l', quota: quota(999) })])
      for (const id of ['a', 'b'])
        expect(await find(id)).toMatchObject({ quota: { remaining: 6, allotted: 4 } })
      expect((await store.list({}, { limit: 9 })).map((found) => found.quota?.remaining)).toEqual([6, 6])
    })

    it('is handed out to 50 at once without a unit too many, each due refill once', async () => {
      await store.insert([record({ id: 'a', quota: quota(200, 60_000) })])
      const reserveAll = async (ms: number) => {
        const all = await Promise.all(Array.from({ length: 50 }, () => store.reserveQuota('a', 7, at(ms))))
        return all.reduce((sum, reservation) => sum + (reservation?.granted ?? 0), 0)
      }
      expect(await reserveAll(0)).toBe(200)
      expect(await reserveAll(59_999)).toBe(0)
      // Three refills were due, which count as one.
      expect(await reserveAll(180_001)).toBe(200)
      expect((await find('a'))?.quota).toMatchObject({
        remaining: 0,
        allotted: 200,
        epoch: T0 + 1,
        nextRefillAt: at(240_000),
      })
    })

    it('is set anew, with a higher epoch, by a change of any of its keys; removed by null', async () => {
      await store.insert([
        record({ id: 'a', lineageId: 'l', quota: quota(10) }),
        record({ id: 'b', lineageId: 'l' }),
      ])
      await store.reserveQuota('l', 4, at(0))
      await store.update('b', 1, { quota: { remaining: 50 }, updatedAt: at(0) })
      expect((await find('a'))?.quota).toEqual(startQuota({ remaining: 50 }, quota(10), at(0)))
      await store.update('a', 1, { name: 'unrelated', updatedAt: at(1) })
      expect((await find('b'))?.quota).toMatchObject({ remaining: 50, epoch: T0 + 1 })
      await store.update('a', 2, { quota: null, updatedAt: at(2) })
      expect(await store.reserveQuota('l', 1, at(2))).toBeNull()
      expect(await find('b')).toMatchObject({ quota: null })
      await store.update('a', 3, { quota: { remaining: 5 }, updatedAt: at(2) })
      expect((await find('a'))?.quota?.epoch).toBeGreaterThan(T0 + 1)
    })

    it('is not touched by a change that loses its race', async () => {
      await store.insert([record({ id: 'a', quota: quota(10) })])
      expect(await store.update('a', 2, { quota: { remaining: 99 }, updatedAt: at(0) })).toBe('conflict')
      expect(await find('a')).toMatchObject({ quota: { remaining: 10 } })
    })
  })
}
