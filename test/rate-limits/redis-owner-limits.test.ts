import { randomUUID } from 'node:crypto'
import { Cluster, Redis } from 'ioredis'
import { type ApiKeysOptions, createApiKeys, memoryStore, type ServiceRateLimit } from 'latchkey'
import { type RedisClient, redisRateLimiter } from 'latchkey/redis'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { startRedisWorkers, sumOf } from '../support/redis-workers.ts'
import { ALICE, BOB } from '../support/test-keys.ts'

const HOUR = 3_600_000
const owners = (limit: number): ServiceRateLimit => ({ name: 'plan', limit, windowMs: HOUR, scope: 'owner' })

const SERVERS: [string, { clusterNodes?: { host: string; port: number }[] }][] = [
  ['one Redis', {}],
  ['a Cluster', { clusterNodes: inject('clusterNodes') }],
]

describe.each(SERVERS)('a limit of an owner, with %s', (_server, { clusterNodes }) => {
  let client: RedisClient & { disconnect(): void }
  beforeAll(() => {
    client = clusterNodes ? new Cluster(clusterNodes) : new Redis(inject('redisUrl'))
  })
  afterAll(() => client.disconnect())

  /** Services that share store and counts, each with its own settings. */
  function share() {
    const store = memoryStore()
    const keyPrefix = randomUUID()
    const start = (options: Partial<ApiKeysOptions> = {}) =>
      createApiKeys({
        store,
        rateLimiter: redisRateLimiter(client, {
          keyPrefix,
          timeoutMs: 5_000,
          onUnavailable: 'closed',
          denials: false,
        }),
        prefix: 'acme',
        // Records are read again only because the limiter knows a later version.
        cache: { maxAgeMs: HOUR },
        ...options,
      })
    return { start, keyPrefix }
  }

  it('admits exactly its number over 50 keys in four processes', async () => {
    const name = `owners-${randomUUID()}`
    const settings = {
      redisUrl: inject('redisUrl'),
      ...(clusterNodes && { clusterNodes }),
      name,
      rateLimits: [owners(1_000)],
    }
    const started = await startRedisWorkers(4, settings)
    try {
      const [first] = started.workers
      const given: string[] = []
      for (let i = 0; i < 50; i++) {
        // Some have limits of their own, which never refuse here.
        const rateLimits = i % 3 === 0 ? [{ name: 'own', limit: 1_000_000, windowMs: HOUR }] : null
        given.push((await first.run('issue', { owner: ALICE, name: `k${i}`, rateLimits })).key)
      }
      const load = { given, calls: 400, inFlight: 25 }
      const tallies = await Promise.all(started.workers.map((worker) => worker.run('flood', load)))
      expect(sumOf(tallies)).toEqual({ admitted: 1_000, refused: { rate_limited: 600 } })
      const other = await first.run('issue', { owner: BOB, name: 'other' })
      expect(await first.run('hammer', { key: other.key, calls: 5, inFlight: 1 })).toMatchObject({
        admitted: 5,
      })
    } finally {
      await started.stop()
    }
  })

  it('lets no revocation be missed by a process with other settings, and counts nothing of it', async () => {
    const { start } = share()
    const [counting, plain] = [start({ rateLimits: [owners(10)] }), start()]
    for (const [revoking, holding] of [
      [plain, counting],
      [counting, plain],
    ] as const) {
      const { key, apiKey } = await counting.issue({ owner: ALICE, name: 'a' })
      const { key: sibling } = await counting.issue({ owner: ALICE, name: 'b' })
      expect(await holding.verify(key)).toMatchObject({ ok: true })
      const before = await counting.verify(sibling, { cost: 0 })
      await revoking.revoke(apiKey.id)
      for (const keys of [holding, revoking]) {
        expect(await keys.verify(key)).toMatchObject({ code: 'invalid_key', reason: 'revoked' })
      }
      const left = (result: object) => (result as typeof before & { ok: true }).limits[0]?.remaining
      expect(left(await counting.verify(sibling, { cost: 0 }))).toBe(left(before))
    }
  })

  it('holds beside a limit of a key with the same name, and a cost that names them counts on both', async () => {
    const { start } = share()
    const places = { name: 'parallel', maxHeldMs: 10_000 }
    const own = { name: 'plan', limit: 3, windowMs: HOUR }
    const { key } = await start().issue({
      owner: ALICE,
      name: 'a',
      rateLimits: [own, { ...places, concurrent: 2 }],
    })
    const keys = start({ rateLimits: [owners(5), { ...places, concurrent: 1, scope: 'owner' }] })
    const sibling = await keys.issue({ owner: ALICE, name: 'b' })
    const result = await keys.verify(key, { cost: { plan: 2 } })
    expect(result).toMatchObject({
      limits: [
        { name: 'plan', limit: 3, remaining: 1 },
        { limit: 1, remaining: 0 },
      ],
    })
    expect(await keys.verify(key, { cost: 0 })).toMatchObject({
      limits: [{ remaining: 1 }, { remaining: 0 }],
    })
    expect(await keys.verify(sibling.key)).toMatchObject({
      limits: [{ limit: 5, remaining: 3 }, { exceeded: true }],
    })
    if (!result.ok) throw new Error(result.code)
    await keys.release(result)
    expect(await keys.settle(result, { plan: 3 })).toMatchObject([{ limit: 3, remaining: 0 }])
    expect(await keys.verify(sibling.key)).toMatchObject({
      ok: true,
      limits: [{ remaining: 1 }, { remaining: 0 }],
    })
    expect(await keys.verify(key)).toMatchObject({ code: 'rate_limited' })
  })

  it('admits siblings at once that were refused before units came back', async () => {
    const { start, keyPrefix } = share()
    const rateLimiter = redisRateLimiter(client, { keyPrefix, timeoutMs: 5_000, onUnavailable: 'closed' })
    const keys = start({ rateLimiter, rateLimits: [owners(5)] })
    const [one, two] = [
      await keys.issue({ owner: ALICE, name: 'a' }),
      await keys.issue({ owner: ALICE, name: 'b' }),
    ]
    const result = await keys.verify(one.key, { cost: 5 })
    if (!result.ok) throw new Error(result.code)
    for (let i = 0; i < 3; i++) expect(await keys.verify(two.key)).toMatchObject({ code: 'rate_limited' })
    await keys.settle(result, 2)
    expect(await keys.verify(two.key)).toMatchObject({ ok: true, limits: [{ remaining: 2 }] })
  })

  it('lives as long as its longest window, and the hash of each key as long as its own', async () => {
    const { start, keyPrefix } = share()
    const keys = start({
      cache: { maxAgeMs: 1_000 },
      rateLimits: [owners(10), { name: 'key', limit: 9, windowMs: 1_000 }],
    })
    const { key, apiKey } = await keys.issue({ owner: ALICE, name: 'a' })
    await keys.verify(key)
    const tag = `${keyPrefix}:{o:4:user:${ALICE.id}}`
    const redis = client as unknown as Redis
    expect(await redis.pttl(`${tag}:o`)).toBeGreaterThan(HOUR)
    const ttl = await redis.pttl(`${tag}:k:${apiKey.lineageId}`)
    expect(ttl).toBeGreaterThan(1_000)
    expect(ttl).toBeLessThan(HOUR)
    expect(await redis.hkeys(`${tag}:o`)).toEqual(expect.arrayContaining(['x', `xwplan window ${HOUR}`]))
  })
})
