import type { KeyRecord } from '../core/keys/record.ts'
import { isDate } from '../internal/any-realm.ts'
import { at, keyRecord } from './key-records.ts'
import { quote, type StoreCases } from './store-test.ts'
import { DISTINCT_TEXTS } from './texts.ts'

export const VALUE_CASES: StoreCases = {
  'keeps every member of a record': async ({ store, list, find, same }) => {
    const [full, bare] = [
      fullRecord(),
      keyRecord({ id: 'bare', allowedIps: null, permissions: {}, metadata: {} }),
    ]
    await store.insert([full, bare])
    for (const record of [full, bare]) {
      same(await find(record.id), record, 'find returns what was inserted, member by member')
      same(
        await store.find({ lookups: [record.lookup] }),
        await store.find({ id: record.id }),
        'by lookup too',
      )
    }
    same(await list(), [bare, full], 'list returns what was inserted, member by member')
  },

  'copies what it is given': async ({ store, find, same }) => {
    const given = fullRecord()
    await store.insert([given])
    vandalise(given)
    same(
      await find('full'),
      fullRecord(),
      'a store keeps copies: what a caller does later changes nothing in it',
    )
    const change = {
      permissions: { a: ['x'] },
      metadata: { a: { b: 1 } },
      expiresAt: at(9),
      updatedAt: at(7),
    }
    await store.update('full', 4, change)
    const before = await find('full')
    vandalise(change)
    same(
      await find('full'),
      before,
      'a store keeps copies: what a caller does with a change later is its own',
    )
  },

  'returns copies': async ({ store, list, find, same }) => {
    await store.insert([fullRecord()])
    const answers = [
      await store.find({ id: 'full' }),
      await store.find({ lookups: ['lookup of full'] }),
      ...(await store.list({}, { limit: 1 })),
    ]
    for (const answer of answers) vandalise(answer as KeyRecord)
    const promise = 'a store hands out copies: what a caller does with an answer changes nothing in it'
    same(await find('full'), fullRecord(), promise)
    same(await list(), [fullRecord()], promise)
  },

  'keeps every text unchanged': async ({ store, find, ids, same }) => {
    for (const [i, text] of DISTINCT_TEXTS.entries()) {
      const record = keyRecord({
        id: `${i}`,
        lookup: `format:${text}`,
        lineageId: text,
        name: text,
        owner: { type: text, id: text },
        createdBy: text,
        hint: text,
        permissions: { [text]: [text, '*'] },
        allowedIps: [text],
        revokedReason: text,
        metadata: { [text]: text },
      })
      await store.insert([record])
      same(await find(`${i}`), record, `a store keeps every text as it is: ${quote(text)}`)
      same(await ids({ name: text }), [`${i}`], `list finds it by name: ${quote(text)}`)
    }
  },

  'keeps texts of the greatest length': async ({ store, find, ids, same }) => {
    // By UTF-16 units, as the core counts; some of them take three bytes each, some pairs four.
    for (const [id, unit] of Object.entries({ ascii: 'x', euro: '\u20ac', emoji: '\u{1f511}' })) {
      const long = (length: number) => unit.repeat(Math.floor(length / unit.length))
      const record = keyRecord({
        id,
        lookup: `format:${'x'.repeat(150)}:${id}`,
        name: long(255),
        owner: { type: long(64), id: long(255) },
        createdBy: long(255),
        revokedAt: at(0),
        revokedBy: long(255),
        revokedReason: long(1_000),
      })
      await store.insert([record])
      same(await find(id), record, `a store keeps names of 255 characters and reasons of 1,000 (${id})`)
      const { owner } = record
      same(await ids({ owners: [owner] }), [id], `list finds it by an owner of 255 characters (${id})`)
    }
  },

  'keeps metadata unchanged': async ({ store, find, list, same }) => {
    const metadata = {
      texts: ['', ' ', 'Zo\u00eb', '\u{1f511}', 'e\u0301', '\u2028', '"\\', '%s {0} $1 {x} ?', '2026-01-15'],
      // Legal in JSON, and refused by some columns for it.
      oddTexts: ['\0', 'a\0b', '\ud800', '\udfff\ud800'],
      '\0': 'a name',
      numbers: [0, 0.1, -1.5e-7, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER, Number.MAX_VALUE],
      others: [null, true, false, [], {}, [[]], '1', 'true', 'null'],
      expiresAt: '2026-01-15T12:00:00.000Z',
      createdAt: 0,
      nested: nest(60),
    }
    const record = keyRecord({ id: 'a', metadata })
    await store.insert([record])
    same(await find('a'), record, 'metadata is what it was: no text turns into a date, no number into a text')
    await store.update('a', 1, { metadata: { again: metadata }, updatedAt: at(1) })
    const changed = { ...record, metadata: { again: metadata }, updatedAt: at(1), version: 2 }
    same(await list(), [changed], 'metadata is replaced as a whole, and is what it was')
  },

  'keeps 100 kB of metadata': async ({ store, read, list, same, holds }) => {
    const metadata = (unit: string) => ({
      text: unit.repeat(100_000),
      list: Array.from({ length: 999 }, (_, i) => i),
    })
    await store.insert([keyRecord({ id: 'a', metadata: metadata('x') }), keyRecord({ id: 'b' })])
    const [kept] = await list()
    holds(kept?.metadata.text === 'x'.repeat(100_000), 'a store keeps 100 kB of metadata, whole')
    // As many characters, three times as many bytes.
    await store.update('a', 1, { metadata: metadata('\u20ac'), updatedAt: at(1) })
    const { text, list: numbers } = (await read('a')).metadata
    holds(text === '\u20ac'.repeat(100_000), 'a store keeps 100,000 characters, whole')
    same(numbers, metadata('').list, 'metadata is whole')
  },

  'keeps names that every object has': async ({ store, find, same }) => {
    const permissions = JSON.parse('{"__proto__":["read"],"constructor":["read"],"toString":[]}')
    await store.insert([keyRecord({ id: 'a', permissions })])
    const found = Object.entries((await find('a'))?.permissions ?? {}).sort()
    same(found, Object.entries(permissions).sort(), 'resources may have any name, "__proto__" included')
  },

  'keeps numbers beyond 32 bits': async ({ store, find, same }) => {
    const large = { idleExpiryMs: 3_660 * 86_400_000, usageCount: Number.MAX_SAFE_INTEGER, version: 2 ** 40 }
    const rateLimits = [{ name: 'all', limit: 1_000_000_000, windowMs: 366 * 86_400_000 }]
    await store.insert([keyRecord({ id: 'a', ...large, rateLimits })])
    same(
      await find('a'),
      keyRecord({ id: 'a', ...large, rateLimits }),
      'numbers stay numbers, whole up to 2^53',
    )
    await store.update('a', 2 ** 40, { updatedAt: at(0) })
    same((await find('a'))?.version, 2 ** 40 + 1, 'a version may be of any size')
  },

  'keeps times to the millisecond, near and far': async ({ store, find, ids, same }) => {
    for (const [i, time] of TIMES.entries()) {
      const date = new Date(time)
      const record = keyRecord({
        id: `${i}`,
        createdAt: date,
        updatedAt: new Date(time),
        expiresAt: date,
        lastUsedAt: date,
        revokedAt: date,
      })
      await store.insert([record])
      same(await find(`${i}`), record, `times are kept to the millisecond, in UTC: ${date.toISOString()}`)
    }
    const expected = [...TIMES.keys()].sort((a, b) => (TIMES[a] as number) - (TIMES[b] as number)).map(String)
    same(await ids(), expected, 'list orders by time to the millisecond')
  },
}

/** No two are the same. */
const TIMES: readonly number[] = [
  at(0).getTime(),
  at(1).getTime(),
  at(999).getTime(),
  at(123).getTime(),
  0,
  1,
  999,
  // One second beyond 32 bits.
  2 ** 31 * 1_000,
  2 ** 32 * 1_000 + 7,
  Date.UTC(9999, 11, 31, 23, 59, 59, 999),
  Date.UTC(2028, 1, 29, 23, 59, 59, 999),
  // By the clocks of Berlin and New York each pair is the same hour, or an hour that is none.
  Date.UTC(2026, 9, 25, 0, 30),
  Date.UTC(2026, 9, 25, 1, 30),
  Date.UTC(2026, 10, 1, 5, 30),
  Date.UTC(2026, 10, 1, 6, 30),
  Date.UTC(2026, 2, 29, 1, 30),
  Date.UTC(2026, 2, 29, 2, 30),
]

function fullRecord(): KeyRecord {
  return keyRecord({
    id: 'full',
    lookup: 'lookup of full',
    lineageId: 'lineage',
    createdBy: 'admin',
    permissions: { projects: ['read', 'write'], '*': ['*'] },
    enabled: false,
    rateLimits: [
      { name: 'm', limit: 1, windowMs: 1_000, burst: 2 },
      { name: 'd', limit: 9, per: 'day', timeZone: 'Asia/Tokyo' },
    ],
    allowedIps: ['192.0.2.0/24', '2001:db8::/32'],
    createdAt: at(1),
    updatedAt: at(2),
    expiresAt: at(3),
    idleExpiryMs: 60_000,
    usageCount: 7,
    lastUsedAt: at(4),
    lastUsedIp: '2001:db8::1',
    revokedAt: at(5),
    revokedBy: 'someone',
    revokedReason: 'leaked',
    rotatedFrom: 'before',
    rotatedTo: 'after',
    version: 4,
  })
}

/** Changes everything that can be reached in it. */
export function vandalise(value: object): void {
  for (const member of Object.values(value)) {
    if (isDate(member)) member.setTime(0)
    else if (typeof member === 'object' && member !== null) vandalise(member)
  }
  if (Object.isFrozen(value) || isDate(value)) return
  if (Array.isArray(value)) value.push('vandal')
  else Object.assign(value, { vandal: true, name: 'vandal', id: 'vandal' })
}

function nest(levels: number): object {
  return levels === 0 ? {} : { a: nest(levels - 1) }
}
