import { randomInt } from 'node:crypto'
import type { RateLimiter } from '../../core/limits/rate-limiter.ts'
import {
  checkArray,
  checkFunction,
  checkInteger,
  checkMethods,
  checkObject,
  describePlain,
} from '../../internal/options.ts'
import type { TestAssert, TestFunction } from '../test-runner.ts'
import { AT_ONCE_CASES } from './at-once-cases.ts'
import { BUCKET_CASES } from './bucket-cases.ts'
import { CALENDAR_CASES } from './calendar-cases.ts'
import { COMBINED_CASES } from './combined-cases.ts'
import {
  CORE_CASES,
  CORE_PLACE_CASES,
  CORE_SETTLE_CASES,
  type LimiterCapability,
  MISSING_CASES,
} from './core-cases.ts'
import { createLimiterTest, type LimiterCases, type MadeLimiter } from './limiter-test.ts'
import { OWNER_CASES } from './owner-cases.ts'
import { PLACE_CASES } from './place-cases.ts'
import { PORT_CASES } from './port-cases.ts'
import { SETTLE_CASES } from './settle-cases.ts'
import { MAX_SEED, playTraces } from './trace-cases.ts'
import { PLACE_SUBJECTS, SUBJECTS } from './traces.ts'
import { VERSION_CASES } from './version-cases.ts'
import { WINDOW_CASES } from './window-cases.ts'

export interface LimiterConformanceOptions {
  /** Registers a test: `test` of node:test, vitest or Jest, `it` of Mocha. */
  test: TestFunction
  /** `node:assert/strict`, or `node:assert`. */
  assert: TestAssert
  /**
   * What the limiter deliberately cannot do: `settle`, or `places` (`release` and `renew`). The kit skips these cases. Instead, one
   * test for each checks that `createApiKeys` refuses what needs it. A limiter that lacks either and does not name it fails.
   *
   * @default []
   */
  without?: readonly LimiterCapability[]
  /**
   * Where the random traces begin: the same seed makes the same traces. Each test of traces has it in its title. From 0 to 2 ** 31 - 1.
   *
   * @default a random integer
   */
  seed?: number
  /**
   * How many random traces to play of each subject, from 1 to 1,000,000. Each has 5 to 50 steps on a limiter of its own.
   *
   * @default 60
   */
  runs?: number
}

/** Makes a limiter that has counted nothing, with the clock by which it counts. */
export type MakeLimiter = () => MadeLimiter | Promise<MadeLimiter>

/**
 * Registers the tests that every `RateLimiter` must pass. A limiter that passes them counts as exactly as those of this package. The
 * tests work with any test runner.
 *
 * `makeLimiter` makes a limiter for each test, and for each random trace. It counts by `clock`, which the kit moves, so no test
 * sleeps. Return a `peer` too if processes share the counts: a second limiter, connected as another process would be. A random trace
 * is played on a model as well, which keeps simple books of every kind of limit; every answer must be the model's. If one
 * is not, the message has the fewest steps that show it.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * import assert from 'node:assert/strict'
 * import { test } from 'node:test'
 * import { fakeClock, limiterConformance } from 'latchkey/testing'
 * import { myLimiter } from './my-limiter.js'
 *
 * limiterConformance({ test, assert }, () => {
 *   const clock = fakeClock()
 *   return { limiter: myLimiter({ clock }), clock }
 * })
 */
export function limiterConformance(options: LimiterConformanceOptions, makeLimiter: MakeLimiter): void {
  checkObject('options', options, ['test', 'assert', 'without', 'seed', 'runs'])
  const { test, assert, without = [], seed = randomInt(MAX_SEED), runs = 60 } = options
  checkFunction('test', test)
  checkMethods('assert', assert, ['ok', 'strictEqual', 'deepStrictEqual'])
  checkFunction('makeLimiter', makeLimiter)
  checkWithout(without)
  checkInteger('seed', seed, 0, MAX_SEED - 1)
  checkInteger('runs', runs, 1, 1_000_000)

  /** Runs something on a limiter of its own. */
  async function withLimiter<T>(run: (made: MadeLimiter) => Promise<T>): Promise<T> {
    const made = await makeLimiter()
    try {
      checkMethods('clock', made.clock, ['now', 'advance'])
      checkCapabilities(made.limiter, assert, without)
      if (made.peer) checkCapabilities(made.peer, assert, without)
      return await run(made)
    } finally {
      await made.close?.()
    }
  }

  for (const [subject, cases] of Object.entries(casesFor(without))) {
    for (const [name, run] of Object.entries(cases)) {
      test(`${subject}: ${name}`, () => withLimiter((made) => run(createLimiterTest(made, assert))))
    }
  }
  const kinds = { settle: !without.includes('settle'), places: !without.includes('places') }
  const subjects = { ...SUBJECTS, ...(kinds.places && PLACE_SUBJECTS) }
  for (const [name, subject] of Object.entries(subjects)) {
    test(`any trace of ${name}: is answered as the model says (seed ${seed})`, () =>
      playTraces({ subject, kinds, seed, runs, assert, withLimiter }))
  }
}

function casesFor(without: readonly LimiterCapability[]): Record<string, LimiterCases> {
  return {
    'the port': PORT_CASES,
    versions: VERSION_CASES,
    'a window': WINDOW_CASES,
    'a bucket': BUCKET_CASES,
    'a calendar limit': CALENDAR_CASES,
    'several limits': COMBINED_CASES,
    'limits of an owner': OWNER_CASES,
    '50 calls at once': AT_ONCE_CASES,
    'under createApiKeys': CORE_CASES,
    ...(without.includes('settle')
      ? { 'without settle': MISSING_CASES.settle }
      : { settle: SETTLE_CASES, 'under createApiKeys, with settle': CORE_SETTLE_CASES }),
    ...(without.includes('places')
      ? { 'without places': MISSING_CASES.places }
      : { places: PLACE_CASES, 'under createApiKeys, with places': CORE_PLACE_CASES }),
  }
}

const METHODS: Readonly<Record<LimiterCapability, readonly ('settle' | 'release' | 'renew')[]>> = {
  settle: ['settle'],
  places: ['release', 'renew'],
}

function checkCapabilities(
  limiter: RateLimiter,
  assert: TestAssert,
  without: readonly LimiterCapability[],
): void {
  for (const method of ['check', 'raiseVersions'] as const) {
    assert.strictEqual(typeof limiter?.[method], 'function', `a limiter must have the method "${method}"`)
  }
  for (const [capability, methods] of Object.entries(METHODS) as [
    LimiterCapability,
    typeof METHODS.settle,
  ][]) {
    for (const method of methods) {
      if (without.includes(capability)) {
        const advice = `the limiter has "${method}": take "${capability}" out of "without"`
        assert.strictEqual(limiter[method], undefined, advice)
      } else {
        const advice = `the limiter has no "${method}". If that is deliberate, name it: without: ['${capability}']`
        assert.strictEqual(typeof limiter[method], 'function', advice)
      }
    }
  }
}

function checkWithout(without: unknown): void {
  const names = Object.keys(METHODS)
  for (const name of checkArray('without', without, names.length)) {
    if (names.includes(name as string)) continue
    throw new TypeError(
      `"without" may name "settle" and "places", received ${describePlain(name)}. ` +
        'No limiter needs the other optional members, and every limiter needs "check" and "raiseVersions"',
    )
  }
}
