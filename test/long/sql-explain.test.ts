import type { KeyFilter } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { nodesOf } from '../support/explained-store.ts'
import { at, leased, quota, record } from '../support/key-records.ts'
import { testListings } from '../support/listing-cases.ts'
import { withManyKeys } from '../support/many-keys.ts'

describe('PostgreSQL with 1,000,000 keys', () => {
  const many = withManyKeys(1_000_000)
  testListings(many)

  const owner = { type: 'user', id: 'u77' }
  const filters: [string, KeyFilter][] = [
    ['all', {}],
    ['an owner', { owners: [owner] }],
    ['several owners', { owners: [owner, { type: 'user', id: 'u78' }, { type: 'user', id: 'nobody' }] }],
    ['a creator', { createdBy: 'a33' }],
    ['a name', { name: 'name 5' }],
    ['a lineage', { lineageId: 'k777' }],
    ['active keys', { status: { is: 'active', at: at(0) } }],
    ['disabled keys', { status: { is: 'disabled', at: at(0) } }],
    ['expired keys', { status: { is: 'expired', at: at(50_000_000) } }],
    ['revoked keys', { status: { is: 'revoked', at: at(0) } }],
    ['keys that have ended', { endedBefore: at(50_000_000) }],
    ['active keys of an owner', { owners: [owner], status: { is: 'active', at: at(0) } }],
    ['ended keys of an owner', { owners: [owner], endedBefore: at(50_000_000) }],
    ['keys that expire', { expiresBefore: at(50_000_000) }],
    ['a name of an owner', { owners: [owner], name: 'name 77' }],
  ]
  const after = { createdAt: at(100_000), id: 'k200000' }
  const calls: [string, () => Promise<unknown>][] = [
    ['find by id', () => many.store.find({ id: 'k500' })],
    ['find by lookup', () => many.store.find({ lookups: ['l500'] })],
    ['find by several lookups', () => many.store.find({ lookups: ['x', 'y', 'l501'] })],
    ...filters.flatMap(([what, filter]): [string, () => Promise<unknown>][] => [
      [`list ${what}`, () => many.store.list(filter, { limit: 100 })],
      [`list ${what}, a later page`, () => many.store.list(filter, { limit: 100, after })],
      [`list ${what}, the newest first`, () => many.store.list(filter, { limit: 100, order: 'newest' })],
      [
        `list ${what}, the newest first, a later page`,
        () => many.store.list(filter, { limit: 100, after, order: 'newest' }),
      ],
    ]),
    ['count of owners', () => many.store.count({ owners: [owner, { type: 'user', id: 'u78' }] })],
    ['count of a creator', () => many.store.count({ createdBy: 'a33' })],
    ['insert', () => many.store.insert([1, 2, 3].map((n) => record({ id: `new ${n}`, quota: quota(1) })))],
    ['update', () => many.store.update('k1', 1, { name: 'new', updatedAt: at(0) })],
    ['update of a version that is gone', () => many.store.update('k1', 1, { name: 'new', updatedAt: at(0) })],
    ['update with a quota', () => many.store.update('k2', 1, { quota: { remaining: 5 }, updatedAt: at(0) })],
    ['update that removes a quota', () => many.store.update('k11', 1, { quota: null, updatedAt: at(0) })],
    ['replaceDigest', () => many.store.replaceDigest('k3', '$sha256$3', 'new')],
    [
      'recordUsage',
      () =>
        many.store.recordUsage(
          Array.from({ length: 500 }, (_, i) => ({
            id: `k${i * 1999 + 1}`,
            count: 1,
            lastUsedAt: at(i),
            lastUsedIp: null,
          })),
        ),
    ],
    ['swapQuota', () => many.store.swapQuota('k21', quota(9), leased(quota(9), 1))],
    [
      'purge',
      () =>
        many.store.purge(
          Array.from({ length: 500 }, (_, i) => `k${(i + 1) * 101 * 10}`),
          at(0),
        ),
    ],
  ]

  it.each(calls)('reads no table from end to end: %s', async (_call, run) => {
    many.explained.length = 0
    const answer = await run()
    expect(answer).not.toBeNull()
    expect(many.explained.length).toBeGreaterThan(0)
    for (const { sql, plan } of many.explained) {
      expect(
        nodesOf(plan).map((node) => node['Node Type']),
        sql,
      ).not.toContain('Seq Scan')
    }
  })

  it('finds a key by one read of each index', async () => {
    many.explained.length = 0
    await many.store.find({ lookups: ['l500'] })
    const scans = many.explained.map(({ plan }) => nodesOf(plan).flatMap((node) => node['Index Name'] ?? []))
    expect(scans).toEqual([['latchkey_keys_lookup', 'latchkey_keys_quotas_pkey']])
  })
})
