import { defineConfig, mergeConfig } from 'vitest/config'
import { common, servicesTests } from './vitest.config.ts'

/**
 * The tests that mutants have to get past: `MUTATION_TESTS=koa` names the folders below test/, all that look at requests
 * without it. The table of behaviours would kill more, and takes minutes to say so of a mutant that survives.
 */
const { MUTATION_TESTS: folders = 'core,http,passport,express,koa' } = process.env

export default mergeConfig(
  common,
  defineConfig({
    test: {
      include: folders.split(',').map((folder) => `test/${folder}/**/*.test.ts`),
      // The last reads the sources, which Stryker rewrites.
      exclude: [...servicesTests, 'test/http/session-confusions.test.ts', 'test/http/named-faults.test.ts'],
      testTimeout: 4_000,
      // A mutant that hangs in a hook would hold its turn for a minute.
      hookTimeout: 3_000,
      teardownTimeout: 2_000,
    },
  }),
)
