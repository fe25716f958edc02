import { pair, quantile, summarise } from './statistics.mjs'
import { targets } from './targets.mjs'

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
        addedUs: summarise(pair(cpu, reference, (value, other) => value - other)),
        addedPercent: { ...summarise(addedPercent), ...spreadOf(addedPercent) },
      },
    ]
  })
  return {
    targets: Object.fromEntries(summaries),
    // The one comparison of two targets that are not set against each other.
    ...(names.includes('strategy') &&
      names.includes('headerapikey') && {
        strategyLessHeaderApiKeyUs: summarise(
          pair(
            valuesOf('strategy', 'cpuUsPerRequest'),
            valuesOf('headerapikey', 'cpuUsPerRequest'),
            (value, other) => value - other,
          ),
        ),
      }),
    cpuUsPerRequestByRound: rounds.map((round) =>
      Object.fromEntries(names.map((name) => [name, round[name].cpuUsPerRequest])),
    ),
  }
}

/** What the rounds of the `verify` comparison say, in CPU nanoseconds per call and in hashes. */
export function summariseVerify(rounds) {
  const valuesOf = (name) => rounds.map((round) => round[name])
  const inHashes = (name) => pair(valuesOf(name), valuesOf('sha256'), (value, hash) => value / hash)
  const control = pair(valuesOf('sha256-again'), valuesOf('sha256'), percentAbove)
  return {
    sha256Ns: summarise(valuesOf('sha256')),
    verifyNs: summarise(valuesOf('verify')),
    verifyUnlimitedNs: summarise(valuesOf('verify-unlimited')),
    controlPercent: { ...summarise(control), ...spreadOf(control) },
    verifyInHashes: summarise(inHashes('verify')),
    verifyUnlimitedInHashes: summarise(inHashes('verify-unlimited')),
  }
}

/** The bars of this project that the figures at hand can be held to. */
export function judge({ http, verify }) {
  const { middleware, strategy, headerapikey } = http?.targets ?? {}
  const bars = []
  if (middleware?.addedPercent) {
    bars.push(atMost('app.use(apiKeyAuth) over the bare route', middleware.addedPercent, 20, '%', 12))
  }
  if (strategy?.addedPercent) {
    bars.push(atMost('ApiKeyStrategy over the do-nothing strategy', strategy.addedPercent, 20, '%', 10))
  }
  if (strategy && headerapikey) {
    bars.push(atMost('ApiKeyStrategy less passport-headerapikey', http.strategyLessHeaderApiKeyUs, 0, ' µs'))
  }
  if (verify) bars.push(atMost('verify(), warm, in SHA-256 of the key', verify.verifyInHashes, 8, '×'))
  return bars
}

function atMost(name, figure, bar, unit, aim) {
  return {
    name,
    figure: figure.median,
    low: figure.low,
    high: figure.high,
    bar,
    ...(aim !== undefined && { aim }),
    unit,
    passed: figure.median <= bar,
    // The interval holds the bar: another run might say otherwise.
    isClose: figure.low <= bar && bar <= figure.high,
  }
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
