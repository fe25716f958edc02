import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { promisify } from 'node:util'
import { Cluster, Redis } from 'ioredis'
import { Cluster as Cluster5, Redis as Redis5 } from 'ioredis5'
import { createApiKeys, memoryStore, type RateLimiter } from 'latchkey'
import { type NodeRedisClient, type RedisClient, redisRateLimiter } from 'latchkey/redis'
import { createClient, createCluster, createSentinel } from 'redis'
import {
  createClient as createClient5,
  createCluster as createCluster5,
  createSentinel as createSentinel5,
} from 'redis5'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { compileRateLimits } from '../../lib/core/limits/compile-limits.ts'
import type { LimitAnswer, LimitRequest } from '../../lib/core/limits/rate-limiter.ts'
import { giveBack } from '../support/give-back.ts'
import { type HeldProxy, startHeldProxy } from '../support/held-proxy.ts'
import { soakOnly, times } from '../support/long-run.ts'
import { clusterOptions, connecting } from '../support/node-redis.ts'
import { startSentinel } from '../support/redis-sentinel.ts'
import { startRedis } from '../support/redis-server.ts'
import { NAME } from '../support/test-keys.ts'

const limits = compileRateLimits('rateLimits', [{ name: 'hour', limit: 100, windowMs: 3_600_000 }])

function ask(limiter: RateLimiter, request: Partial<LimitRequest> = {}): Promise<LimitAnswer> {
  const base = { lineageId: 'l', keyId: 'k', version: 1, fresh: true, cost: 1, limits, retainMs: 10_000 }
  return Promise.resolve(limiter.check({ ...base, ...request }))
}

async function proxyTo(port: number): Promise<HeldProxy> {
  const proxy = await startHeldProxy(port)
  onTestFinished(() => proxy.stop())
  return proxy
}

type Client = (RedisClient | NodeRedisClient) & {
  on(event: 'error', listener: () => void): unknown
  disconnect(): void
}

type Start = () => Promise<{ client: Client; proxies: HeldProxy[] }>

/** One client of each package, and a Cluster; the others in the longer runs. */
const CLIENTS: Record<string, Start> = {
  'ioredis 6': () => onRedis((port) => new Redis(port)),
  'a Cluster of ioredis 6': () => onCluster((nodes, options) => new Cluster(nodes, options)),
  'node-redis 6': () => onRedis((port) => connecting(createClient({ socket: { port } }))),
  ...soakOnly<Record<string, Start>>({
    'ioredis 6 that connects again at once': () =>
      onRedis((port) => new Redis(port, { retryStrategy: () => 0 })),
    'ioredis 6 that sends nothing again': () =>
      onRedis((port) => new Redis(port, { autoResendUnfulfilledCommands: false })),
    'ioredis 6 that connects when it is first needed': () =>
      onRedis((port) => new Redis(port, { lazyConnect: true })),
    'ioredis 5': () => onRedis((port) => new Redis5(port)),
    'a Cluster of ioredis 5': () => onCluster((nodes, options) => new Cluster5(nodes, options)),
    'node-redis 6 that keeps no command until it is connected': () =>
      onRedis((port) => connecting(createClient({ socket: { port }, disableOfflineQueue: true }))),
    'node-redis 6 that connects again at once': () =>
      onRedis((port) => connecting(createClient({ socket: { port, reconnectStrategy: () => 0 } }))),
    'node-redis 5': () => onRedis((port) => connecting(createClient5({ socket: { port } }))),
    'a Cluster of node-redis 6': () =>
      onCluster((nodes, { natMap }) => connecting(createCluster(clusterOptions(nodes, natMap)))),
    'a Cluster of node-redis 5': () =>
      onCluster((nodes, { natMap }) => connecting(createCluster5(clusterOptions(nodes, natMap)))),
    'node-redis 6 behind Sentinel': () => onSentinel((options) => connecting(createSentinel(options))),
    'node-redis 5 behind Sentinel': () => onSentinel((options) => connecting(createSentinel5(options))),
  }),
}

async function onRedis(connect: (port: number) => Client) {
  const proxy = await proxyTo(Number(new URL(inject('redisUrl')).port))
  return { client: connect(proxy.port), proxies: [proxy] }
}

type Address = { host: string; port: number }

async function onCluster(
  connect: (
    nodes: Address[],
    options: { natMap: Record<string, Address>; slotsRefreshTimeout: number },
  ) => Client,
) {
  const nodes = inject('clusterNodes')
  const proxies = await Promise.all(nodes.map(({ port }) => proxyTo(port)))
  const natMap = Object.fromEntries(
    nodes.map(({ host, port }, i) => [`${host}:${port}`, { host: '127.0.0.1', port: proxies[i]?.port ?? 0 }]),
  )
  return { client: connect(nodes, { natMap, slotsRefreshTimeout: 5_000 }), proxies }
}

interface SentinelOptions {
  name: string
  sentinelRootNodes: Address[]
  nodeAddressMap: Record<string, Address>
}

async function onSentinel(connect: (options: SentinelOptions) => Client) {
  const binary = inject('redisBinary')
  const primary = await startRedis({ binary })
  const replica = await startRedis({ binary, args: ['--replicaof', '127.0.0.1', String(primary.port)] })
  const sentinel = await startSentinel(binary, primary.port)
  const proxy = await proxyTo(primary.port)
  onTestFinished(async () => {
    sentinel.stop()
    await Promise.all([primary.stop(), replica.stop()])
  })
  const client = connect({
    name: 'main',
    sentinelRootNodes: [{ host: '127.0.0.1', port: sentinel.port }],
    nodeAddressMap: { [`127.0.0.1:${primary.port}`]: { host: '127.0.0.1', port: proxy.port } },
  })
  return { client, proxies: [proxy] }
}

describe.each(Object.entries(CLIENTS))(
  'with %s, a call whose reply is lost with the connection',
  (_what, start) => {
    async function setUp() {
      const { client, proxies } = await start()
      client.on('error', () => {})
      onTestFinished(() => client.disconnect())
      const limiter = redisRateLimiter(client, {
        keyPrefix: randomUUID(),
        timeoutMs: 1_000,
        onUnavailable: 'closed',
        denials: false,
      })
      await expect.poll(() => ask(limiter).catch(() => null)).toMatchObject({ outcome: 'admitted' })

      /**
       * Does something whose reply is kept back. The server has done it by then, unless what was kept back is the reply to something
       * else that the client has asked for.
       */
      async function lose(act: () => Promise<unknown>): Promise<PromiseSettledResult<unknown>> {
        const held = Promise.race(proxies.map((proxy) => proxy.hold('evalsha')))
        const [settled] = [Promise.allSettled([act()])]
        await held
        for (const proxy of proxies) proxy.cut()
        const [outcome] = await settled
        return outcome as PromiseSettledResult<unknown>
      }

      /** What is left, once the connection is there again. */
      async function remaining(): Promise<number | undefined> {
        let answer: LimitAnswer | null = null
        await expect
          .poll(
            async () => {
              answer = await ask(limiter, { cost: 0, fresh: false }).catch(() => null)
              return answer?.outcome
            },
            { timeout: 8_000 },
          )
          .toBe('admitted')
        return (answer as LimitAnswer | null)?.outcome === 'admitted'
          ? (answer as unknown as { limits: { remaining: number }[] }).limits[0]?.remaining
          : undefined
      }

      /** Loses replies until the server has done it: how much is left then, of so much before. */
      async function remainingAfterLoss(
        of: number,
        act: () => Promise<unknown>,
      ): Promise<number | undefined> {
        for (;;) {
          await lose(act)
          const left = await remaining()
          if (left !== of) return left
        }
      }

      return { limiter, lose, remaining, remainingAfterLoss }
    }

    it('is charged once, and admits nobody', async () => {
      const { limiter, remaining, remainingAfterLoss } = await setUp()
      const before = (await remaining()) as number
      for (let i = 0; i < times({ short: 1, soak: 3 }); i++) {
        let admitted = 0
        const spend = () => ask(limiter, { cost: 10 }).then(() => (admitted += 1))
        expect(await remainingAfterLoss(before - 10 * i, spend)).toBe(before - 10 * (i + 1))
        expect(admitted).toBe(0)
      }
    })

    it('is settled once, by the service itself, once the connection is there again', async () => {
      const { limiter, lose } = await setUp()
      const keys = createApiKeys({
        store: memoryStore(),
        rateLimiter: limiter,
        prefix: 'acme',
        rateLimits: [{ name: 'tokens', limit: 1_000, windowMs: 3_600_000, scope: 'owner', only: 'named' }],
        onEvent: () => {},
      })
      const { key, apiKey } = await keys.issue(NAME)
      const result = await keys.verify(key, { cost: { tokens: 10 } })
      if (!result.ok) throw new Error(result.code)
      // The server knows the script from then on: otherwise it would say no more than that it does not.
      await keys.settle(result, { tokens: 10 })
      const lost = await lose(() => keys.settle(result, { tokens: 40 }))
      expect(lost).toMatchObject({ status: 'rejected', reason: { code: 'unavailable' } })
      await expect
        .poll(
          () =>
            keys.flush().then(
              () => true,
              () => false,
            ),
          { timeout: 8_000 },
        )
        .toBe(true)
      expect(await keys.limits(apiKey.id)).toMatchObject([{ name: 'tokens', remaining: 960 }])
      await keys.settle(result, { tokens: 15 })
      expect(await keys.limits(apiKey.id)).toMatchObject([{ remaining: 985 }])
      await keys.close()
    })

    it('gives back once what it gives back', async () => {
      const { limiter, remaining, remainingAfterLoss } = await setUp()
      const before = (await remaining()) as number
      const spent = await ask(limiter, { cost: 40 })
      const chargedAt = spent.outcome === 'admitted' ? (spent.chargedAt as number) : 0
      // The server knows the script from then on: otherwise it would say no more than that it does not.
      await giveBack(limiter, { lineageId: 'l', cost: 0, chargedAt, limits })
      const give = async () => giveBack(limiter, { lineageId: 'l', cost: 10, chargedAt, limits })
      expect(await remainingAfterLoss(before - 40, give)).toBe(before - 30)
    })
  },
)

describe('a client that sends everything twice', () => {
  it('gives back once', async () => {
    const redis = new Redis(inject('redisUrl'))
    onTestFinished(() => redis.disconnect())
    const twice: RedisClient = {
      async eval(...args) {
        await redis.eval(...args)
        return redis.eval(...args)
      },
      async evalsha(...args) {
        await redis.evalsha(...args)
        return redis.evalsha(...args)
      },
    }
    const keyPrefix = randomUUID()
    const limiter = redisRateLimiter(redis, { keyPrefix, timeoutMs: 5_000, onUnavailable: 'closed' })
    const repeating = redisRateLimiter(twice, { keyPrefix, timeoutMs: 5_000, onUnavailable: 'closed' })
    const spent = await ask(limiter, { cost: 40 })
    const chargedAt = spent.outcome === 'admitted' ? (spent.chargedAt as number) : 0
    for (let i = 0; i < 2; i++) await giveBack(repeating, { lineageId: 'l', cost: 10, chargedAt, limits })
    expect(await ask(limiter, { cost: 0 })).toMatchObject({ limits: [{ remaining: 80 }] })
  })
})

describe('the connection of the limiters', () => {
  const connections = async (admin: Redis, name: string) =>
    String(await admin.client('LIST'))
      .split('\n')
      .filter((line) => line.includes(` name=${name} `)).length

  it('is one for each client, and ends when it does', async () => {
    const admin = new Redis(inject('redisUrl'))
    const connectionName = randomUUID()
    const client = new Redis(inject('redisUrl'), { connectionName })
    onTestFinished(() => admin.disconnect())
    for (let i = 0; i < 20; i++)
      await ask(redisRateLimiter(client, { keyPrefix: randomUUID(), timeoutMs: 5_000 }))
    expect(await connections(admin, connectionName)).toBe(2)
    client.disconnect()
    await expect.poll(() => connections(admin, connectionName)).toBe(0)
  })

  it('is made anew where the client is connected again after its end', async () => {
    const client = new Redis(inject('redisUrl'))
    onTestFinished(() => client.disconnect())
    const limiter = redisRateLimiter(client, {
      keyPrefix: randomUUID(),
      onUnavailable: 'closed',
      timeoutMs: 5_000,
    })
    await ask(limiter)
    await client.quit()
    await expect.poll(() => client.status).toBe('end')
    await expect(ask(limiter)).rejects.toThrow('Connection is closed')
    await client.connect()
    expect(await ask(limiter)).toMatchObject({ outcome: 'admitted', limits: [{ remaining: 98 }] })
  })

  it('keeps no process alive, nor does a call that waits for an answer, however long it may take', async () => {
    const proxy = await proxyTo(Number(new URL(inject('redisUrl')).port))
    const program = `
      import { Redis } from 'ioredis'
      import { createApiKeys, memoryStore } from 'latchkey'
      import { redisRateLimiter } from 'latchkey/redis'
      const redis = new Redis(${proxy.port})
      const rateLimiter = redisRateLimiter(redis, { timeoutMs: 60_000 })
      const keys = createApiKeys({ store: memoryStore(), rateLimiter, prefix: 'acme', onEvent() {} })
      const { key } = await keys.issue({ owner: { type: 'user', id: 'u' }, name: 'n' })
      await keys.verify(key)
      process.stdout.write('verified\\n')
      await new Promise((resolve) => process.stdin.once('data', resolve))
      process.stdin.destroy()
      keys.verify(key).catch(() => {})
      redis.disconnect()
    `
    const running = promisify(execFile)(process.execPath, [
      '--import',
      'tsx',
      '--input-type=module',
      '-e',
      program,
    ])
    const { stdin, stdout } = running.child
    await new Promise((resolve) => stdout?.once('data', resolve))
    void proxy.hold()
    stdin?.end('go on')
    expect(await running).toMatchObject({ stderr: '' })
  })
})
