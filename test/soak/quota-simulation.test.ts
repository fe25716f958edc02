import { expect, it } from 'vitest'
import { simulateQuota } from '../support/quota-simulation.ts'

/** Others than those of `npm test`, which begin at 1. */
const seed = Number(process.env.QUOTA_SIMULATION_SEED ?? 1_000_001)
const runs = Number(process.env.QUOTA_SIMULATION_RUNS ?? 20_000)

it(`no unit is lost, spent twice or kept back in ${runs} simulations from QUOTA_SIMULATION_SEED=${seed}`, {
  timeout: 3_600_000,
}, async () => {
  const tally = await simulateQuota(runs, seed)
  expect(tally.admitted).toBeGreaterThan(runs)
})
