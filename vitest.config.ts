import { fileURLToPath } from 'node:url'
import { defineConfig, mergeConfig } from 'vitest/config'
import tsconfig from './tsconfig.json' with { type: 'json' }

const fromRoot = (path: string) => fileURLToPath(new URL(path, import.meta.url))

const packageTests = 'test/package/**'
const soakTests = 'test/{soak,long}/**'
/** What needs a Redis or an SQL server. */
export const servicesTests = [
  'test/**/redis*.test.ts',
  'test/**/sql*.test.ts',
  'test/**/postgres*.test.ts',
  'test/**/mariadb*.test.ts',
  'test/**/custom-store*.test.ts',
  'test/services/**/*.test.ts',
  'test/invalidation/**/*.test.ts',
]

/** What `vitest.soak.config.ts` has in common with the tests below. */
export const common = defineConfig({
  // test/package is the exception: it installs the packed tarball and resolves from there.
  resolve: { alias: doorsAsSources() },
  test: {
    hookTimeout: 60_000,
    setupFiles: [fromRoot('./test/support/fresh-process.ts')],
    unstubEnvs: true,
    restoreMocks: true,
    reporters: ['default', fromRoot('./test/support/totals-reporter.ts')],
  },
})

/** Builds the package, where its build is not of these sources. */
export const builtPackage = fromRoot('./test/support/build-package.ts')

/** Starts Redis, PostgreSQL and MariaDB for the tests that need them. */
export const services = {
  globalSetup: fromRoot('./test/support/start-services.ts'),
  setupFiles: fromRoot('./test/support/require-services.ts'),
}

export default mergeConfig(
  common,
  defineConfig({
    test: {
      // Two cores; more workers only make bcrypt and child processes miss their time limits.
      maxWorkers: 2,
      testTimeout: 15_000,
      coverage: { provider: 'v8', include: ['lib/**/*.ts'] },
      projects: [
        {
          extends: true,
          test: {
            name: 'source',
            // Two thirds of the time: files share the modules of their worker, and no file mocks one.
            isolate: false,
            include: ['test/**/*.test.ts'],
            exclude: [packageTests, soakTests, ...servicesTests],
          },
        },
        {
          extends: true,
          // Set-up runs only when a test of this project runs: a single source test never waits for a build.
          test: {
            name: 'package',
            include: ['test/package/**/*.test.ts'],
            globalSetup: builtPackage,
            testTimeout: 120_000,
            hookTimeout: 180_000,
          },
        },
        {
          extends: true,
          test: {
            name: 'services',
            isolate: false,
            // These wait for servers more than they compute.
            maxWorkers: 3,
            sequence: { groupOrder: 1 },
            include: servicesTests,
            exclude: [packageTests, soakTests],
            ...services,
            testTimeout: 30_000,
          },
        },
      ],
    },
  }),
)

/** `latchkey/express` → `lib/express/index.ts`, as the compiler sees it. */
function doorsAsSources() {
  return Object.entries(tsconfig.compilerOptions.paths).map(([door, sources]) => ({
    find: new RegExp(`^${door}$`),
    replacement: fromRoot(String(sources[0])),
  }))
}
