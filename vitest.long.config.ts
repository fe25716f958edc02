import { defineConfig, mergeConfig } from 'vitest/config'
import { builtPackage, common, services } from './vitest.config.ts'

/** What `npm run test:soak` does a slice of, at full length, and what takes too long for that: an hour and more. */
export default mergeConfig(
  common,
  defineConfig({
    test: {
      name: 'long',
      include: [
        'test/{soak,long}/**/*.test.ts',
        'test/core/{simulation,quota-simulation}.test.ts',
        'test/management/http-fuzz.test.ts',
        'test/rate-limits/redis-{model,places}.test.ts',
        'test/rate-limits/{memory,redis}-conformance.test.ts',
      ],
      ...services,
      globalSetup: [builtPackage, services.globalSetup],
      env: { TEST_LENGTH: 'long' },
      fileParallelism: false,
      testTimeout: 14_400_000,
    },
  }),
)
