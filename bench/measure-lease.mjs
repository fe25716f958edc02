/**
 * `keys.verify(key)` of a key with a quota, while a lease is in hand, beside that of one without: `measure-lease.mjs <rounds>
 * <seed>`. Runs in a process of its own; sends one object per round that maps each subject to CPU nanoseconds per call.
 */
import { createRandom, shuffle } from './statistics.mjs'
import { createKeys, oneLimit } from './targets.mjs'

const rounds = Number(process.argv[2])
const random = createRandom(Number(process.argv[3]))
const callsPerTurn = 500
const turnsPerRound = 60
const warmupRounds = 4
/** It is never spent, and leased for longer than all rounds take: exchanges do not count. */
const quota = { remaining: 1_000_000_000_000 }

const subjects = [
  await createSubject('plain', { rateLimits: [] }),
  await createSubject('plain-again', { rateLimits: [] }),
  await createSubject('leased', { rateLimits: [], quota }),
  await createSubject('limited', { rateLimits: oneLimit }),
  await createSubject('limited-leased', { rateLimits: oneLimit, quota }),
]

const measured = []
for (let round = -warmupRounds; round < rounds; round += 1) {
  const figures = await runRound()
  if (round >= 0) measured.push(figures)
}
for (const { keys } of subjects) await keys.close()
process.send(measured, () => process.disconnect())

async function createSubject(name, options) {
  return { name, ...(await createKeys(options)) }
}

async function runRound() {
  const totals = Object.fromEntries(subjects.map(({ name }) => [name, 0]))
  for (let turn = 0; turn < turnsPerRound; turn += 1) {
    for (const { name, keys, key } of shuffle(subjects, random)) {
      const before = process.cpuUsage()
      for (let call = 0; call < callsPerTurn; call += 1) {
        const result = await keys.verify(key)
        if (!result.ok) throw new Error(`verify refused a good key: ${result.code}`)
      }
      const { user, system } = process.cpuUsage(before)
      totals[name] += user + system
    }
  }
  const calls = turnsPerRound * callsPerTurn
  return Object.fromEntries(Object.entries(totals).map(([name, cpuUs]) => [name, (cpuUs * 1000) / calls]))
}
