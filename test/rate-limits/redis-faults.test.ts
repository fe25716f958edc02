import { randomUUID } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import keySlot from 'cluster-key-slot'
import { Redis } from 'ioredis'
import { type ApiKeyEvent, type ApiKeysOptions, createApiKeys, memoryStore } from 'latchkey'
import { type RedisClient, type RedisRateLimiterOptions, redisRateLimiter } from 'latchkey/redis'
import { describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import { compileRateLimits } from '../../lib/core/limits/compile-limits.ts'
import type { CompiledLimit } from '../../lib/core/limits/rate-limit.ts'
import type { LimitAnswer } from '../../lib/core/limits/rate-limiter.ts'
import { createRedisRateLimiter } from '../../lib/rate-limits/redis/redis-rate-limiter.ts'
import { fakeClock, settle } from '../support/fake-clock.ts'
import { heapGrowth } from '../support/heap-growth.ts'
import { startProgram } from '../support/program.ts'
import { startSentinel } from '../support/redis-sentinel.ts'
import { startCluster, startRedis } from '../support/redis-server.ts'
import { startLoad } from '../support/steady-load.ts'
import { NAME } from '../support/test-keys.ts'

const UNAVAILABLE = expect.objectContaining({ code: 'unavailable', status: 503 })
const MINUTE = { name: 'minute', limit: 100, windowMs: 60_000 }
const minute: readonly CompiledLimit[] = compileRateLimits('rateLimits', [MINUTE])

/** Keys over a server of their own, through a client with its default settings. */
async function setUp(
  limiterOptions: RedisRateLimiterOptions = {},
  options: Partial<ApiKeysOptions> = {},
  args: string[] = [],
) {
  const server = await startRedis({ binary: inject('redisBinary'), args })
  const client = new Redis(server.port)
  client.on('error', () => {})
  const limiter = redisRateLimiter(client, limiterOptions)
  // Once it is connected: a busy machine may take longer to that than a call may take.
  await expect
    .poll(() => ask(limiter, { lineageId: 'connected' }).catch(() => null))
    .toMatchObject({ chargedAt: expect.any(Number) })
  const events: ApiKeyEvent[] = []
  const keys = createApiKeys({
    store: memoryStore(),
    rateLimiter: limiter,
    prefix: 'acme',
    rateLimits: [MINUTE],
    onEvent: (event) => void events.push(event),
    ...options,
  })
  onTestFinished(async () => {
    await keys.close()
    client.disconnect()
    await server.stop()
  })
  const { key, apiKey } = await keys.issue(NAME)
  expect(await keys.verify(key)).toMatchObject({ ok: true })
  return { server, client, limiter, keys, key, apiKey, events, typesOf: () => events.map(({ type }) => type) }
}

function ask(limiter: ReturnType<typeof redisRateLimiter>, request: object): Promise<LimitAnswer> {
  const base = { lineageId: 'l', keyId: 'k', version: 1, fresh: true, cost: 1, limits: minute }
  return Promise.resolve(limiter.check({ ...base, retainMs: 10_000, ...request }))
}

describe('while Redis is silent', () => {
  it('never shows a guess of one process as how the limits of a key stand', async () => {
    const { server, keys, key, apiKey, events } = await setUp()
    expect(await keys.limits(apiKey.id)).toMatchObject([{ name: 'minute', remaining: 99 }])
    server.pause()
    await expect(keys.limits(apiKey.id)).rejects.toMatchObject({ code: 'unavailable' })
    expect(events.filter(({ type }) => type === 'fault')).toMatchObject([{ operation: 'rate_limiter' }])
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    server.resume()
  })

  it('a key under a closed limit is unavailable within the deadline; one with a quota goes on', async () => {
    const { server, keys, key, apiKey } = await setUp({
      onUnavailable: { default: 'local', limits: { minute: 'closed' } },
    })
    const quota = await keys.issue({ ...NAME, rateLimits: [], quota: { remaining: 2 } })
    const free = await keys.issue({ ...NAME, rateLimits: [] })
    for (const issued of [quota, free]) expect(await keys.verify(issued.key)).toMatchObject({ ok: true })
    server.pause()
    const started = performance.now()
    const [closed, spent, open] = await Promise.allSettled(
      [key, quota.key, free.key].map((k) => keys.verify(k)),
    )
    expect(performance.now() - started).toBeLessThan(1_000)
    expect(closed).toEqual({ status: 'rejected', reason: UNAVAILABLE })
    for (const one of [spent, open]) expect(one).toMatchObject({ status: 'fulfilled', value: { ok: true } })
    expect(await keys.verify(quota.key)).toMatchObject({ ok: false, code: 'quota_exceeded' })
    expect(await keys.get(quota.apiKey.id)).toMatchObject({ quota: { remaining: 0 } })
    expect(await keys.get(apiKey.id)).toMatchObject({ id: apiKey.id })
  })

  it('a key that is refused by a closed limit gets its units of the quota back', async () => {
    const { server, keys } = await setUp({ onUnavailable: 'closed' })
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 5 } })
    server.pause()
    await expect(keys.verify(key, { cost: 3 })).rejects.toEqual(UNAVAILABLE)
    expect(await keys.get(apiKey.id)).toMatchObject({ quota: { remaining: 5 } })
  })

  it('keys without limits are closed too where that is the policy for all', async () => {
    const { server, keys } = await setUp({ onUnavailable: 'closed' })
    const { key } = await keys.issue({ ...NAME, rateLimits: [] })
    await keys.verify(key)
    server.pause()
    await expect(keys.verify(key)).rejects.toEqual(UNAVAILABLE)
  })

  it('each process counts for itself by default, an open limit is not applied', async () => {
    const { server, limiter } = await setUp({ onUnavailable: { limits: { open: 'open' } } })
    const both = compileRateLimits('rateLimits', [
      { name: 'local', limit: 2, windowMs: 60_000 },
      { name: 'open', limit: 1, windowMs: 60_000 },
    ])
    expect(await ask(limiter, { limits: both })).toMatchObject({ outcome: 'admitted' })
    server.pause()
    for (let i = 0; i < 2; i++) {
      expect(await ask(limiter, { limits: both })).toMatchObject({
        outcome: 'admitted',
        limits: [{ name: 'local', remaining: 1 - i }],
        // It was not spent there, so it cannot be given back there.
        chargedAt: null,
      })
    }
    expect(await ask(limiter, { limits: both })).toMatchObject({
      outcome: 'limited',
      limits: [{ name: 'local' }],
    })
  })

  it('a call that reaches it after its caller has given up spends nothing and sets no version', async () => {
    const { server, limiter, client } = await setUp({ onUnavailable: 'closed' })
    await ask(limiter, {})
    server.pause()
    const late = [
      ...Array.from({ length: 10 }, () => ask(limiter, {})),
      ask(limiter, { lineageId: 'new' }),
      ask(limiter, { version: 5 }),
    ]
    for (const { status } of await Promise.allSettled(late)) expect(status).toBe('rejected')
    server.resume()
    // Behind the late ones, on the same connection.
    await client.ping()
    await expect
      .poll(() => ask(limiter, { cost: 0, fresh: false }).catch(() => null))
      .toMatchObject({ outcome: 'admitted', limits: [{ remaining: 99 }] })
    expect(await client.exists('latchkey:{new}')).toBe(0)
  })

  it('a change takes until every cache has aged, and says so', async () => {
    const { server, keys, key, apiKey, events } = await setUp({}, { cache: { maxAgeMs: 1_500 } })
    server.pause()
    const started = performance.now()
    await keys.revoke(apiKey.id)
    expect(performance.now() - started).toBeGreaterThanOrEqual(1_490)
    expect(events).toContainEqual(expect.objectContaining({ type: 'change.delayed', keyIds: [apiKey.id] }))
    expect(await keys.verify(key)).toMatchObject({ ok: false, reason: 'revoked' })
  })

  it('it is asked once in a while only, and again as soon as it answers', async () => {
    const { server, keys, key, typesOf, client } = await setUp()
    server.pause()
    await Promise.all(Array.from({ length: 30 }, () => keys.verify(key)))
    expect(typesOf()).toContain('limiter.suspended')
    const started = performance.now()
    for (let i = 0; i < 500; i++) await keys.verify(key)
    expect(performance.now() - started).toBeLessThan(400)
    server.resume()
    await client.ping()
    const verified = async () => {
      await keys.verify(key)
      return typesOf()
    }
    await expect.poll(verified, { timeout: 6_000 }).toContain('limiter.resumed')
  })
})

describe('the suspension of a server', () => {
  it('lets one call in every half second find out, and only that', async () => {
    const clock = fakeClock()
    let calls = 0
    let isDown = true
    const evalsha = async () => {
      calls += 1
      if (isDown) throw new Error('connection refused')
      return [1, Date.now(), 1, Date.now()]
    }
    const happenings: string[] = []
    const limiter = createRedisRateLimiter({ evalsha, eval: evalsha }, { onUnavailable: 'open' }, clock)
    limiter.listen?.(({ type }) => happenings.push(type))
    for (let i = 0; i < 19; i++) await ask(limiter, {})
    expect({ calls, happenings }).toEqual({ calls: 19, happenings: ['fault'] })
    await ask(limiter, {})
    expect(happenings).toEqual(['fault', 'suspended'])
    for (let i = 0; i < 100; i++) await ask(limiter, {})
    expect(calls).toBe(20)
    await clock.advance(500)
    await Promise.all(Array.from({ length: 50 }, () => ask(limiter, {})))
    expect(calls).toBe(21)
    isDown = false
    await clock.advance(500)
    // The first answer says what time it is, and the second is the one.
    await ask(limiter, {})
    await ask(limiter, {})
    expect(happenings.at(-1)).toBe('resumed')
  })

  it('gives a client that is not connected nothing to queue, and finds out once it is', async () => {
    const clock = fakeClock()
    const evalsha = vi.fn<RedisClient['evalsha']>(() => Promise.reject(new Error('not connected')))
    const client = { evalsha, eval: evalsha, status: 'reconnecting' }
    const happenings: string[] = []
    const limiter = createRedisRateLimiter(client, { onUnavailable: 'open' }, clock)
    limiter.listen?.(({ type }) => happenings.push(type))
    for (let i = 0; i < 20; i++) await ask(limiter, {})
    expect(happenings).toEqual(['fault', 'suspended'])
    for (let i = 0; i < 100; i++) {
      await clock.advance(500)
      await ask(limiter, {})
    }
    expect(evalsha).toHaveBeenCalledTimes(20)
    client.status = 'ready'
    evalsha.mockImplementation(async () => [1, clock.now(), 1, clock.now()])
    await clock.advance(500)
    await ask(limiter, {})
    await ask(limiter, {})
    expect(happenings.at(-1)).toBe('resumed')
  })

  it('needs half of at least twenty calls within ten seconds to fail', async () => {
    const clock = fakeClock()
    let fails = false
    const evalsha = async () => {
      if (fails) throw new Error('connection refused')
      return [1, clock.now(), 1, clock.now()]
    }
    const limiter = createRedisRateLimiter({ evalsha, eval: evalsha }, { onUnavailable: 'open' }, clock)
    const happenings: string[] = []
    limiter.listen?.(({ type }) => happenings.push(type))
    for (let i = 0; i < 200; i++) {
      fails = i % 5 < 2
      await ask(limiter, {})
    }
    fails = true
    for (let round = 0; round < 5; round++) {
      await clock.advance(10_000)
      for (let i = 0; i < 19; i++) await ask(limiter, {})
    }
    expect(happenings).not.toContain('suspended')
  })
})

describe('the nodes of a Cluster', () => {
  it('are remembered for a bounded number of addresses, however often they get new ones', async () => {
    const slots = Array.from({ length: 16_384 }, () => [''])
    const evalsha = async () => [1, 1_000, 1, 1_000]
    const limiter = createRedisRateLimiter(
      { evalsha, eval: evalsha, isCluster: true, slots },
      { onUnavailable: 'open' },
      fakeClock(),
    )
    const growth = await heapGrowth(async () => {
      for (let i = 0; i < 20_000; i++) {
        for (const slot of [slots[keySlot('latchkey:{l}')] ?? []]) slot[0] = `10.0.${i >> 8}.${i & 255}:6379`
        await ask(limiter, {})
      }
    })
    expect(growth).toBeLessThan(4)
  })
})

describe('a deadline', () => {
  it('is not missed because this process was busy: what has arrived is read first', async () => {
    const { limiter } = await setUp({ onUnavailable: 'closed', timeoutMs: 50 })
    for (let i = 0; i < 5; i++) {
      const answer = ask(limiter, {})
      const until = performance.now() + 120
      while (performance.now() < until);
      expect(await answer).toMatchObject({ outcome: 'admitted' })
    }
  })

  it('holds where the client never connects, and nothing is left unhandled', async () => {
    const client = new Redis(1, { lazyConnect: true })
    client.on('error', () => {})
    const limiter = redisRateLimiter(client, { onUnavailable: 'closed' })
    const started = performance.now()
    const answers = await Promise.allSettled(Array.from({ length: 30 }, () => ask(limiter, {})))
    expect(answers.every(({ status }) => status === 'rejected')).toBe(true)
    expect(performance.now() - started).toBeLessThan(500)
    client.disconnect()
    await setTimeout(20)
  })

  it('ends one call and not the others', async () => {
    const clock = fakeClock()
    const waiting: ((reply: unknown) => void)[] = []
    const evalsha = () => new Promise((resolve) => waiting.push(resolve))
    const limiter = createRedisRateLimiter({ evalsha, eval: evalsha }, { onUnavailable: 'closed' }, clock)
    const first = ask(limiter, {}).then(null, (error) => error.message)
    await clock.advance(60)
    const second = ask(limiter, {}).then(null, (error) => error.message)
    await clock.advance(60)
    expect(await first).toBe('Redis did not answer within 100 milliseconds')
    waiting[1]?.([1, 1_000, 1, 1_000])
    expect(await second).toMatchObject({ outcome: 'admitted' })
    waiting[0]?.([1, 1_000, 1, 1_000])
    await settle()
    expect(clock.waiting).toBe(1)
  })
})

describe('a server that answers with errors', () => {
  it('has lost its scripts: nobody notices', async () => {
    const { client, keys, key, events } = await setUp(
      { onUnavailable: 'closed', timeoutMs: 5_000 },
      { rateLimits: [] },
    )
    const verifying = Promise.all(
      Array.from({ length: 20 }, async () => {
        for (let i = 0; i < 50; i++) expect(await keys.verify(key)).toMatchObject({ ok: true })
      }),
    )
    for (let i = 0; i < 20; i++) await client.script('FLUSH')
    await verifying
    expect(events.map(({ type }) => type)).toEqual(['key.issued'])
  })

  it('is a replica: it admits nobody, whatever it knows', async () => {
    const { client, server, limiter } = await setUp({ onUnavailable: 'closed' })
    const other = await startRedis({ binary: inject('redisBinary') })
    onTestFinished(() => other.stop())
    const primary = new Redis(other.port)
    onTestFinished(() => primary.disconnect())
    expect(await ask(limiter, { cost: 0, limits: [] })).toMatchObject({ outcome: 'admitted' })
    const dump = await client.dumpBuffer('latchkey:{l}')
    await primary.restore('latchkey:{l}', 60_000, dump)
    await client.replicaof('127.0.0.1', other.port)
    await expect.poll(() => client.exists('latchkey:{l}')).toBe(1)
    expect(await client.info('replication')).toContain('role:slave')
    for (const request of [{ cost: 0, limits: [] }, {}, { limits: [] }]) {
      await expect(ask(limiter, { fresh: false, ...request })).rejects.toThrow(
        /READONLY|LOADING|MASTERDOWN|did not answer|too late/,
      )
    }
    void server
  })

  it('is out of memory: closed limits fail, and what is full stays countable', async () => {
    const { client, limiter } = await setUp({ onUnavailable: 'closed' }, {}, [
      '--maxmemory-policy',
      'noeviction',
    ])
    await client.config('SET', 'maxmemory', '1')
    await expect(ask(limiter, { lineageId: 'new' })).rejects.toThrow('OOM')
    await client.config('SET', 'maxmemory', '0')
    expect(await ask(limiter, { lineageId: 'new' })).toMatchObject({ outcome: 'admitted' })
  })

  it('is a Cluster with a primary down: its keys follow the policy, the others are served', async () => {
    const cluster = await startCluster({ binary: inject('redisBinary') })
    onTestFinished(() => cluster.stop())
    const { Cluster } = await import('ioredis')
    const client = new Cluster(cluster.nodes.map(({ host, port }) => ({ host, port })))
    client.on('error', () => {})
    onTestFinished(() => client.disconnect())
    const limiter = redisRateLimiter(client, { onUnavailable: 'closed', keyPrefix: randomUUID() })
    const lineages = Array.from({ length: 60 }, (_, i) => `l${i}`)
    // The first call to each node has to wait for a connection.
    for (const lineageId of lineages) {
      await expect
        .poll(() => ask(limiter, { lineageId }).catch(() => null))
        .toMatchObject({ outcome: 'admitted' })
    }
    cluster.nodes[0]?.server.pause()
    const answers = await Promise.allSettled(lineages.map((lineageId) => ask(limiter, { lineageId })))
    const served = answers.filter(({ status }) => status === 'fulfilled').length
    expect(served).toBeGreaterThan(20)
    expect(served).toBeLessThan(60)
    cluster.nodes[0]?.server.resume()
    await expect
      .poll(
        async () => {
          const again = await Promise.allSettled(lineages.map((lineageId) => ask(limiter, { lineageId })))
          return again.filter(({ status }) => status === 'rejected').length
        },
        { timeout: 6_000 },
      )
      .toBe(0)
  })
})

describe('a primary behind Sentinel', () => {
  it('is replaced when it is gone: the new one counts, without a restart of this process', async () => {
    const binary = inject('redisBinary')
    const args = ['--repl-diskless-sync-delay', '0']
    const [primary, replica] = await Promise.all([startRedis({ binary, args }), startRedis({ binary, args })])
    const admin = new Redis(replica.port)
    await admin.replicaof('127.0.0.1', primary.port)
    await expect.poll(() => admin.info('replication'), { timeout: 15_000 }).toContain('master_link_status:up')
    const sentinel = await startSentinel(binary, primary.port)
    const client = new Redis({ sentinels: [{ host: '127.0.0.1', port: sentinel.port }], name: 'main' })
    client.on('error', () => {})
    onTestFinished(async () => {
      for (const each of [client, admin]) each.disconnect()
      sentinel.stop()
      await Promise.all([primary.stop(), replica.stop()])
    })
    const limiter = redisRateLimiter(client, { onUnavailable: 'closed' })
    // Until it is connected, Sentinel has to be asked.
    await expect.poll(() => ask(limiter, {}).catch(() => null)).toMatchObject({ outcome: 'admitted' })
    await limiter.raiseVersions([{ lineageId: 'l', keyId: 'k', version: 2 }], 60_000)
    await client.wait(1, 1_000)
    await primary.kill()
    await expect
      .poll(() => ask(limiter, { version: 2 }).catch(() => null), { timeout: 15_000 })
      .toMatchObject({ outcome: 'admitted', limits: [{ remaining: 98 }] })
    expect(await ask(limiter, { version: 1 })).toEqual({ outcome: 'stale' })
  })
})

describe('under load over HTTP', () => {
  it('every request is answered in time while Redis is paused, killed and started again', async () => {
    const { server, keys, key, typesOf } = await setUp({ onUnavailable: 'local' }, { rateLimits: [] })
    const happened = (wanted: ApiKeyEvent['type'], times: number) =>
      expect
        .poll(() => typesOf().filter((type) => type === wanted).length, { timeout: 15_000, interval: 10 })
        .toBe(times)
    const load = await startLoad(keys, key)
    await load.answered(50)
    load.take()
    server.pause()
    await happened('limiter.suspended', 1)
    await load.answered(200)
    server.resume()
    await happened('limiter.resumed', 1)
    await server.kill()
    await happened('limiter.suspended', 2)
    await load.answered(200)
    await server.restart()
    await happened('limiter.resumed', 2)
    await load.answered(50)
    const answered = await load.stop()
    expect(new Set(answered.map(({ status }) => status))).toEqual(new Set([200]))
    for (const { tookMs, busyMs } of answered) expect(tookMs).toBeLessThanOrEqual(100 + 20 + busyMs)
  })
})

describe('a process that ends its client while Redis is away', () => {
  it.each([
    ['one server, ioredis 5', "new (await import('ioredis5')).Redis('redis://127.0.0.1:1')"],
    ['a Cluster, ioredis 6', "new (await import('ioredis')).Cluster(['redis://127.0.0.1:1'])"],
  ])('comes to its own end: %s', async (_name, made) => {
    const program = startProgram([
      '--input-type=module',
      '--eval',
      `import { redisRateLimiter } from './lib/redis.ts'
       const client = ${made}.on('error', () => {})
       client.once('reconnecting', () => client.disconnect())
       redisRateLimiter(client)`,
    ])
    onTestFinished(() => program.signal('SIGKILL'))
    expect(await program.ended()).toBe(0)
  })
})
