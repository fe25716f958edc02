import { defineConfig, mergeConfig } from 'vitest/config'
import { builtPackage, common, services } from './vitest.config.ts'

/** What measures, kills or waits: one file after the other, so that none disturbs another. */
const measured = [
  'test/soak/quota-processes.test.ts',
  'test/soak/redis-{faults,processes}.test.ts',
  'test/soak/remote-services.test.ts',
  'test/soak/sql-crashes.test.ts',
]

const part = {
  ...services,
  globalSetup: [builtPackage, services.globalSetup],
  env: { TEST_LENGTH: 'soak' },
  testTimeout: 300_000,
}

/** What takes longer than `npm test` may, beside it. `vitest.long.config.ts` does the same at full length. */
export default mergeConfig(
  common,
  defineConfig({
    test: {
      maxWorkers: 2,
      projects: [
        {
          extends: true,
          test: {
            name: 'slow',
            include: [
              'test/soak/**/*.test.ts',
              // The same as in `npm test`, for longer, or with more clients or frameworks.
              'test/behaviour/behaviour.test.ts',
              'test/core/{simulation,quota-simulation,expiry-simulation}.test.ts',
              'test/rate-limits/redis-{model,places,resend}.test.ts',
              'test/core/redis-failover.test.ts',
              'test/invalidation/redis.test.ts',
              'test/rate-limits/{memory,redis}-conformance.test.ts',
            ],
            exclude: measured,
            sequence: { groupOrder: 0 },
            ...part,
          },
        },
        {
          extends: true,
          test: {
            name: 'soak',
            include: measured,
            sequence: { groupOrder: 1 },
            fileParallelism: false,
            ...part,
          },
        },
      ],
    },
  }),
)
