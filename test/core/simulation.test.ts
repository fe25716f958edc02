import { expect, it } from 'vitest'
import { firstSeed, times } from '../support/long-run.ts'
import { simulate } from '../support/simulation.ts'

const seed = Number(process.env.SIMULATION_SEED ?? firstSeed)
const runs = Number(process.env.SIMULATION_RUNS ?? times({ short: 300, soak: 1_500, long: 40_000 }))

// Which promises these are, and what may happen to them: test/support/simulation.ts.
it(`promises hold in ${runs} simulations from SIMULATION_SEED=${seed}`, { timeout: 1_800_000 }, async () => {
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
  if (runs >= 300) for (const what of happened) expect(tally, what).toHaveProperty([what])
})
