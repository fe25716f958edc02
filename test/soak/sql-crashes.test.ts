import { randomInt } from 'node:crypto'
import { describeCrashes } from '../support/crash-cases.ts'

describeCrashes({ rounds: 12, changes: 300, seed: Number(process.env.CRASH_SEED ?? randomInt(1_000_000)) })
