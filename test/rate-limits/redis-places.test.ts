import { randomUUID } from 'node:crypto'
import { request as httpRequest } from 'node:http'
import express from 'express'
import { Cluster, Redis } from 'ioredis'
import {
  type ApiKeyEvent,
  type ApiKeys,
  type ApiKeysOptions,
  createApiKeys,
  memoryStore,
  type ServiceRateLimit,
  type VerifiedKey,
} from 'latchkey'
import { apiKeyAuth, apiKeyErrorHandler } from 'latchkey/express'
import { type RedisClient, type RedisRateLimiterOptions, redisRateLimiter } from 'latchkey/redis'
import { afterAll, beforeAll, describe, expect, inject, it, onTestFinished } from 'vitest'
import { startHeldProxy } from '../support/held-proxy.ts'
import { firstSeed, times } from '../support/long-run.ts'
import { createRandom } from '../support/random.ts'
import { listen } from '../support/raw-http.ts'
import { startRedis } from '../support/redis-server.ts'
import { startRedisWorkers, sumOf } from '../support/redis-workers.ts'
import { ALICE, NAME } from '../support/test-keys.ts'

const parallel = (concurrent: number, more: object = {}): ServiceRateLimit => ({
  name: 'parallel',
  concurrent,
  ...more,
})

const SERVERS: [string, { clusterNodes?: { host: string; port: number }[] }][] = [
  ['one Redis', {}],
  ['a Cluster', { clusterNodes: inject('clusterNodes') }],
]

/** Services that share store and counts. */
function share(client: RedisClient, limiterOptions: RedisRateLimiterOptions = {}) {
  const store = memoryStore()
  const keyPrefix = randomUUID()
  const events: ApiKeyEvent[] = []
  const start = (options: Partial<ApiKeysOptions> = {}) =>
    createApiKeys({
      store,
      rateLimiter: redisRateLimiter(client, {
        keyPrefix,
        timeoutMs: 5_000,
        onUnavailable: 'closed',
        ...limiterOptions,
      }),
      prefix: 'acme',
      onEvent: (event) => void events.push(event),
      ...options,
    })
  return { start, keyPrefix, events }
}

async function take(keys: ApiKeys, key: string): Promise<VerifiedKey> {
  const result = await keys.verify(key)
  if (!result.ok) throw new Error(`refused as ${result.code}`)
  return result
}

const freeOf = async (keys: ApiKeys, id: string) => (await keys.limits(id))?.at(-1)?.remaining

describe.each(SERVERS)('places, with %s', (_server, { clusterNodes }) => {
  let client: RedisClient & { disconnect(): void }
  beforeAll(() => {
    client = clusterNodes ? new Cluster(clusterNodes) : new Redis(inject('redisUrl'))
  })
  afterAll(() => client.disconnect())

  // Each kind of server with one of the two, where time is short.
  const scopes: readonly ('key' | 'owner')[] = clusterNodes ? ['owner', 'key'] : ['key', 'owner']
  it.each(scopes.slice(0, times({ short: 1, soak: 2 })))(
    'are ten and never eleven in four processes, by %s, and all come back',
    async (scope) => {
      const name = `places-${randomUUID()}`
      const rateLimits = [parallel(10, { scope, maxHeldMs: 3_600_000 })]
      const redisUrl = inject('redisUrl')
      const started = await startRedisWorkers(4, {
        redisUrl,
        ...(clusterNodes && { clusterNodes }),
        name,
        rateLimits,
      })
      const redis = new Redis(redisUrl)
      try {
        const [first] = started.workers
        const { key } = await first.run('issue', { owner: ALICE, name: 'a' })
        const churn = { key, calls: times({ short: 500, soak: 2_000, long: 12_500 }), inFlight: 8 }
        const tallies = await Promise.all(started.workers.map((worker) => worker.run('churn', churn)))
        const { admitted, refused } = sumOf(tallies)
        expect(admitted + (refused.rate_limited ?? 0)).toBe(4 * churn.calls)
        expect(admitted).toBeGreaterThan(10)
        expect(refused.rate_limited).toBeGreaterThan(10)
        expect(Number(await redis.get(`${name}:inside:most`))).toBeLessThanOrEqual(10)
        expect(await first.run('hold', { key, calls: 12 })).toBe(10)
      } finally {
        redis.disconnect()
        await started.stop()
      }
    },
  )

  it('are asked for again after a refusal: nobody remembers one', async () => {
    const keys = share(client).start({ rateLimits: [parallel(1)] })
    const { key } = await keys.issue(NAME)
    const first = await take(keys, key)
    expect(await keys.verify(key)).toMatchObject({ code: 'rate_limited', retryAfterMs: 1_000 })
    expect(await keys.release(first)).toBe(true)
    expect(await keys.verify(key)).toMatchObject({ ok: true })
  })

  it('of a window that is used up are refused from memory, without a place', async () => {
    const keys = share(client).start({
      rateLimits: [{ name: 'hour', limit: 1, windowMs: 3_600_000 }, parallel(2)],
    })
    const { key, apiKey } = await keys.issue(NAME)
    await take(keys, key)
    for (let i = 0; i < 3; i++) {
      const limits = expect.arrayContaining([expect.objectContaining({ name: 'hour', exceeded: true })])
      expect(await keys.verify(key)).toMatchObject({ code: 'rate_limited', limits })
    }
    expect(await freeOf(keys, apiKey.id)).toBe(1)
  })
})

describe('places of requests that their clients break off', () => {
  it('are ten and never eleven over two servers, and all come back', async () => {
    const client = new Redis(inject('redisUrl'))
    onTestFinished(() => client.disconnect())
    const { start } = share(client)
    let [inside, most] = [0, 0]
    const serveOne = () => {
      const keys = start({ rateLimits: [parallel(10, { maxHeldMs: 3_600_000 })] })
      const app = express()
      app.use(apiKeyAuth(keys), (_req, res) => {
        // Who went away while the key was verified has given its place back.
        if (res.destroyed) return
        inside += 1
        most = Math.max(most, inside)
        res.on('close', () => {
          inside -= 1
        })
        res.write('begun')
        // The client breaks off, or gets the rest.
        setImmediate(() => res.end())
      })
      app.use(apiKeyErrorHandler())
      return listen(app).then((port) => ({ keys, port }))
    }
    const [one, other] = await Promise.all([serveOne(), serveOne()])
    const { key, apiKey } = await one.keys.issue(NAME)
    const seed = firstSeed
    const random = createRandom(seed)
    const statuses = { 200: 0, 429: 0, none: 0 }
    let left = times({ short: 600, soak: 3_000, long: 25_000 })
    const lanes = Array.from({ length: 30 }, async () => {
      while (left-- > 0) {
        const { port } = random.of([one, other])
        const status = await requestOnce(port, key, random.below(4))
        statuses[status] += 1
      }
    })
    await Promise.all(lanes)
    expect(most, `seed ${seed}`).toBeLessThanOrEqual(10)
    expect(statuses[200]).toBeGreaterThan(20)
    expect(statuses.none).toBeGreaterThan(20)
    await expect.poll(() => freeOf(other.keys, apiKey.id), { timeout: 10_000 }).toBe(10)
  })
})

/** One request, broken off at once, when it was sent, when the response begins, or never; its status if it was heard of. */
function requestOnce(port: number, key: string, abortAt: number): Promise<200 | 429 | 'none'> {
  return new Promise((resolve) => {
    let status: 200 | 429 | 'none' = 'none'
    const request = httpRequest({ port, headers: { 'X-Api-Key': key }, agent: false }, (response) => {
      if (abortAt !== 2) status = response.statusCode as 200 | 429
      if (abortAt === 2) request.destroy()
      else response.resume()
    })
    request.on('error', () => {})
    request.on('close', () => resolve(status))
    request.end(() => {
      if (abortAt === 0) request.destroy()
      else if (abortAt === 1) setImmediate(() => request.destroy())
    })
  })
}

describe('places of a process that', () => {
  async function setUp() {
    const name = `places-${randomUUID()}`
    const rateLimits = [parallel(3, { maxHeldMs: 1_000 })]
    const redisUrl = inject('redisUrl')
    const started = await startRedisWorkers(2, { redisUrl, name, rateLimits })
    onTestFinished(() => started.stop())
    const redis = new Redis(redisUrl)
    onTestFinished(() => redis.disconnect())
    const [one, other] = started.workers as [(typeof started.workers)[0], (typeof started.workers)[0]]
    const { key, apiKey } = await one.run('issue', { owner: ALICE, name: 'a' })
    const set = `${name}:{${apiKey.lineageId}}:c:parallel`
    const deadlines = async () => (await redis.zrange(set, '0', '-1', 'WITHSCORES')).filter((_, i) => i % 2)
    /** Takes the three places as they come free, which may be one by one. */
    const holdThree = async (worker: typeof one) => {
      let held = 0
      const holdMore = async () => {
        held += await worker.run('hold', { key, calls: 3 - held })
        return held
      }
      await expect.poll(holdMore, { timeout: 10_000 }).toBe(3)
    }
    return { redis, one, other, key, set, deadlines, holdThree }
  }

  it('goes on are renewed, and come free once it was killed', async () => {
    const { one, other, key, deadlines, holdThree } = await setUp()
    expect(await one.run('hold', { key, calls: 4 })).toBe(3)
    const taken = Math.max(...(await deadlines()).map(Number))
    // Renewed after the time at which all of them would have come free.
    await expect
      .poll(async () => Math.min(...(await deadlines()).map(Number)), { timeout: 10_000 })
      .toBeGreaterThan(taken + 1_000)
    expect(await other.run('hold', { key, calls: 1 })).toBe(0)
    await one.kill()
    await holdThree(other)
  })

  it('stands still too long are given away, and taken again when it goes on', async () => {
    const { redis, one, other, key, set, holdThree } = await setUp()
    expect(await one.run('hold', { key, calls: 3 })).toBe(3)
    one.pause()
    await holdThree(other)
    one.resume()
    // The one exception: more are under way than the limit allows. It is told, and nobody else gets in.
    await expect.poll(() => redis.zcard(set), { timeout: 10_000 }).toBe(6)
    await expect
      .poll(() => one.run('faults'))
      .toEqual([expect.stringContaining('3 calls under way had lost')])
    await one.run('giveBack')
    expect(await redis.zcard(set)).toBe(3)
    expect(await other.run('hold', { key, calls: 1 })).toBe(0)
    await other.run('giveBack')
    expect(await other.run('hold', { key, calls: 4 })).toBe(3)
  })
})

describe('places while Redis is away', () => {
  async function setUp(options: RedisRateLimiterOptions, concurrent = 2) {
    const server = await startRedis({ binary: inject('redisBinary') })
    onTestFinished(() => server.stop())
    const proxy = await startHeldProxy(server.port)
    onTestFinished(() => proxy.stop())
    const client = countingClient(proxy.port)
    client.on('error', () => {})
    const direct = new Redis(server.port)
    direct.on('error', () => {})
    onTestFinished(() => {
      client.disconnect()
      direct.disconnect()
    })
    const shared = share(client, { timeoutMs: 300, ...options })
    const keys = shared.start({ rateLimits: [parallel(concurrent, { maxHeldMs: 3_600_000 })] })
    const { key, apiKey } = await keys.issue(NAME)
    await client.ping()
    const set = `${shared.keyPrefix}:{${apiKey.lineageId}}:c:parallel`
    return { ...shared, server, proxy, client, keys, key, taken: () => direct.zcard(set) }
  }

  /** One that the limiter uses itself, and that counts the scripts it was to run. */
  function countingClient(port: number) {
    const client = new Redis(port, { autoResendUnfulfilledCommands: false })
    let sent = 0
    const { evalsha } = client
    client.evalsha = ((...args: Parameters<typeof evalsha>) => {
      sent += 1
      return evalsha.apply(client, args)
    }) as typeof evalsha
    return Object.assign(client, { sent: () => sent })
  }

  it('come back if the reply that they were taken is lost', async () => {
    const { proxy, keys, key, taken } = await setUp({ onUnavailable: 'closed' })
    await keys.release(await take(keys, key))
    void proxy.hold()
    await expect(keys.verify(key)).rejects.toMatchObject({ code: 'unavailable' })
    expect(await taken()).toBe(1)
    proxy.release()
    await expect.poll(taken, { timeout: 15_000 }).toBe(0)
  })

  it('are not taken by a call that arrives after its caller gave up', async () => {
    const { server, keys, key, taken } = await setUp({ onUnavailable: 'closed' })
    await keys.release(await take(keys, key))
    server.pause()
    await expect(keys.verify(key)).rejects.toMatchObject({ code: 'unavailable' })
    server.resume()
    await keys.release(await take(keys, key))
    expect(await taken()).toBe(0)
  })

  it('come back once it is there again, if they were to be given back meanwhile', async () => {
    const { server, keys, key, taken, events } = await setUp({ onUnavailable: 'closed' })
    const [first, second] = [await take(keys, key), await take(keys, key)]
    server.pause()
    expect(await Promise.all([keys.release(first), keys.release(second)])).toEqual([true, true])
    server.resume()
    await expect.poll(taken, { timeout: 15_000 }).toBe(0)
    expect(events.some(({ type }) => type === 'fault')).toBe(true)
  })

  it('are counted by each process itself, and none is lost', async () => {
    const { proxy, keys, key, taken } = await setUp({ onUnavailable: 'local' })
    await keys.release(await take(keys, key))
    void proxy.hold()
    const held = [await take(keys, key), await take(keys, key)]
    expect(await keys.verify(key)).toMatchObject({ code: 'rate_limited', retryAfterMs: 1_000 })
    // Redis has heard of the first two, which are under way, and refused the third.
    expect(await taken()).toBe(2)
    proxy.release()
    for (const result of held) await keys.release(result)
    await expect.poll(taken, { timeout: 15_000 }).toBe(0)
  })

  it.each<['closed' | 'local']>([['closed'], ['local']])(
    'are not asked of a server that keeps failing, with the policy %s',
    async (onUnavailable) => {
      const { server, client, keys, key, events, taken } = await setUp({ onUnavailable }, 50)
      const held = await Promise.all(Array.from({ length: 20 }, () => take(keys, key)))
      server.pause()
      const callSome = (count: number) =>
        Promise.all(
          Array.from({ length: count }, async () => {
            const result = await keys.verify(key).catch(() => null)
            if (result?.ok) await keys.release(result)
          }),
        )
      await expect
        .poll(async () => {
          await callSome(20)
          return events.some(({ type }) => type === 'limiter.suspended')
        })
        .toBe(true)
      const sent = client.sent()
      // More than there are releases that wait to be sent again.
      for (let i = 0; i < 210; i++) await callSome(50)
      // Now and then one asks whether it answers again.
      expect(client.sent() - sent).toBeLessThan(500)
      await Promise.all(held.map((result) => keys.release(result)))
      server.resume()
      await expect.poll(taken, { timeout: 10_000 }).toBe(0)
    },
  )

  it('are not counted where the policy is open', async () => {
    const { server, keys, key } = await setUp({ onUnavailable: 'open' })
    await server.kill()
    for (let i = 0; i < 4; i++) expect(await keys.verify(key)).toMatchObject({ ok: true, limits: [] })
  })
})
