import assert from 'node:assert/strict'
import {
  type CompiledLimit,
  type LimitAnswer,
  type LimitRequest,
  memoryRateLimiter,
  type RateLimiter,
  type SettleRequest,
} from 'latchkey'
import {
  fakeClock,
  type LimiterConformanceOptions,
  limiterConformance,
  type MakeLimiter,
} from 'latchkey/testing'
import { describe, expect, it } from 'vitest'
import { startProgram } from '../support/program.ts'

type Memory = ReturnType<typeof memoryRateLimiter>

interface Report {
  readonly titles: string[]
  /** The message of each failure, by the title of its test. */
  readonly failures: Map<string, string>
}

/** Runs the kit as a test runner would, one test after the other; or one of them only. */
async function runKit(
  makeLimiter: MakeLimiter,
  options: Partial<LimiterConformanceOptions> = {},
  only?: string,
): Promise<Report> {
  const tests: [string, () => Promise<void>][] = []
  const test = (name: string, run: () => Promise<void>) => void tests.push([name, run])
  limiterConformance({ test, assert, seed: 1, runs: 20, ...options }, makeLimiter)
  const failures = new Map<string, string>()
  for (const [name, run] of tests) {
    if (only !== undefined && name !== only) continue
    await run().catch((error: Error) => failures.set(name, error.message))
  }
  return { titles: tests.map(([name]) => name), failures }
}

const well: MakeLimiter = () => {
  const clock = fakeClock()
  return { limiter: memoryRateLimiter({ clock }), clock }
}

/** A memory limiter with some members replaced. */
function broken(fault: (inner: Memory, now: () => number) => Partial<RateLimiter>): MakeLimiter {
  return () => {
    const clock = fakeClock()
    const inner = memoryRateLimiter({ clock })
    return { limiter: { ...inner, ...fault(inner, clock.now) }, clock }
  }
}

/** Asks for something else. */
const asking = (change: (request: LimitRequest) => LimitRequest) =>
  broken((inner) => ({ check: (request) => inner.check(change(request)) }))

/** Answers something else. */
const answering = (change: (answer: LimitAnswer, request: LimitRequest) => LimitAnswer) =>
  broken((inner) => ({ check: (request) => change(inner.check(request), request) }))

/** Does something after each answer. */
const afterCheck = (run: (inner: Memory, request: LimitRequest, answer: LimitAnswer, now: number) => void) =>
  broken((inner, now) => ({
    check(request) {
      const answer = inner.check(request)
      run(inner, request, answer, now())
      return answer
    },
  }))

const settling = (change: (request: SettleRequest, now: number) => SettleRequest) =>
  broken((inner, now) => ({ settle: (request) => inner.settle(change(request, now())) }))

/** Reads every limit in another way. */
const reading = (change: (limit: CompiledLimit) => CompiledLimit) =>
  asking((request) => ({ ...request, limits: request.limits.map(change) }))

let ids = 0
/** Charges each limit so many units, or gives them back. */
function charge(
  inner: Memory,
  { lineageId, owner, limits }: LimitRequest,
  units: readonly number[],
  now: number,
) {
  const changes = units.map((each) => [{ units: each, chargedAt: now }])
  inner.settle({ lineageId, owner, id: `${ids++}`, limits, changes })
}

const isLook = ({ cost, costs }: LimitRequest) => cost === 0 && !costs
const costsOf = ({ limits, cost, costs }: LimitRequest) => limits.map((_limit, i) => costs?.[i] ?? cost)

/** Counts in buckets by their level, which looks with a huge burst show. */
function levelOf(inner: Memory, request: LimitRequest, limit: CompiledLimit): number {
  const wide = { ...limit, capacity: 1_000_000 }
  const { places: _places, ...plain } = request
  const look = inner.check({ ...plain, cost: 0, costs: undefined, limits: [wide] })
  return look.outcome === 'stale' ? 0 : wide.capacity - (look.limits[0]?.remaining ?? 0)
}

/** What is wrong with a limiter, and the test that finds it. */
const FAULTS: Readonly<Record<string, readonly [found: string, make: MakeLimiter]>> = {
  'admits one too many': [
    'a window: opens with the first call, and ends to the millisecond',
    broken((inner) => ({
      check(request) {
        const limits = request.limits.map((limit) => ({
          ...limit,
          limit: limit.limit + 1,
          capacity: limit.capacity + 1,
        }))
        const answer = inner.check({ ...request, limits })
        if (answer.outcome === 'stale') return answer
        const states = answer.limits.map((state, i) => ({
          ...state,
          limit: request.limits[i]?.limit ?? state.limit,
          remaining: Math.max(0, state.remaining - 1),
        }))
        return { ...answer, limits: states }
      },
    })),
  ],
  'admits calls at once that it reads before it spends': [
    '50 calls at once: admits exactly the number of a window',
    broken((inner, now) => ({
      async check(request) {
        const costs = costsOf(request)
        const look = inner.check({ ...request, cost: 0, costs: undefined, places: undefined })
        await new Promise<void>((resolve) => setImmediate(resolve))
        const fits =
          look.outcome === 'admitted' && look.limits.every((state, i) => state.remaining >= (costs[i] ?? 0))
        if (!fits || isLook(request) || request.places) return inner.check(request)
        charge(inner, request, costs, now())
        return { ...look, chargedAt: now() }
      },
    })),
  ],
  'forgets changed versions': [
    'versions: refuses a record older than the kept version, fresh or not, and spends nothing',
    broken(() => ({ raiseVersions() {} })),
  ],
  'trusts a cached record': [
    'versions: takes a version from a fresh record only, if none is kept',
    asking((request) => ({ ...request, fresh: true })),
  ],
  'keeps one version for all keys of a lineage': [
    'versions: keeps a version for each key',
    broken((inner) => ({
      check: (request) => inner.check({ ...request, keyId: 'one' }),
      raiseVersions: (marks, retainMs) =>
        inner.raiseVersions(
          marks.map((mark) => ({ ...mark, keyId: 'one' })),
          retainMs,
        ),
    })),
  ],
  'spends for a stale record': [
    'versions: refuses a record older than the kept version, fresh or not, and spends nothing',
    afterCheck((inner, request, answer, now) => {
      if (answer.outcome === 'stale') charge(inner, request, costsOf(request), now)
    }),
  ],
  'forgets a version early': [
    'versions: keeps the version of a call for as long as asked',
    asking((request) => ({ ...request, retainMs: Math.min(request.retainMs, 5_000) })),
  ],
  'spends for a refused call': [
    'several limits: spends on all limits or on none',
    afterCheck((inner, request, answer, now) => {
      if (answer.outcome !== 'limited' || request.places) return
      charge(
        inner,
        request,
        costsOf(request).map((cost, i) => (answer.limits[i]?.exceeded ? 0 : cost)),
        now,
      )
    }),
  ],
  'spends for a look': [
    'several limits: only looks if the cost is 0',
    afterCheck((inner, request, _answer, now) => {
      if (isLook(request))
        charge(
          inner,
          request,
          request.limits.map(() => 1),
          now,
        )
    }),
  ],
  'opens a window for a look': [
    'a window: is not opened by a call that only looks, or that is refused',
    afterCheck((inner, request, _answer, now) => {
      if (!isLook(request)) return
      const windows = request.limits.filter(({ kind }) => kind === 'window')
      const opened = { ...request, limits: windows }
      charge(
        inner,
        opened,
        windows.map(() => 1),
        now,
      )
      charge(
        inner,
        opened,
        windows.map(() => -1),
        now,
      )
    }),
  ],
  'takes a named cost of 0 for a look': [
    'several limits: needs room for one unit where a named cost is 0',
    asking((request) =>
      request.costs?.every((cost) => cost === 0) ? { ...request, cost: 0, costs: undefined } : request,
    ),
  ],
  'charges every limit alike': [
    'several limits: spends a cost for each limit',
    asking(({ costs, ...request }) => ({ ...request, cost: costs ? Math.max(...costs, 1) : request.cost })),
  ],
  'tells who can never pass to wait': [
    'several limits: says that a cost never fits',
    answering((answer) =>
      answer.outcome === 'limited' ? { ...answer, retryAfterMs: answer.retryAfterMs ?? 60_000 } : answer,
    ),
  ],
  'tells the wait of the first limit': [
    'several limits: waits for the slowest limit that refuses',
    answering((answer) =>
      answer.outcome === 'limited' && answer.retryAfterMs !== null
        ? { ...answer, retryAfterMs: answer.limits[0]?.resetMs ?? answer.retryAfterMs }
        : answer,
    ),
  ],
  'counts limits by their names alone': [
    'a window: counts a limit of the same name and another length by itself',
    reading((limit) => ({ ...limit, shape: limit.name })),
  ],
  'starts anew with a new number': [
    'a window: keeps what was used as its number goes down and up again',
    reading((limit) => ({ ...limit, shape: `${limit.shape} ${limit.limit}` })),
  ],
  'clamps a bucket to the burst of whoever reads it': [
    'a bucket: keeps what was used as its burst goes down and up again',
    broken((inner, now) => ({
      check(request) {
        for (const limit of request.limits.filter(({ kind }) => kind === 'bucket')) {
          const above = levelOf(inner, request, limit) - limit.capacity
          if (above > 0) charge(inner, { ...request, limits: [limit] }, [-above], now())
        }
        return inner.check(request)
      },
    })),
  ],
  'rounds the level of a bucket up': [
    'any trace of buckets: is answered as the model says (seed 1)',
    afterCheck((inner, request, answer, now) => {
      if (answer.outcome !== 'admitted' || isLook(request)) return
      const buckets = request.limits.filter(({ kind }) => kind === 'bucket')
      charge(
        inner,
        { ...request, limits: buckets },
        buckets.map(() => 1e-9),
        now,
      )
    }),
  ],
  'begins every day at midnight in UTC': [
    'a calendar limit: begins at midnight in its time zone, and ends at the next',
    reading((limit) => ({ ...limit, timeZone: 'UTC' })),
  ],
  'says that every day has 24 hours': [
    'a calendar limit: has days of 23 and of 25 hours where clocks change',
    answering((answer) => {
      if (answer.outcome === 'stale') return answer
      const isDay = (ms: number | null) => ms !== null && ms > 80_000_000 && ms < 100_000_000
      const limits = answer.limits.map((state) =>
        isDay(state.windowMs) ? { ...state, windowMs: 86_400_000 } : state,
      )
      return { ...answer, limits }
    }),
  ],
  'counts the keys of an owner apart': [
    'limits of an owner: counts all keys of an owner together, and the limits of each key apart',
    asking((request) => ({ ...request, owner: request.owner && `${request.owner} ${request.lineageId}` })),
  ],
  'counts all owners together': [
    'limits of an owner: counts other owners apart',
    asking((request) => ({ ...request, owner: request.owner && 'one' })),
  ],
  'charges the owner of a key that its own limit refuses': [
    'limits of an owner: lets the flood of an exhausted key use nothing of its owner',
    afterCheck((inner, request, answer, now) => {
      if (answer.outcome !== 'limited') return
      const owners = request.limits.filter(({ isOwners }, i) => isOwners && !answer.limits[i]?.exceeded)
      charge(
        inner,
        { ...request, limits: owners },
        owners.map(() => 1),
        now,
      )
    }),
  ],
  'shares nothing with other processes': [
    'under createApiKeys: verifies, limits and revokes keys in two processes',
    () => {
      const clock = fakeClock()
      return { limiter: memoryRateLimiter({ clock }), peer: memoryRateLimiter({ clock }), clock }
    },
  ],
  'settles twice if it is asked twice': [
    'settle: makes a change with the same name once',
    broken((inner) => ({ settle: async (request) => inner.settle(request) })),
  ],
  'charges no more than the limit': [
    'settle: charges beyond the limit, and refuses until there is room again',
    broken((inner) => ({
      settle(request) {
        const look = inner.settle({ ...request, changes: request.changes.map(() => []) })
        const changes = request.changes.map((some, i) =>
          some.map((change) => ({
            ...change,
            units: Math.min(change.units, look.limits[i]?.remaining ?? 0),
          })),
        )
        return inner.settle({ ...request, changes })
      },
    })),
  ],
  'gives back to another period': [
    'settle: gives nothing back to a period that has ended, and charges the current one',
    settling((request, now) => ({
      ...request,
      changes: request.changes.map((some) => some.map((change) => ({ ...change, chargedAt: now }))),
    })),
  ],
  'gives back what has leaked': [
    'settle: gives back to a bucket only what cannot have leaked since',
    settling((request, now) => ({
      ...request,
      changes: request.changes.map((some, i) =>
        request.limits[i]?.kind === 'bucket' ? some.map((change) => ({ ...change, chargedAt: now })) : some,
      ),
    })),
  ],
  'settles for the key alone': [
    'settle: settles for the owner',
    settling(({ changes, ...request }) => ({
      ...request,
      changes: changes.map((some, i) =>
        some.map((change) => (request.limits[i]?.isOwners ? { ...change, units: 0 } : change)),
      ),
    })),
  ],
  'loses places': ['places: gives a place back once', broken(() => ({ release() {} }))],
  'gives back a place of somebody else': [
    'places: gives a place back once',
    broken((inner) => {
      const taken: string[] = []
      return {
        check(request) {
          const answer = inner.check(request)
          if (request.places && answer.outcome === 'admitted' && !isLook(request))
            taken.push(request.places.id)
          return answer
        },
        release(request) {
          const i = Math.max(0, taken.indexOf(request.id))
          const [id = request.id] = taken.splice(i, 1)
          inner.release({ ...request, id })
        },
      }
    }),
  ],
  'takes a place for a call that a rate limit refuses': [
    'places: takes places and units together, or neither',
    afterCheck((inner, request, answer) => {
      if (answer.outcome === 'limited' && request.places) inner.check({ ...request, limits: [] })
    }),
  ],
  'takes a place for a look': [
    'places: takes a place, and refuses when all are taken',
    afterCheck((inner, request, answer) => {
      if (answer.outcome === 'stale' || !request.places || !isLook(request)) return
      inner.check({ ...request, limits: [], cost: 1, places: { ...request.places, id: `${ids++}` } })
    }),
  ],
  'does not take a lost place again': [
    'places: takes a place again that came free meanwhile, even beyond the limit',
    broken((inner) => ({
      renew(requests) {
        let lost = 0
        for (const request of requests) {
          if (inner.renew([request]) === 0) continue
          lost += 1
          inner.release(request)
        }
        return lost
      },
    })),
  ],
  'says that no place was lost': [
    'places: takes a place again that came free meanwhile, even beyond the limit',
    broken((inner) => ({
      renew(requests) {
        inner.renew(requests)
        return 0
      },
    })),
  ],
  'takes the places of an owner for each key': [
    'places: takes places of the key and of its owner together, or neither',
    asking((request) => ({
      ...request,
      places: request.places && {
        ...request.places,
        limits: request.places.limits.map((limit) => ({ ...limit, isOwners: false })),
      },
    })),
  ],
  'frees a place early': [
    'places: frees a place after maxHeldMs, and not before',
    asking((request) => ({
      ...request,
      places: request.places && {
        ...request.places,
        limits: request.places.limits.map((limit) => ({ ...limit, maxHeldMs: limit.maxHeldMs - 1 })),
      },
    })),
  ],
  'leaves a limit out of its answer': [
    'several limits: spends on all limits or on none',
    answering((answer) =>
      answer.outcome === 'stale' ? answer : { ...answer, limits: answer.limits.slice(0, 1) },
    ),
  ],
  'tells the time in seconds': [
    'a window: opens with the first call, and ends to the millisecond',
    answering((answer) =>
      answer.outcome === 'admitted' && answer.chargedAt !== null
        ? { ...answer, chargedAt: Math.floor(answer.chargedAt / 1_000) }
        : answer,
    ),
  ],
}

describe('the kit finds a limiter that', () => {
  it.each(Object.entries(FAULTS))('%s', async (_fault, [found, make]) => {
    const { titles, failures } = await runKit(make, {}, found)
    expect(titles).toContain(found)
    expect([...failures.keys()]).toEqual([found])
  })
})

describe('random traces', () => {
  /** What no case looks at: the time until a window ends, off by a millisecond once it is half used up. */
  const subtle = answering((answer) => {
    if (answer.outcome !== 'admitted') return answer
    const limits = answer.limits.map((state) =>
      state.name === 'minute' && state.remaining === 4 && state.resetMs !== null
        ? { ...state, resetMs: state.resetMs + 1 }
        : state,
    )
    return { ...answer, limits }
  })

  it('find what no case looks at, show the fewest steps, and repeat them from their seed', async () => {
    const title = 'any trace of windows: is answered as the model says (seed 1)'
    const message = (await runKit(subtle, {}, title)).failures.get(title) ?? ''
    expect(message).toMatch(/"resetMs" of the limit "minute" is \d+ and should be \d+$/)
    const steps = message.split('\n').filter((line) => /^ {2}\d+\. /.test(line))
    expect(steps.length).toBeGreaterThan(0)
    expect(steps.length).toBeLessThan(4)
    const seed = Number(/seed: (\d+)/.exec(message)?.[1])
    const again = await runKit(
      subtle,
      { seed, runs: 1 },
      `any trace of windows: is answered as the model says (seed ${seed})`,
    )
    expect([...again.failures.values()]).toEqual([message])
  })

  it('show the steps after which a limiter fails', async () => {
    const failing = broken((inner) => ({
      async renew(requests) {
        if (inner.renew(requests) > 0) throw new Error('lost the connection')
        return 0
      },
    }))
    const title = 'any trace of places: is answered as the model says (seed 1)'
    const message = (await runKit(failing, { runs: 100 }, title)).failures.get(title) ?? ''
    expect(message).toMatch(/\{"do":"renew".*\n {2}it fails: lost the connection$/)
    const steps = message.split('\n').filter((line) => /^ {2}\d+\. /.test(line))
    expect(steps.length).toBeLessThan(6)
  })

  it.each<[string, MakeLimiter]>([
    ['buckets', FAULTS['gives back what has leaked']?.[1] as MakeLimiter],
    ['calendar limits', FAULTS['gives back to another period']?.[1] as MakeLimiter],
    ['limits of owners', FAULTS['counts the keys of an owner apart']?.[1] as MakeLimiter],
    ['places', FAULTS['does not take a lost place again']?.[1] as MakeLimiter],
    ['limits of every kind', FAULTS['spends for a refused call']?.[1] as MakeLimiter],
  ])('find faults of %s without a case', async (subject, make) => {
    const title = `any trace of ${subject}: is answered as the model says (seed 1)`
    const { failures } = await runKit(make, { runs: 100 }, title)
    expect([...failures.keys()]).toEqual([title])
  })
})

describe('the kit', () => {
  it('passes a limiter that answers later', async () => {
    const make: MakeLimiter = () => {
      const clock = fakeClock()
      const inner = memoryRateLimiter({ clock })
      const later = async <T>(run: () => T) => {
        await new Promise<void>((resolve) => setImmediate(resolve))
        return run()
      }
      const settled = new Map<string, ReturnType<Memory['settle']>>()
      return {
        clock,
        limiter: {
          check: (request) => later(() => inner.check(request)),
          raiseVersions: (marks, retainMs) => later(() => inner.raiseVersions(marks, retainMs)),
          release: (request) => later(() => inner.release(request)),
          renew: (requests) => later(() => inner.renew(requests)),
          settle: (request) =>
            later(() => {
              const first = settled.get(request.id) ?? inner.settle(request)
              settled.set(request.id, first)
              const { limits } = inner.settle({ ...request, changes: request.changes.map(() => []) })
              return { ...first, limits }
            }),
        },
      }
    }
    expect((await runKit(make, { runs: 2 })).failures).toEqual(new Map())
  })

  it('makes a limiter for each test and each trace, and closes each, that of a failing test too', async () => {
    let [made, closed] = [0, 0]
    const make = () => {
      made += 1
      const clock = fakeClock()
      return {
        limiter: { ...memoryRateLimiter({ clock }), raiseVersions() {} },
        clock,
        close: async () => {
          closed += 1
        },
      }
    }
    const { titles, failures } = await runKit(make, { runs: 3 })
    expect(failures.size).toBeGreaterThan(0)
    expect(made).toBeGreaterThan(titles.length)
    expect(closed).toBe(made)
  })

  it('leaves out the tests of what a limiter does without, and says so by name', async () => {
    const bare: MakeLimiter = () => {
      const clock = fakeClock()
      const { settle: _settle, release: _release, renew: _renew, ...limiter } = memoryRateLimiter({ clock })
      return { limiter, clock }
    }
    const { titles, failures } = await runKit(bare, { without: ['settle', 'places'] })
    expect(failures).toEqual(new Map())
    expect(titles.filter((title) => /settle|place/i.test(title))).toEqual([
      'without settle: createApiKeys refuses "settle" and "refund" as unsupported',
      'without places: createApiKeys refuses limits with "concurrent" as unsupported',
    ])
  })

  it.each([
    ['settle', 'settle'],
    ['release', 'places'],
    ['renew', 'places'],
  ])('fails a limiter that lacks %s unsaid', async (method, capability) => {
    const { titles, failures } = await runKit(broken(() => ({ [method]: undefined })))
    expect(failures.size).toBe(titles.length)
    expect([...failures.values()][0]).toContain(`without: ['${capability}']`)
  })

  it('fails a limiter that has what it is said to do without, or lacks what is not optional', async () => {
    const had = await runKit(well, { without: ['places'] })
    expect([...had.failures.values()][0]).toContain('take "places" out of "without"')
    const lacking = await runKit(broken(() => ({ raiseVersions: undefined as never })))
    expect([...lacking.failures.values()][0]).toContain('a limiter must have the method "raiseVersions"')
    const timeless = await runKit(() => ({ limiter: memoryRateLimiter(), clock: { now: Date.now } as never }))
    expect([...timeless.failures.values()][0]).toContain('"clock" must have a method "advance"')
  })

  it.each([
    ['no options', undefined, '"options" must be an object'],
    ['an unknown option', { test: it, assert, sed: 1 }, 'did you mean "seed"?'],
    ['no test', { assert }, '"test" must be a function'],
    [
      'an assert that lacks what is used',
      { test: it, assert: { ok() {} } },
      '"assert" must have a method "strictEqual"',
    ],
    [
      'a member that every limiter needs',
      { test: it, assert, without: ['check'] },
      '"without" may name "settle" and "places"',
    ],
    ['a seed that is none', { test: it, assert, seed: -1 }, '"seed" must be an integer'],
    ['no runs', { test: it, assert, runs: 0 }, '"runs" must be a positive integer'],
  ])('refuses %s', (_what, options, message) => {
    expect(() => limiterConformance(options as never, well)).toThrow(message)
  })

  it('refuses to run without a limiter', () => {
    expect(() => limiterConformance({ test: it, assert }, undefined as never)).toThrow(
      '"makeLimiter" must be a function',
    )
  })

  it('runs under node:test', async () => {
    const program = startProgram([
      '--input-type=module',
      '--eval',
      `import assert from 'node:assert/strict'
       import { test } from 'node:test'
       import { memoryRateLimiter } from 'latchkey'
       import { fakeClock, limiterConformance } from 'latchkey/testing'
       limiterConformance({ test, assert, runs: 2 }, () => {
         const clock = fakeClock()
         return { limiter: memoryRateLimiter({ clock }), clock }
       })`,
    ])
    expect(await program.ended()).toBe(0)
    const { titles } = await runKit(well, { runs: 1 })
    expect(program.stdout).toContain(`pass ${titles.length}\n`)
    expect(program.stdout).toContain('fail 0\n')
  })
})
