import { expect, it } from 'vitest'
import { simulate } from '../support/simulation.ts'

/** Others than those of `npm test`, which begin at 1. */
const seed = Number(process.env.SIMULATION_SEED ?? 1_000_001)
const runs = Number(process.env.SIMULATION_RUNS ?? 40_000)

it(`promises hold in ${runs} simulations from SIMULATION_SEED=${seed}`, { timeout: 1_800_000 }, async () => {
  const tally = await simulate(runs, seed)
  expect(tally.admitted).toBeGreaterThan(runs)
})
