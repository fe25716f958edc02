/**
 * `keys.verify(key)`, warm, beside one SHA-256 of the same key, and beside `verify` of remote keys that know the answer: `measure-verify.mjs <rounds> <seed>`.
 * Runs in a process of its own; sends one object per round that maps each subject to CPU nanoseconds per call.
 */
import { hash } from 'node:crypto'
import { createRandom, shuffle } from './statistics.mjs'
import { createKeys, oneLimit } from './targets.mjs'

const rounds = Number(process.argv[2])
const random = createRandom(Number(process.argv[3]))
const callsPerTurn = 1_000
const turnsPerRound = 20
const warmupRounds = 3

const limited = await createKeys({ rateLimits: oneLimit })
const unlimited = await createKeys({ rateLimits: [] })
const remote = await createRemoteKeys(unlimited)
const subjects = [
  { name: 'sha256', run: () => runHash(limited.key) },
  { name: 'sha256-again', run: () => runHash(limited.key) },
  { name: 'verify', run: () => runVerify(limited) },
  { name: 'verify-unlimited', run: () => runVerify(unlimited) },
  { name: 'verify-remote', run: () => runVerify(remote) },
]

const measured = []
for (let round = -warmupRounds; round < rounds; round += 1) {
  const figures = await runRound()
  if (round >= 0) measured.push(figures)
}
await limited.keys.close()
await unlimited.keys.close()
process.send(measured, () => process.disconnect())

async function runRound() {
  const totals = Object.fromEntries(subjects.map(({ name }) => [name, 0]))
  for (let turn = 0; turn < turnsPerRound; turn += 1) {
    for (const { name, run } of shuffle(subjects, random)) {
      const before = process.cpuUsage()
      await run()
      const { user, system } = process.cpuUsage(before)
      totals[name] += user + system
    }
  }
  const calls = turnsPerRound * callsPerTurn
  return Object.fromEntries(Object.entries(totals).map(([name, cpuUs]) => [name, (cpuUs * 1000) / calls]))
}

/** The service is asked once, in this process: what is measured is how the answer that is remembered is used. */
async function createRemoteKeys({ keys, key }) {
  const { remoteApiKeys } = await import('../dist/remote.mjs')
  const client = {
    async verify(request) {
      const { apiKey, limits } = await keys.verify(request.key, { cost: 0 })
      return { active: true, apiKey, limits }
    },
  }
  return { keys: remoteApiKeys(client, { cacheMs: 3_600_000 }), key }
}

async function runVerify({ keys, key }) {
  for (let call = 0; call < callsPerTurn; call += 1) {
    const result = await keys.verify(key)
    if (!result.ok) throw new Error(`verify refused a good key: ${result.code}`)
  }
}

function runHash(key) {
  for (let call = 0; call < callsPerTurn; call += 1) {
    if (hash('sha256', key).length !== 64) throw new Error('not a SHA-256')
  }
}
