/**
 * Mutation testing of what stands between a request and a route: `npm run test:mutation -- --mutate 'lib/koa/*.ts'`. All of
 * it takes hours on two cores, and so is no part of `npm test`. test/mutation.md tells of the last run and of what survived.
 */
export default {
  testRunner: 'vitest',
  vitest: { configFile: 'vitest.mutation.config.ts' },
  mutate: ['lib/{http,passport,express,koa}/**/*.ts'],
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
