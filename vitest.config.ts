import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'
import tsconfig from './tsconfig.json' with { type: 'json' }

const fromRoot = (path: string) => fileURLToPath(new URL(path, import.meta.url))

export default defineConfig({
  // test/package is the exception: it installs the packed tarball and resolves from there.
  resolve: { alias: doorsAsSources() },
  test: {
    // Two cores; more workers only make bcrypt and child processes miss their time limits.
    maxWorkers: 2,
    testTimeout: 15_000,
    hookTimeout: 60_000,
    unstubEnvs: true,
    restoreMocks: true,
    reporters: ['default', fromRoot('./test/support/totals-reporter.ts')],
    coverage: { provider: 'v8', include: ['lib/**/*.ts'] },
    projects: [
      {
        extends: true,
        test: { name: 'source', include: ['test/**/*.test.ts'], exclude: ['test/package/**'] },
      },
      {
        extends: true,
        // Set-up runs only when a test of this project runs: a single source test never waits for a build.
        test: {
          name: 'package',
          include: ['test/package/**/*.test.ts'],
          globalSetup: fromRoot('./test/support/build-package.ts'),
          testTimeout: 120_000,
          hookTimeout: 180_000,
        },
      },
    ],
  },
})

/** `latchkey/express` → `lib/express/index.ts`, as the compiler sees it. */
function doorsAsSources() {
  return Object.entries(tsconfig.compilerOptions.paths).map(([door, sources]) => ({
    find: new RegExp(`^${door}$`),
    replacement: fromRoot(String(sources[0])),
  }))
}
