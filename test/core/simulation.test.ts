import { expect, it } from 'vitest'
import { simulate } from '../support/simulation.ts'

const seed = Number(process.env.SIMULATION_SEED ?? 1)
const runs = Number(process.env.SIMULATION_RUNS ?? 3_000)

// Which promises these are, and what may happen to them: test/support/simulation.ts.
it(`promises hold in ${runs} simulations from SIMULATION_SEED=${seed}`, { timeout: 300_000 }, async () => {
  const tally = await simulate(runs, seed)
  // One in which nothing happens would prove nothing.
  const happened = [
    'admitted',
    'revoked',
    'rate_limited',
    'quota_exceeded',
    'change',
    'crash',
    'limiter lost',
  ]
  if (runs >= 1_000) for (const what of happened) expect(tally, what).toHaveProperty([what])
})
