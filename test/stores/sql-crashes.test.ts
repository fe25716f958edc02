import { describeCrashes } from '../support/crash-cases.ts'

// `npm run test:soak` does the same for longer, and by other seeds.
describeCrashes({ rounds: 1, changes: 40, seed: Number(process.env.CRASH_SEED ?? 1) })
