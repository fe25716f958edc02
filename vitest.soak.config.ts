import { defineConfig, mergeConfig } from 'vitest/config'
import { builtPackage, common, services } from './vitest.config.ts'

/** Long runs under load, apart from `npm test`: one file after the other, so that none disturbs what another measures. */
export default mergeConfig(
  common,
  defineConfig({
    test: {
      name: 'soak',
      include: ['test/soak/**/*.test.ts'],
      ...services,
      globalSetup: [builtPackage, services.globalSetup],
      fileParallelism: false,
      testTimeout: 300_000,
    },
  }),
)
