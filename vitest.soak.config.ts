import { defineConfig, mergeConfig } from 'vitest/config'
import { builtPackage, common, services } from './vitest.config.ts'

/** Long runs under load, apart from `npm test`: one file after the other, so that none disturbs what another measures. */
export default mergeConfig(
  common,
  defineConfig({
    test: {
      name: 'soak',
      include: [
        'test/soak/**/*.test.ts',
        // The same as in `npm test`, for longer.
        'test/core/{simulation,quota-simulation}.test.ts',
        'test/management/http-fuzz.test.ts',
        'test/rate-limits/redis-model.test.ts',
      ],
      env: { TEST_LENGTH: 'soak' },
      ...services,
      globalSetup: [builtPackage, services.globalSetup],
      fileParallelism: false,
      testTimeout: 300_000,
    },
  }),
)
