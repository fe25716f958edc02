import { randomInt } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { times } from '../support/long-run.ts'
import { createRandom } from '../support/random.ts'
import {
  type Breaking,
  type ConsumerLoad,
  isAllowed,
  loadConsumer,
  type Outage,
  revokeBehindAnswer,
  revokeUnderLoad,
  sufferOutage,
  useUpLimit,
} from '../support/remote-proofs.ts'
import { type AuthService, MOST_TICKS, startTwoServices, type TwoServices } from '../support/two-services.ts'

// Child processes are slow where much else runs.
vi.setConfig({ testTimeout: 600_000, hookTimeout: 120_000 })

const seed = Number(process.env.CRASH_SEED ?? randomInt(1_000_000))
const random = createRandom(seed)

const REVOCATIONS = times({ soak: 4, long: 24 })
const LATE_ANSWERS = times({ soak: 2, long: 10 })
const ROUNDS = times({ soak: 1, long: 4 })

describe(`consumers under load and two services that they ask: seed ${seed}`, () => {
  let world: TwoServices
  let loads: ConsumerLoad[]
  beforeAll(async () => {
    world = await startTwoServices({ services: 2, consumers: 4, cacheMs: 600, timeoutMs: 1_200 })
    loads = [
      await loadConsumer(world, world.consumers[0]),
      await loadConsumer(world, world.consumers[1] as never),
    ]
  })
  afterAll(async () => {
    const answered = (await Promise.all((loads ?? []).map((load) => load.stop()))).flat()
    await world?.stop()
    expect(answered.filter((answer) => !isAllowed(answer))).toEqual([])
  })

  it('admit no request that began longer after a revocation than an answer is remembered', async () => {
    let afterwards = 0
    for (let round = 0; round < REVOCATIONS; round += 1) {
      // Half of the consumers ask the service that has revoked it, the others one that has it in its memory as well.
      const seen = await revokeUnderLoad(world, world.services[round % 2] as AuthService)
      expect({ late: seen.late, wrong: seen.wrong }, `round ${round}`).toEqual({ late: [], wrong: [] })
      afterwards += seen.afterwards
    }
    expect(afterwards).toBeGreaterThan(0)
  })

  it('count the age of an answer from the question, however late it comes', async () => {
    for (let round = 0; round < LATE_ANSWERS; round += 1) {
      expect(await revokeBehindAnswer(world), `round ${round}`).toEqual([])
    }
  })

  const outages: [string, (service: AuthService) => Breaking][] = [
    ['is killed and restarted', ({ kill, restart }) => ({ break: kill, mend: restart })],
    ['stands still', ({ pause, resume }) => ({ break: pause, mend: resume })],
    ['closes its port', ({ closePort, openPort }) => ({ break: closePort, mend: openPort })],
    [
      'is killed while it stands still',
      ({ pause, kill, restart }) => ({
        break() {
          pause()
          return kill()
        },
        mend: restart,
      }),
    ],
    [
      'dies again and again',
      ({ kill, restart }) => ({
        break: kill,
        async mend() {
          await restart()
          await kill()
          await restart()
        },
      }),
    ],
  ]
  it.each(outages)(
    'admit what they remember, and say 503 of all else: the service %s',
    async (_what, how) => {
      const seen: Outage[] = []
      const hasRemembered = () => seen.some(({ fromCache }) => fromCache > 0)
      // On a busy machine what is remembered may be too old by the time that the service is away.
      for (let round = 0; round < ROUNDS || (round < 10 && !hasRemembered()); round += 1) {
        const at = random.below(2)
        const [consumer, load] = [world.consumers[at], loads[at]]
        if (!consumer || !load) throw new Error('there is none')
        const outage = await sufferOutage(world, consumer, load, how(consumer.service))
        expect({ wrong: outage.wrong, late: outage.late }, `round ${round}`).toEqual({ wrong: [], late: [] })
        expect(outage.faults.length).toBeGreaterThan(0)
        expect(outage.mostTicks).toBeLessThanOrEqual(MOST_TICKS)
        seen.push(outage)
      }
      expect(hasRemembered()).toBe(true)
    },
  )

  it('forget in time what was revoked at another service while theirs was away', async () => {
    const [consumer] = world.consumers
    const [load] = loads as [ConsumerLoad]
    const [own, other] = world.services as unknown as [AuthService, AuthService]
    for (let round = 0; round < ROUNDS; round += 1) {
      const { key, apiKey } = await world.issue()
      const outage = await sufferOutage(world, consumer, load, {
        async break() {
          const ask = () =>
            fetch(`http://127.0.0.1:${consumer.port}/cached`, { headers: { 'X-Api-Key': key } })
          expect((await ask()).status).toBe(200)
          own.pause()
          await other.admin.revoke(apiKey.id)
          const revokedAt = performance.now()
          const late: number[] = []
          for (;;) {
            const startedAt = performance.now()
            const { status } = await ask()
            if (status === 200 && startedAt > revokedAt + world.cacheMs) late.push(startedAt - revokedAt)
            if (status !== 200) break
          }
          expect(late).toEqual([])
        },
        mend: () => own.resume(),
      })
      expect({ wrong: outage.wrong, late: outage.late }, `round ${round}`).toEqual({ wrong: [], late: [] })
    }
  })

  it('say 503, and why to their own operator, once their own key is revoked, until they have another', async () => {
    const [consumer] = world.consumers
    const [load] = loads as [ConsumerLoad]
    let { own } = consumer
    for (let round = 0; round < ROUNDS; round += 1) {
      const outage = await sufferOutage(world, consumer, load, {
        break: () => world.services[round % 2]?.admin.revoke(own.apiKey.id),
        async mend() {
          own = await world.issue({ permissions: { 'api-keys': ['verify'] } })
          await consumer.run('useKey', own.key)
        },
      })
      expect({ wrong: outage.wrong, late: outage.late }, `round ${round}`).toEqual({ wrong: [], late: [] })
      expect(outage.faults).toContainEqual({ operation: 'remote', code: 'invalid_key', responseStatus: 401 })
    }
  })

  it.each([
    ['exactly', { limit: 2_000, kills: 0 }],
    [
      'while the services are killed and restarted',
      { limit: times({ soak: 2_000, long: 4_000 }), kills: times({ soak: 2, long: 3 }) },
    ],
  ])('share a limit %s', async (_how, { limit, kills }) => {
    const seen = await useUpLimit(world, { limit, kills })
    expect(seen).toMatchObject({ wrong: [], admittedBy: 4 })
    expect(seen.admitted).toBeLessThanOrEqual(limit)
    // What was charged and never answered is spent, and nothing else is.
    expect(seen.admitted + seen.lost).toBeGreaterThanOrEqual(limit)
  })
})
