/**
 * Mutation testing of what stands between a request and a route: `npm run test:mutation -- --mutate 'lib/koa/*.ts'`. All of
 * it takes hours on two cores, and so is no part of `npm test`. MUTATION_TESTS=koa names the folders of tests to run, which
 * is the way to go file by file.
 */
export default {
  testRunner: 'vitest',
  vitest: { configFile: 'vitest.mutation.config.ts' },
  mutate: ['lib/{http,passport,express,koa}/**/*.ts', 'lib/core/verify/**/*.ts'],
  coverageAnalysis: 'perTest',
  // What runs while a file loads decides about no request, and a mutant of it takes all tests of that file.
  ignoreStatic: true,
  concurrency: 2,
  timeoutMS: 3_000,
  timeoutFactor: 1.2,
  incremental: true,
  incrementalFile: '.cache/mutation/incremental.json',
  reporters: ['progress-append-only', 'json'],
  jsonReporter: { fileName: '.cache/mutation/report.json' },
  tempDirName: '.cache/mutation/sandbox',
}
