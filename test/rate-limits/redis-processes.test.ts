import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { changeUnderLoad } from '../support/change-under-load.ts'
import { type RedisWorkers, startRedisWorkers, sumOf } from '../support/redis-workers.ts'
import { ALICE } from '../support/test-keys.ts'

// The same at length, for every kind of change and on a Cluster, is in test/soak/redis-processes.test.ts.
describe('four processes that use one key at once', () => {
  let started: RedisWorkers
  beforeAll(async () => {
    started = await startRedisWorkers(4, { redisUrl: inject('redisUrl'), name: `processes-${randomUUID()}` })
  })
  afterAll(() => started.stop())

  it('are admitted exactly as often as the limit says', async () => {
    const [first] = started.workers
    const rateLimits = [{ name: 'window', limit: 300, windowMs: 600_000 }]
    const { key } = await first.run('issue', { owner: ALICE, name: 'CI', rateLimits })
    const work = { key, calls: 200, inFlight: 20 }
    const tallies = await Promise.all(started.workers.map((worker) => worker.run('hammer', work)))
    expect(sumOf(tallies)).toEqual({ admitted: 300, refused: { rate_limited: 500 } })
  })

  it('are refused by every call that begins once one of them has revoked it', async () => {
    for (const revoking of started.workers) {
      const { key, apiKey } = await revoking.run('issue', { owner: ALICE, name: 'CI' })
      const load = { given: [key], calls: 50, inFlight: 5 }
      const seen = await changeUnderLoad(started.workers, load, () =>
        revoking.run('change', { method: 'revoke', args: [apiKey.id] }),
      )
      expect(seen).toMatchObject({ admittedLate: 0, outcomes: ['invalid_key: revoked'] })
      expect(seen.fewestRefusedLate).toBeGreaterThanOrEqual(load.calls)
    }
  })
})
