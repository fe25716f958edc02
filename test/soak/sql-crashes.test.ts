import { randomInt } from 'node:crypto'
import { describeCrashes } from '../support/crash-cases.ts'
import { times } from '../support/long-run.ts'

const seed = Number(process.env.CRASH_SEED ?? randomInt(1_000_000))

describeCrashes({ rounds: times({ soak: 2, long: 12 }), changes: times({ soak: 60, long: 300 }), seed })
