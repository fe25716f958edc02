import { memoryStore, type Proposal } from 'latchkey'
import { expect, it } from 'vitest'
import { fakeClock } from '../support/fake-clock.ts'
import { record } from '../support/key-records.ts'
import { firstSeed, times } from '../support/long-run.ts'
import { createRandom } from '../support/random.ts'
import { recordingStore } from '../support/recording-store.ts'
import { createTestKeys } from '../support/test-keys.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR
const seed = Number(process.env.SIMULATION_SEED ?? firstSeed)
const runs = Number(process.env.SIMULATION_RUNS ?? times({ short: 2, soak: 30, long: 500 }))

interface Process {
  isDead: boolean
  /** What it has reported, and not yet noted in the store. */
  unnoted: Set<string>
  keys: ReturnType<typeof createTestKeys>['keys']
}

/** Processes that die, are slow, and lose replies, for 26 days in which 250 keys expire. */
async function simulate(seed: number) {
  const { chance, below } = createRandom(seed)
  const inner = memoryStore()
  const clock = fakeClock()
  const first = new Map<string, { by: Process; at: number }>()
  const repeated: string[] = []

  function tell(by: Process, what: string): void {
    const before = first.get(what)
    // Nobody else may go on before a process has been silent for two minutes.
    const isExcused = before?.by.unnoted.has(what) && clock.now() - before.at >= 60_000
    if (before && !isExcused) repeated.push(what)
    first.set(what, { by, at: clock.now() })
    by.unnoted.add(what)
  }

  function start(): Process {
    const store = recordingStore(inner)
    const made: Process = { isDead: false, unnoted: new Set(), keys: undefined as never }
    for (const method of ['agree', 'list'] as const) {
      store.fail(method, async (work, _name, proposal) => {
        if (!made.isDead && chance(0.02)) {
          made.isDead = true
          // The dead set no timers.
          made.keys.close().catch(() => {})
        }
        if (made.isDead) {
          // What it had sent may still be done.
          if (chance(0.5)) await work()
          return new Promise(() => {})
        }
        if (chance(0.05)) throw new Error('connection refused')
        const result = await work()
        if (method === 'agree' && result === (proposal as Proposal | null)?.value) made.unnoted.clear()
        if (chance(0.05)) throw new Error('connection reset')
        if (chance(0.1)) await new Promise<void>((resolve) => clock.setTimer(resolve, below(200_000)))
        return result
      })
    }
    made.keys = createTestKeys({
      clock,
      store,
      timeoutMs: 30_000,
      expiryReminders: { everyMs: 6 * HOUR },
      onEvent(event) {
        if (event.type === 'key.expiring' && !made.isDead)
          tell(made, `${event.keyId} ${event.beforeMs / DAY}`)
      },
    }).keys
    return made
  }

  const expected = new Set<string>()
  const records = Array.from({ length: 250 }, (_, i) => {
    for (const days of [14, 7, 1]) expected.add(`k${i} ${days}`)
    const expiresAt = new Date(clock.now() + 15 * DAY + below(240) * HOUR)
    return record({ id: `k${i}`, createdAt: new Date(clock.now() - i), expiresAt })
  })
  await inner.insert(records)
  let processes = Array.from({ length: 4 }, start)
  for (let hour = 0; hour < 26 * 24; hour += 6) {
    await clock.advance(6 * HOUR)
    processes = processes.map((process) => (process.isDead ? start() : process))
  }
  for (const { keys } of processes) keys.close().catch(() => {})
  return { told: new Set(first.keys()), expected, repeated }
}

it.each(Array.from({ length: runs }, (_, i) => seed + i))(
  'processes lose no reminder, and repeat none but those of one that died or lost the store in that moment (SIMULATION_SEED=%i)',
  { timeout: 60_000 },
  async (one) => {
    const { told, expected, repeated } = await simulate(one)
    expect([...expected].filter((what) => !told.has(what))).toEqual([])
    expect(told.size).toBe(expected.size)
    expect(repeated).toEqual([])
  },
)
