import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import {
  type Breaking,
  type ConsumerLoad,
  isAllowed,
  loadConsumer,
  revokeBehindAnswer,
  revokeUnderLoad,
  sufferOutage,
  useUpLimit,
} from '../support/remote-proofs.ts'
import { MOST_TICKS, startTwoServices, type TwoServices } from '../support/two-services.ts'

// Child processes are slow where much else runs.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 })

// The same at length, with several services, and outages one upon the other, is in test/soak/remote-services.test.ts.
describe('a consumer under load and the service that it asks, each a process of its own', () => {
  let world: TwoServices
  let load: ConsumerLoad
  beforeAll(async () => {
    world = await startTwoServices({ consumers: 2, cacheMs: 400, timeoutMs: 800 })
    load = await loadConsumer(world, world.consumers[0])
  })
  afterAll(async () => {
    const answered = await load?.stop()
    await world?.stop()
    expect(answered?.filter((answer) => !isAllowed(answer))).toEqual([])
  })

  it('admits no request that began longer after a revocation than an answer is remembered', async () => {
    const [service] = world.services
    const seen = [await revokeUnderLoad(world, service), await revokeUnderLoad(world, service)]
    for (const { late, wrong } of seen) expect({ late, wrong }).toEqual({ late: [], wrong: [] })
    // Otherwise nothing was remembered, and this shows nothing.
    expect(seen.some(({ afterwards }) => afterwards > 0)).toBe(true)
  })

  it('counts the age of an answer from the question, however late it comes', async () => {
    expect(await revokeBehindAnswer(world)).toEqual([])
  })

  const outages: [string, (world: TwoServices) => Breaking][] = [
    ['is killed and restarted', ({ services: [{ kill, restart }] }) => ({ break: kill, mend: restart })],
    ['stands still', ({ services: [{ pause, resume }] }) => ({ break: pause, mend: resume })],
    ['closes its port', ({ services: [{ closePort, openPort }] }) => ({ break: closePort, mend: openPort })],
  ]
  it('admits what it remembers, and says 503 of all else, while the service is away', async () => {
    let fromCache = 0
    for (const [what, how] of outages) {
      const seen = await sufferOutage(world, world.consumers[0], load, how(world))
      expect({ wrong: seen.wrong, late: seen.late }, what).toEqual({ wrong: [], late: [] })
      expect(seen.faults.length, what).toBeGreaterThan(0)
      expect(seen.mostTicks, what).toBeLessThanOrEqual(MOST_TICKS)
      fromCache += seen.fromCache
    }
    // What the service said last may be too old by the time it is away; not each time, though.
    expect(fromCache).toBeGreaterThan(0)
  })

  it('says 503, and why to its own operator, once its own key is revoked, until it has another', async () => {
    const [consumer] = world.consumers
    const seen = await sufferOutage(world, consumer, load, {
      break: () => consumer.service.admin.revoke(consumer.own.apiKey.id),
      mend: async () => {
        const { key } = await world.issue({ permissions: { 'api-keys': ['verify'] } })
        await consumer.run('useKey', key)
      },
    })
    expect({ wrong: seen.wrong, late: seen.late }).toEqual({ wrong: [], late: [] })
    expect(seen.faults).toContainEqual({ operation: 'remote', code: 'invalid_key', responseStatus: 401 })
  })

  it.each([
    ['exactly', { limit: 150, kills: 0 }],
    ['while the service is killed and restarted', { limit: 300, kills: 1 }],
  ])('shares a limit with others %s', async (_how, { limit, kills }) => {
    const seen = await useUpLimit(world, { limit, kills })
    expect(seen).toMatchObject({ wrong: [], admittedBy: world.consumers.length })
    expect(seen.admitted).toBeLessThanOrEqual(limit)
    // What was charged and never answered is spent, and nothing else is.
    expect(seen.admitted + seen.lost).toBeGreaterThanOrEqual(limit)
  })
})
