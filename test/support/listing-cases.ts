import { type ApiKeys, createApiKeys, type ListOptions, memoryRateLimiter } from 'latchkey'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Explained, nodesOf, rowsRead, rowsSorted } from './explained-store.ts'
import { fakeClock } from './fake-clock.ts'
import { at } from './key-records.ts'
import { KEYS_OF_AN_OWNER, type ManyKeys } from './many-keys.ts'

const PAGE = 20
/** One more tells whether there is a next page. */
const READ = PAGE + 1
/** What is asked for by time is not told by an index alone: every second key that may expire has. */
const READ_BY_STATUS = 5 * READ

const owner = { type: 'user', id: 'u7' }
const SOON = at(100_000_000_001)
const NOBODY = { type: 'user', id: 'nobody' }
/** The keys of each alternate with those of the others. */
const owners = ['u1', 'u2', 'u3', 'u4', 'u5'].map((id) => ({ type: 'user', id }))
const statuses = ['active', 'disabled', 'expired', 'revoked'] as const

/** Each list, how many rows of keys it may read, and by which of the indexes. */
const LISTS: readonly (readonly [what: string, options: ListOptions, rows: number, index: string])[] = [
  ['all', {}, READ, 'created'],
  ['an owner', { owner }, READ, 'owner'],
  ['one of several owners', { owners: [owner] }, READ, 'owner'],
  // A key is read from the index of its owner, and then by its id.
  ['several owners', { owners }, 2 * READ + owners.length, 'owner'],
  [
    '100 owners',
    { owners: Array.from({ length: 100 }, (_, i) => ({ type: 'user', id: `u${i}` })) },
    2 * READ + 100,
    'owner',
  ],
  ['several owners of whom one has keys', { owners: [owner, NOBODY] }, 2 * READ, 'owner'],
  ['active keys of several owners', { owners, status: 'active' }, owners.length * KEYS_OF_AN_OWNER, 'owner'],
  ['a creator', { createdBy: 'a33' }, READ, 'created_by'],
  ['a name', { name: 'name 7' }, READ, 'name'],
  ['active keys', { status: 'active' }, READ_BY_STATUS, 'is_active'],
  ['disabled keys', { status: 'disabled' }, READ_BY_STATUS, 'is_disabled'],
  ['expired keys', { status: 'expired' }, READ_BY_STATUS, 'may_expire'],
  ['revoked keys', { status: 'revoked' }, READ, 'revoked'],
  ['the newest', { order: 'newest' }, READ, 'created'],
  ['the newest of an owner', { owner, order: 'newest' }, READ, 'owner'],
  ['the newest of several owners', { owners, order: 'newest' }, 2 * READ + owners.length, 'owner'],
  ['the newest of a creator', { createdBy: 'a33', order: 'newest' }, READ, 'created_by'],
  ['the newest active keys', { status: 'active', order: 'newest' }, READ_BY_STATUS, 'is_active'],
  ['active keys that expire soon', { status: 'active', expiresBefore: SOON }, READ_BY_STATUS, 'may_expire'],
  [
    'the newest active keys that expire soon',
    { status: 'active', expiresBefore: SOON, order: 'newest' },
    READ_BY_STATUS,
    'may_expire',
  ],
  ...statuses.map(
    (status) => [`${status} keys of an owner`, { owner, status }, KEYS_OF_AN_OWNER, 'owner'] as const,
  ),
]

/** Lists pages of 20 of many keys, and looks how the database came by them. */
export function testListings(many: ManyKeys): void {
  const { count } = many
  let keys: ApiKeys

  beforeAll(() => {
    const clock = fakeClock(at(10_000_000_000).getTime())
    const rateLimiter = memoryRateLimiter({ clock })
    keys = createApiKeys({ store: many.store, rateLimiter, prefix: 'acme', clock })
  })
  afterAll(() => keys?.close())

  /** Lists, and what was asked of the database for it. */
  async function list(options: ListOptions) {
    many.explained.length = 0
    const page = await keys.list({ limit: PAGE, ...options })
    return { page, queries: [...many.explained] }
  }

  /** A place in the middle of all keys: a cursor is where a key stands in the one order of all. */
  async function middle({ order = 'oldest' }: ListOptions): Promise<string | undefined> {
    return (await keys.list({ owner, order, limit: KEYS_OF_AN_OWNER / 2 })).nextCursor
  }

  function expectBounded({ sql, plan }: Explained, rows: number, index: string): void {
    const nodes = nodesOf(plan)
    expect(nodes.filter((node) => node['Node Type'] === 'Seq Scan')).toEqual([])
    expect(rowsRead(plan, 'latchkey_keys'), sql).toBeLessThanOrEqual(rows)
    expect(rowsSorted(plan), sql).toBeLessThanOrEqual(READ)
    const used = nodes.flatMap(({ 'Index Name': name = 'quotas_pkey' }) =>
      name.endsWith('_pkey') ? [] : [name],
    )
    expect(used, sql).toContain(`latchkey_keys_${index}`)
  }

  it.each(LISTS)('finds the first page by one read of an index: %s', async (_what, options, rows, index) => {
    const { page, queries } = await list(options)
    expect(page.apiKeys.length).toBeGreaterThan(0)
    expect(queries).toHaveLength(1)
    for (const query of queries) expectBounded(query, rows, index)
  })

  it.each(LISTS)('finds a page in the middle likewise: %s', async (_what, options, rows, index) => {
    const { queries } = await list({ ...options, cursor: (await middle(options)) as string })
    expect(queries).toHaveLength(1)
    for (const query of queries) expectBounded(query, rows, index)
  })

  it.each(['oldest', 'newest'] as const)(
    'reads no more where a thousand keys were made in the same millisecond, the %s first',
    async (order) => {
      const [{ created } = {}] = await many.database.query(`
        update latchkey_keys set created_at_ms = 1868478400000, expires_at_ms = null, revoked_at_ms = null, enabled = true
        where id in (select 'k' || n from generate_series(${count - 999}, ${count}) as n) returning created_at_ms as created`)
      expect(created).toBe('1868478400000')
      const place = [1868478400000, `k${count - 500}`, ...(order === 'newest' ? [order] : [])]
      const cursor = Buffer.from(JSON.stringify(place)).toString('base64url')
      const { page, queries } = await list({ order, cursor })
      expect(page.apiKeys).toHaveLength(PAGE)
      for (const query of queries) expectBounded(query, READ, 'created')
    },
  )

  it('would show it here if a table was read from end to end, and sorted', async () => {
    const [row] = await many.database.query(
      `explain (analyze, format json) select * from latchkey_keys where hint like 'acme_%' order by hint`,
    )
    const answer = row as { 'QUERY PLAN': [{ Plan: Explained['plan'] }] }
    const plan = answer['QUERY PLAN'][0].Plan
    expect(nodesOf(plan).map((node) => node['Node Type'])).toContain('Seq Scan')
    expect(rowsRead(plan, 'latchkey_keys')).toBeGreaterThanOrEqual(count / 2)
    expect(rowsSorted(plan)).toBeGreaterThanOrEqual(count / 2)
  })
}
