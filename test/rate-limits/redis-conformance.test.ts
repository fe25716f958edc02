import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { Cluster, Redis } from 'ioredis'
import { redisRateLimiter } from 'latchkey/redis'
import { limiterConformance, type MadeLimiter } from 'latchkey/testing'
import { createClient, createCluster } from 'redis'
import { createClient as createClient5, createCluster as createCluster5 } from 'redis5'
import { afterAll, beforeAll, describe, inject, test } from 'vitest'
import { NodeRedisAdapter } from '../../lib/redis/node-redis.ts'
import { longOnly, soakOnly, times } from '../support/long-run.ts'
import { clusterOptions, connecting } from '../support/node-redis.ts'
import { type TimedRedis, timedCluster, timedRedis } from '../support/redis-time.ts'

const T0 = Date.UTC(2026, 0, 15, 12)
const seed = process.env.MODEL_SEED === undefined ? {} : { seed: Number(process.env.MODEL_SEED) }

describe('on one Redis', () => {
  const client = new Redis(inject('redisUrl'))
  afterAll(() => client.disconnect())
  const runs = Number(process.env.MODEL_RUNS ?? times({ short: 30, soak: 150, long: 4_000 }))
  limiterConformance({ test, assert, runs, ...seed }, () => made(timedRedis(client, `clock-${randomUUID()}`)))
})

describe('on a Cluster', () => {
  const client = new Cluster(inject('clusterNodes'))
  afterAll(() => client.disconnect())
  limiterConformance({ test, assert, runs: times({ short: 3, soak: 30 }), ...seed }, () =>
    made(timedCluster(client)),
  )
})

const byUrl = () => ({ url: inject('redisUrl') })

describe.each(
  Object.entries({
    'node-redis 6': () => connecting(createClient(byUrl())),
    ...longOnly({
      'node-redis 6 over RESP2': () => connecting(createClient({ ...byUrl(), RESP: 2 })),
      'node-redis 5': () => connecting(createClient5(byUrl())),
    }),
  }),
)('on one Redis, by %s', (_name, connect) => {
  const client = connect()
  beforeAll(() => client.connected)
  afterAll(() => client.disconnect())
  const adapted = new NodeRedisAdapter(client)
  const set = (key: string, value: string) => client.set(key, value)
  limiterConformance({ test, assert, runs: times({ short: 5, soak: 30, long: 200 }), ...seed }, () =>
    made(timedRedis(Object.assign(adapted, { set }), `clock-${randomUUID()}`)),
  )
})

describe.each(
  Object.entries({
    ...soakOnly({
      'node-redis 6': () => connecting(createCluster(clusterOptions(inject('clusterNodes')))),
    }),
    ...longOnly({
      'node-redis 5': () => connecting(createCluster5(clusterOptions(inject('clusterNodes')))),
    }),
  }),
)('on a Cluster, by %s', (_name, connect) => {
  const client = connect()
  beforeAll(() => client.connected)
  afterAll(() => client.disconnect())
  limiterConformance({ test, assert, runs: times({ soak: 3, long: 10 }), ...seed }, () =>
    made(timedCluster(new NodeRedisAdapter(client))),
  )
})

/** Two limiters that share their counts, and remember no refusal: those would not reach the script. */
async function made(client: TimedRedis): Promise<MadeLimiter> {
  let now = T0
  await client.setTime(now)
  const options = {
    keyPrefix: randomUUID(),
    timeoutMs: 10_000,
    onUnavailable: 'closed',
    denials: false,
  } as const
  return {
    limiter: redisRateLimiter(client, options),
    peer: redisRateLimiter(client, options),
    clock: {
      now: () => now,
      async advance(ms) {
        now += ms
        await client.setTime(now)
      },
    },
  }
}
