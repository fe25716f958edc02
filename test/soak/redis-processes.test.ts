import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import type { IssueOptions, Owner } from 'latchkey'
import { afterAll, beforeAll, describe, expect, inject, it, onTestFinished } from 'vitest'
import { changeUnderLoad } from '../support/change-under-load.ts'
import { times } from '../support/long-run.ts'
import type { Change } from '../support/redis-worker.ts'
import { type RedisWorker, type RedisWorkers, startRedisWorkers, sumOf } from '../support/redis-workers.ts'
import { ALICE } from '../support/test-keys.ts'

const redisUrl = inject('redisUrl')
const PROCESSES = 8
const IN_FLIGHT = 6

const redis = new Redis(redisUrl)
afterAll(() => redis.disconnect())

const servers: [string, { clusterNodes?: { host: string; port: number }[] }][] = [
  ['a Redis', {}],
  ['a Cluster', { clusterNodes: inject('clusterNodes') }],
]

describe.each(servers)('processes that share %s', (_what, limiter) => {
  const settings = { redisUrl, ...limiter, name: `soak-${randomUUID()}` }
  let started: RedisWorkers
  let workers: readonly RedisWorker[]
  beforeAll(async () => {
    started = await startRedisWorkers(PROCESSES, settings)
    workers = started.workers
  })
  afterAll(() => started.stop())

  const workerAt = (i: number) => workers[i % PROCESSES] as RedisWorker
  const issue = (settings: Partial<IssueOptions> = {}) =>
    workerAt(0).run('issue', { owner: ALICE, name: 'CI', ...settings })

  it('admit a key exactly as often as its limit says: four of them, 4,000 calls', async () => {
    const { key } = await issue({ rateLimits: [{ name: 'window', limit: 1_000, windowMs: 600_000 }] })
    const work = { key, calls: 1_000, inFlight: 50 }
    const tallies = await Promise.all(workers.slice(0, 4).map((worker) => worker.run('hammer', work)))
    expect(sumOf(tallies)).toEqual({ admitted: 1_000, refused: { rate_limited: 3_000 } })
    // Otherwise they have not raced.
    expect(tallies.filter(({ admitted }) => admitted > 0).length).toBeGreaterThan(1)
  })

  it('admit no call that begins once a revocation has resolved: 50,000 calls', async () => {
    const { key, apiKey } = await issue()
    const load = { given: [key], calls: 3_200, inFlight: IN_FLIGHT }
    const seen = await changeUnderLoad(workers, load, () =>
      workerAt(3).run('change', { method: 'revoke', args: [apiKey.id] }),
    )
    expect(seen).toMatchObject({ admittedLate: 0, outcomes: ['invalid_key: revoked'] })
    expect(seen.verified).toBeGreaterThanOrEqual(50_000)
    expect(seen.admitted).toBeGreaterThanOrEqual(PROCESSES * load.calls)
    expect(seen.fewestRefusedLate).toBeGreaterThanOrEqual(load.calls)
  })

  const changes: [
    what: string,
    outcome: string,
    keys: number,
    changeOf: (id: string, owner: Owner) => Change,
  ][] = [
    ['a key is revoked', 'invalid_key: revoked', 1, (id) => ({ method: 'revoke', args: [id] })],
    ['a key is disabled', 'invalid_key: disabled', 1, (id) => ({ method: 'disable', args: [id] })],
    [
      'a key may be used elsewhere only',
      'address_not_allowed',
      1,
      (id) => ({ method: 'update', args: [id, { allowedIps: ['192.0.2.0/24'] }] }),
    ],
    [
      'a key is rotated without grace',
      'invalid_key: expired',
      1,
      (id) => ({ method: 'rotate', args: [id, { graceMs: 0 }] }),
    ],
    [
      'the keys of an owner are revoked',
      'invalid_key: revoked',
      3,
      (_id, owner) => ({ method: 'revokeOwner', args: [owner] }),
    ],
    [
      'an owner is no longer active',
      'invalid_key: owner_inactive',
      3,
      (_id, owner) => ({ method: 'invalidateOwner', args: [owner] }),
    ],
  ]
  it.each(changes)(
    'admit no call that begins once a change has resolved: %s',
    async (_what, outcome, count, changeOf) => {
      for (let round = 0; round < times({ soak: 2, long: 2 * PROCESSES }); round += 1) {
        const owner = { type: 'user', id: randomUUID() }
        const issued = await Promise.all(Array.from({ length: count }, () => issue({ owner })))
        const change = changeOf(issued[0]?.apiKey.id ?? '', owner)
        const load = { given: issued.map(({ key }) => key), calls: 60, inFlight: IN_FLIGHT }
        const seen = await changeUnderLoad(workers, load, async () => {
          if (change.method === 'invalidateOwner') await redis.sadd(`${settings.name}:inactive`, owner.id)
          return workerAt(round).run('change', change)
        })
        expect(seen, `round ${round}`).toMatchObject({ admittedLate: 0, outcomes: [outcome] })
        expect(seen.fewestRefusedLate).toBeGreaterThanOrEqual(load.calls)
      }
    },
  )

  it('admit no such call either where records are read again all the time', async () => {
    const others = await startRedisWorkers(4, { ...settings, maxAgeMs: 10 })
    onTestFinished(() => others.stop())
    for (let round = 0; round < times({ soak: 3, long: 3 * PROCESSES }); round += 1) {
      const { key, apiKey } = await issue()
      const load = { given: [key], calls: 60, inFlight: IN_FLIGHT }
      const seen = await changeUnderLoad(others.workers, load, () =>
        workerAt(round).run('change', { method: 'revoke', args: [apiKey.id] }),
      )
      expect(seen, `round ${round}`).toMatchObject({ admittedLate: 0, outcomes: ['invalid_key: revoked'] })
      expect(seen.fewestRefusedLate).toBeGreaterThanOrEqual(load.calls)
    }
  })
})
