import { median, pair, quantile, summarise } from './statistics.mjs'
import { targets } from './targets.mjs'

/** Comparisons of two targets that are not set against each other, by the name of the figure. */
const differences = {
  strategyLessHeaderApiKeyUs: ['strategy', 'headerapikey'],
  latchkeyLessHeaderApiKeyUs: ['redis-latchkey', 'redis-headerapikey'],
}

/** What a server costs in that of another, by the name of the figure; `over`: what both add to this one. */
const shares = {
  middlewareInHand: { of: 'middleware', in: 'hand', over: 'bare' },
  koaMiddlewareInHand: { of: 'koa-middleware', in: 'koa-hand', over: 'koa-bare' },
  strategyInHeaderApiKey: { of: 'strategy', in: 'headerapikey-limited' },
  latchkeyInHand: { of: 'redis-latchkey', in: 'redis-hand' },
}

/** What the rounds of the HTTP comparison say: each target alone, and paired with the one it is set against. */
export function summariseHttp(rounds) {
  const valuesOf = (name, figure) => rounds.map((round) => round[name][figure])
  const names = Object.keys(rounds[0])
  const summaries = names.map((name) => {
    const { label, against } = targets[name]
    const cpu = valuesOf(name, 'cpuUsPerRequest')
    const summary = {
      label,
      cpuUsPerRequest: summarise(cpu),
      requestsPerSecond: summarise(valuesOf(name, 'requestsPerSecond')),
    }
    if (!names.includes(against)) return [name, summary]
    const reference = valuesOf(against, 'cpuUsPerRequest')
    const addedPercent = pair(cpu, reference, percentAbove)
    return [
      name,
      {
        ...summary,
        against,
        addedUs: summarise(pair(cpu, reference, subtract)),
        addedPercent: { ...summarise(addedPercent), ...spreadOf(addedPercent) },
      },
    ]
  })
  return {
    targets: Object.fromEntries(summaries),
    ...summariseDifferences(names, valuesOf),
    ...summariseShares(names, valuesOf),
    cpuUsPerRequestByRound: rounds.map((round) =>
      Object.fromEntries(names.map((name) => [name, round[name].cpuUsPerRequest])),
    ),
  }
}

function summariseDifferences(names, valuesOf) {
  const cpuOf = (name) => valuesOf(name, 'cpuUsPerRequest')
  const summaries = Object.entries(differences)
    .filter(([, compared]) => compared.every((name) => names.includes(name)))
    .map(([figure, [name, other]]) => [figure, summarise(pair(cpuOf(name), cpuOf(other), subtract))])
  return Object.fromEntries(summaries)
}

function summariseShares(names, valuesOf) {
  const cpuOf = (name) => valuesOf(name, 'cpuUsPerRequest')
  const costOf = (name, over) => (over ? pair(cpuOf(name), cpuOf(over), subtract) : cpuOf(name))
  const summaries = Object.entries(shares)
    .filter(([, share]) => Object.values(share).every((name) => names.includes(name)))
    .map(([figure, { of, in: other, over }]) => [
      figure,
      summarise(pair(costOf(of, over), costOf(other, over), dividePositive)),
    ])
  return Object.fromEntries(summaries)
}

/** The same for the doors, and what each adds to its framework in what Express's adds to Express. */
export function summariseDoors(rounds) {
  const costOf = (name) => {
    const cpuOf = (one) => rounds.map((round) => round[one].cpuUsPerRequest)
    return pair(cpuOf(name), cpuOf(targets[name].against), subtract)
  }
  const doors = Object.keys(rounds[0]).filter((name) => targets[name].door && targets[name].against)
  const inExpress = doors.map((name) => [
    name,
    summarise(pair(costOf(name), costOf('middleware'), dividePositive)),
  ])
  return { ...summariseHttp(rounds), inExpress: Object.fromEntries(inExpress) }
}

/** What each server takes with so many connections: in time and in requests. */
export function summariseLatency(roundsByConnections) {
  const summaries = Object.entries(roundsByConnections).map(([connections, rounds]) => [
    connections,
    Object.fromEntries(
      Object.keys(rounds[0]).map((name) => {
        const summaryOf = (figure) => summarise(rounds.map((round) => round[name][figure]))
        const figures = ['p50Ms', 'p99Ms', 'requestsPerSecond'].map((figure) => [figure, summaryOf(figure)])
        return [name, { label: targets[name].label, ...Object.fromEntries(figures) }]
      }),
    ),
  ])
  return { connections: Object.fromEntries(summaries) }
}

/** The CPU of each server, round by round from its start: the median over all starts. */
export function summariseWarmup(starts) {
  const cpuOf = (name, round) => median(starts.map((rounds) => rounds[round][name].cpuUsPerRequest))
  const names = Object.keys(starts[0][0])
  return {
    cpuUsPerRequest: Object.fromEntries(
      names.map((name) => [name, starts[0].map((_, round) => cpuOf(name, round))]),
    ),
  }
}

/** What the part `start` says: milliseconds, and those of the library in Express's. */
export function summariseStart({ measured, bundledBytes }) {
  const valuesOf = (name) => measured.map((round) => round[name])
  const inExpress = (name) => summarise(pair(valuesOf(name), valuesOf('express'), divide))
  return {
    expressMs: summarise(valuesOf('express')),
    latchkeyMs: summarise(valuesOf('latchkey')),
    latchkeyInExpress: inExpress('latchkey'),
    latchkeyAfterExpressInExpress: inExpress('latchkey-after-express'),
    firstVerifyMs: summarise(valuesOf('first-verify')),
    bundledBytes,
  }
}

/** What the rounds of the `verify` comparison say, in CPU nanoseconds per call and in hashes. */
export function summariseVerify(rounds) {
  const valuesOf = (name) => rounds.map((round) => round[name])
  const inHashes = (name) => pair(valuesOf(name), valuesOf('sha256'), divide)
  const control = pair(valuesOf('sha256-again'), valuesOf('sha256'), percentAbove)
  return {
    sha256Ns: summarise(valuesOf('sha256')),
    verifyNs: summarise(valuesOf('verify')),
    verifyUnlimitedNs: summarise(valuesOf('verify-unlimited')),
    controlPercent: { ...summarise(control), ...spreadOf(control) },
    verifyInHashes: summarise(inHashes('verify')),
    verifyUnlimitedInHashes: summarise(inHashes('verify-unlimited')),
    verifyRemoteNs: summarise(valuesOf('verify-remote')),
    verifyRemoteInLocal: summarise(pair(valuesOf('verify-remote'), valuesOf('verify-unlimited'), divide)),
  }
}

/** What the part `strangers` says: CPU microseconds for each body, and in those of `express.json()` and a 401. */
export function summariseStrangers(rounds) {
  const summaries = Object.keys(rounds[0]).map((body) => {
    const valuesOf = (name) => rounds.map((round) => round[body][name])
    const inJson = (name) => summarise(pair(valuesOf(name), valuesOf('json'), divide))
    const control = pair(valuesOf('json-again'), valuesOf('json'), percentAbove)
    return [
      body,
      {
        jsonUs: summarise(valuesOf('json')),
        expressUs: summarise(valuesOf('express')),
        koaUs: summarise(valuesOf('koa')),
        expressInJson: inJson('express'),
        koaInJson: inJson('koa'),
        controlPercent: { ...summarise(control), ...spreadOf(control) },
      },
    ]
  })
  return { bodies: Object.fromEntries(summaries) }
}

/** What the part `redis` says: of its servers, where any were measured, and of `check`. */
export function summariseRedis({ version, servers, checks }) {
  return { version, ...(servers && { http: summariseHttp(servers) }), check: summariseCheck(checks) }
}

/** One summary for each number of concurrent calls. */
function summariseCheck(rounds) {
  const summaries = Object.keys(rounds[0]).map((concurrent) => [
    concurrent,
    summariseCalls(rounds.map((round) => round[concurrent])),
  ])
  return Object.fromEntries(summaries)
}

function summariseCalls(rounds) {
  const valuesOf = (name, figure) => rounds.map((round) => round[name][figure])
  const speedsOf = (name) => valuesOf(name, 'callsPerSecond')
  const timesAsFast = (name, other) => summarise(pair(speedsOf(name), speedsOf(other), divide))
  const control = (name) => {
    const percent = pair(speedsOf(`${name}-again`), speedsOf(name), percentAbove)
    return { ...summarise(percent), ...spreadOf(percent) }
  }
  const subjects = Object.keys(rounds[0]).map((name) => [
    name,
    {
      callsPerSecond: summarise(speedsOf(name)),
      cpuUsPerCall: summarise(valuesOf(name, 'cpuUsPerCall')),
    },
  ])
  return {
    subjects: Object.fromEntries(subjects),
    oneTimesAsFast: timesAsFast('one', 'flexible'),
    threeTimesAsFast: timesAsFast('three', 'union'),
    flexibleControlPercent: control('flexible'),
    unionControlPercent: control('union'),
  }
}

/** What the part `stores` says: cold verification by size, bulk import, and verification beside better-auth's. */
export function summariseStores({ sqlite, postgres, peer }) {
  return {
    postgresVersion: peer.version,
    cold: { sqlite: summariseCold(sqlite), postgres: summariseCold(postgres) },
    import: { sqlite: summariseImport(sqlite), postgres: summariseImport(postgres) },
    peer: summarisePeer(peer),
  }
}

/** Latencies of each size, and by how much the largest store is slower than the smallest in the same round. */
function summariseCold({ measured }) {
  const sizes = Object.keys(measured[0])
  const valuesOf = (size, figure) => measured.map((round) => round[size][figure])
  const summaries = sizes.map((size) => [
    size,
    {
      p50Us: summarise(valuesOf(size, 'p50Us')),
      p99Us: summarise(valuesOf(size, 'p99Us')),
      callsPerVerify: Math.max(...valuesOf(size, 'callsPerVerify')),
    },
  ])
  const p50Of = (size) => valuesOf(size, 'p50Us')
  return {
    sizes: Object.fromEntries(summaries),
    largestInSmallest: summarise(pair(p50Of(sizes.at(-1)), p50Of(sizes[0]), divide)),
  }
}

/** What the part `list` says: each list by size, and by how much the largest store is slower in the same round. */
export function summariseList({ version, filled, names, measured }) {
  const summaries = names.map((name) => [name, summariseSizes(measured.map((figures) => figures[name]))])
  return { postgresVersion: version, filled, lists: Object.fromEntries(summaries) }
}

/** What the part `quota` says: what is asked of the store, and what a lease in hand costs beside no quota. */
export function summariseQuota({ driven, leases }) {
  const valuesOf = (name) => leases.map((round) => round[name])
  const above = (name, other) => summarise(pair(valuesOf(name), valuesOf(other), percentAbove))
  const control = pair(valuesOf('plain-again'), valuesOf('plain'), percentAbove)
  return {
    driven,
    lease: {
      plainNs: summarise(valuesOf('plain')),
      leasedNs: summarise(valuesOf('leased')),
      limitedNs: summarise(valuesOf('limited')),
      limitedLeasedNs: summarise(valuesOf('limited-leased')),
      leasedPercent: above('leased', 'plain'),
      limitedLeasedPercent: above('limited-leased', 'limited'),
      controlPercent: { ...summarise(control), ...spreadOf(control) },
    },
  }
}

function summariseSizes(rounds) {
  const sizes = Object.keys(rounds[0])
  const valuesOf = (size, figure) => rounds.map((round) => round[size][figure])
  const p50Of = (size) => valuesOf(size, 'p50Us')
  return {
    sizes: Object.fromEntries(
      sizes.map((size) => [
        size,
        {
          p50Us: summarise(p50Of(size)),
          statements: Math.max(...valuesOf(size, 'statements')),
          keysPerPage: Math.min(...valuesOf(size, 'keysPerPage')),
        },
      ]),
    ),
    largestInSmallest: summarise(pair(p50Of(sizes.at(-1)), p50Of(sizes[0]), divide)),
  }
}

/** The largest import: over all of it, and the slowest and the fastest part. */
function summariseImport({ imports }) {
  const { size, keysPerSecond, cpuUsPerKey, partsPerSecond } = imports.at(-1)
  return {
    keys: size,
    cpuUsPerKey,
    keysPerSecond: {
      median: keysPerSecond,
      low: Math.min(...partsPerSecond),
      high: Math.max(...partsPerSecond),
    },
  }
}

function summarisePeer({ statements, measured }) {
  const valuesOf = (name, figure) => measured.map((round) => round[name][figure])
  const cpuOf = (name) => valuesOf(name, 'cpuUsPerCall')
  const share = (name) => summarise(pair(cpuOf(name), cpuOf('better-auth'), divide))
  const control = pair(cpuOf('better-auth-again'), cpuOf('better-auth'), percentAbove)
  const subjects = Object.keys(statements).map((name) => [
    name,
    {
      cpuUsPerCall: summarise(cpuOf(name)),
      callsPerSecond: summarise(valuesOf(name, 'callsPerSecond')),
      ...statements[name],
    },
  ])
  return {
    subjects: Object.fromEntries(subjects),
    cpuShare: share('latchkey'),
    cpuShareWithRedis: share('latchkey-redis'),
    controlPercent: { ...summarise(control), ...spreadOf(control) },
  }
}

/** The bars of this project that the figures at hand can be held to. */
export function judge({ http, doors, start, verify, memory, strangers, redis, stores, list, quota }) {
  const bars = {
    http: judgeHttp(http),
    doors: judgeDoors(doors),
    start: judgeStart(start),
    verify: judgeVerify(verify),
    memory: judgeMemory(memory),
    strangers: judgeStrangers(strangers),
    redis: [...judgeRedisHttp(redis?.http), ...judgeCheck(redis?.check)],
    stores: judgeStores(stores),
    list: judgeList(list),
    quota: judgeQuota(quota),
  }
  return Object.entries(bars).flatMap(([part, ofPart]) => ofPart.map((bar) => ({ part, ...bar })))
}

function judgeHttp(http = {}) {
  return [
    ...judgeFigure(
      'what app.use(apiKeyAuth) adds, in what a guard by hand adds',
      http.middlewareInHand,
      1.25,
      1.1,
    ),
    ...judgeFigure('the same on Koa', http.koaMiddlewareInHand, 1.7, 1.5),
    ...judgeFigure(
      'server with ApiKeyStrategy, in that with passport-headerapikey and express-rate-limit',
      http.strategyInHeaderApiKey,
      0.95,
      0.9,
    ),
  ]
}

function judgeFigure(name, figure, bar, aim) {
  return figure ? [atMost(name, figure, bar, '×', aim)] : []
}

function judgeDoors(doors) {
  return Object.entries(doors?.inExpress ?? {}).flatMap(([name, figure]) =>
    judgeFigure(`what ${targets[name].label} adds, in what Express's door adds`, figure, 1.5),
  )
}

function judgeVerify(verify) {
  if (!verify) return []
  return [
    atMost('verify(), warm, in SHA-256 of the key', verify.verifyInHashes, 4, '×', 3),
    atMost('verify() of remote keys, warm, in that of local ones', verify.verifyRemoteInLocal, 1.1, '×'),
  ]
}

function judgeStart(start) {
  if (!start) return []
  return [
    atMost("loading latchkey with Express's door, in loading Express", start.latchkeyInExpress, 0.4, '×'),
    atMost('first verify() of a process, SQLite', start.firstVerifyMs, 3, ' ms'),
    atMost("latchkey with Express's door, bundled and minified", exactly(start.bundledBytes), 90_000, ' B'),
  ]
}

function judgeMemory(memory) {
  if (!memory) return []
  const { bytesPerCachedRecord, bytesPerCachedRecordAndLedger } = memory
  return [
    atMost('cached record', exactly(bytesPerCachedRecord), 1_100, ' B'),
    atMost(
      'cached record and what is counted for one limit',
      exactly(bytesPerCachedRecordAndLedger),
      1_600,
      ' B',
    ),
  ]
}

/** A figure that every run finds. */
function exactly(value) {
  return { median: value, low: value, high: value }
}

function judgeStrangers(strangers) {
  return Object.entries(strangers?.bodies ?? {}).flatMap(([body, { expressInJson, koaInJson }]) => [
    atMost(`apiKeyRouter refusing a stranger's ${body}, in express.json()`, expressInJson, 1.5, '×'),
    atMost(`apiKeyRouter of Koa refusing a stranger's ${body}, in express.json()`, koaInJson, 1.5, '×'),
  ])
}

function judgeRedisHttp(http) {
  const name = 'apiKeyAuth with redisRateLimiter'
  const bars = judgeFigure(
    `server with ${name}, in that with a guard by hand`,
    http?.latchkeyInHand,
    1.1,
    1.06,
  )
  if (http?.latchkeyLessHeaderApiKeyUs) {
    const other = 'passport-headerapikey and rate-limit-redis'
    bars.push(atMost(`${name} less ${other}`, http.latchkeyLessHeaderApiKeyUs, 0, ' µs'))
  }
  return bars
}

function judgeCheck(check = {}) {
  return Object.entries(check).flatMap(([concurrent, { oneTimesAsFast, threeTimesAsFast }]) => {
    const calls = `check() at ${concurrent} concurrent`
    return [
      atLeast(`${calls}, one limit, in speeds of RateLimiterRedis`, oneTimesAsFast, 1, '×', 1.1),
      atLeast(`${calls}, three limits, in speeds of RateLimiterUnion`, threeTimesAsFast, 2.3, '×', 2.6),
    ]
  })
}

function judgeStores(stores) {
  if (!stores) return []
  const { cold, import: imports, peer } = stores
  const bars = Object.entries(cold).map(([dialect, { sizes, largestInSmallest }]) => {
    const [smallest, largest] = [Object.keys(sizes)[0], Object.keys(sizes).at(-1)].map(withCommas)
    const name = `cold verify() with ${largest} keys in ${dialect}, p50 in that with ${smallest}`
    return atMost(name, largestInSmallest, 1.5, '×')
  })
  bars.push(atLeast('import into SQLite, keys a second', imports.sqlite.keysPerSecond, 20_000, ''))
  bars.push(atMost("verify() with one limit, CPU in better-auth's", peer.cpuShare, 0.2, '×'))
  for (const name of ['latchkey', 'latchkey-redis']) {
    const { writesPerCall } = peer.subjects[name]
    bars.push(atMost(`${name}: statements that write, for each verify()`, exactly(writesPerCall), 0, ''))
  }
  return bars
}

function judgeList(list) {
  return Object.entries(list?.lists ?? {}).map(([what, { sizes, largestInSmallest }]) => {
    const [smallest, largest] = [Object.keys(sizes)[0], Object.keys(sizes).at(-1)].map(withCommas)
    const name = `list() with ${largest} keys, p50 in that with ${smallest}: ${what}`
    return atMost(name, largestInSmallest, 1.5, '×')
  })
}

function judgeQuota(quota) {
  if (!quota) return []
  const { driven, lease } = quota
  const bars = driven
    .filter(({ pace, quota: units }) => units === 1_000_000 || (pace === 'slow' && units !== null))
    .map(({ pace, processes, quota: units, callsPerRequest }) => {
      const name = `store calls a request, ${pace}, ${processes} × on ${withCommas(units)} units`
      return atMost(name, exactly(callsPerRequest), pace === 'busy' ? 0.01 : 1.3, '')
    })
  return [
    ...bars,
    atMost('verify() with a lease in hand over verify() without a quota', lease.leasedPercent, 3, '%'),
    atMost('the same with one limit', lease.limitedLeasedPercent, 3, '%'),
  ]
}

function withCommas(count) {
  return Number(count).toLocaleString('en')
}

function atMost(name, figure, bar, unit, aim) {
  const meets = (value, limit) => value <= limit
  return holdTo({ name, figure, sense: 'at most', bar, aim, unit, meets })
}

function atLeast(name, figure, bar, unit, aim) {
  const meets = (value, limit) => value >= limit
  return holdTo({ name, figure, sense: 'at least', bar, aim, unit, meets })
}

function holdTo({ name, figure: { median, low, high }, sense, bar, aim, unit, meets }) {
  return {
    name,
    figure: median,
    low,
    high,
    sense,
    bar,
    ...(aim !== undefined && { aim, meetsAim: meets(median, aim) }),
    unit,
    passed: meets(median, bar),
    // The interval holds the bar: another run might say otherwise.
    isClose: low <= bar && bar <= high,
  }
}

function divide(value, reference) {
  return value / reference
}

/** What costs nothing in a round makes no share of it: such a round stands at the end of the order. */
function dividePositive(value, reference) {
  return reference > 0 ? value / reference : Number.POSITIVE_INFINITY
}

function subtract(value, reference) {
  return value - reference
}

function percentAbove(value, reference) {
  return (value / reference - 1) * 100
}

function spreadOf(values) {
  return {
    min: quantile(values, 0),
    p5: quantile(values, 0.05),
    p95: quantile(values, 0.95),
    max: quantile(values, 1),
  }
}
