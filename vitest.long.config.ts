import { mergeConfig } from 'vitest/config'
import soak from './vitest.soak.config.ts'

/** All that `vitest.soak.config.ts` runs a slice of, and what takes too long for that. */
export default mergeConfig(soak, {
  test: {
    name: 'long',
    include: ['test/long/**/*.test.ts'],
    env: { TEST_LENGTH: 'long' },
    testTimeout: 3_600_000,
  },
})
