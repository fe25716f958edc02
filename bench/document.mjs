/** What the pages quote of `results.json`, so that no figure is copied by hand. */

const servers = [
  'hand',
  'middleware',
  'headerapikey-limited',
  'better-auth',
  'strategy',
  'koa-hand',
  'koa-middleware',
]
const redisServers = ['redis-hand', 'redis-latchkey', 'redis-latchkey-three', 'redis-headerapikey']

/** The section "The last report" of bench/README.md. */
export function lastReport(report) {
  const { http, redis, latency, stores, list } = report
  return `## The last report

Measured on ${http.cores} shared cores and Node ${http.node}, with the memory store and one rate limit unless a row says otherwise. Figures are
medians over at least 25 rounds, with the interval that holds the true one with 95 % confidence.

![CPU that each guard adds to a request](cost.svg)

${table(['what stands before the route', 'set against', 'µs of CPU it adds'], costs(http, servers))}

With Redis:

${table(['what stands before the route', 'set against', 'µs of CPU it adds'], costs(redis.http, redisServers))}

What the project holds itself to; a bar in brackets lies in the interval, so another run might decide otherwise:

${table(['', 'figure', 'bar', ''], report.bars.map(barRow))}

With more and more connections, each with one request under way; the load shares the machine with the server:

${table(['server', 'connections', 'p50, ms', 'p99, ms', 'requests a second'], latencyRows(latency))}

A \`verify()\` with nothing in memory is one indexed read. Its median time:

${table(['database', '1,000 keys', '1,000,000 keys', ''], Object.entries(stores.cold).map(coldRow))}

An import of a million keys stores ${whole(stores.import.sqlite.keysPerSecond)} a second in SQLite and ${whole(stores.import.postgres.keysPerSecond)} in PostgreSQL.
Listing 20 keys is one query over indexes, on every page, of one owner or of several. Its median time on PostgreSQL, where each
owner has 100 keys:

${table(['list', '1,000 keys', '1,000,000 keys', ''], Object.entries(list.lists).map(listRow))}

A list by status reads past expired keys until they are purged; in MySQL, MariaDB and Redis past revoked ones as well. With very
many of them, some ten thousand in Redis, it may take longer than \`timeoutMs\`.

`
}

/** The paragraph under "Speed" in the README. */
export function speed({ http, redis }) {
  const added = (targets, name) => `${targets[name].addedUs.median.toFixed(1)} µs`
  const { targets } = http
  return `Of CPU, \`app.use(apiKeyAuth(keys))\` with one rate limit adds ${added(targets, 'middleware')} to an Express 5 request. A guard written by hand for the
same job (SHA-256, a Map, one window, two fields) adds ${added(targets, 'hand')}, passport-headerapikey with express-rate-limit ${added(targets, 'headerapikey-limited')}.
With \`redisRateLimiter\` it adds ${added(redis.http.targets, 'redis-latchkey')} to a route that makes one Redis call of its own. [All figures, and how they are
measured](bench/README.md)
`
}

function costs({ targets }, names) {
  return names.map((name) => {
    const { label, against, addedUs } = targets[name]
    return [label, targets[against].label, interval(addedUs, 1)]
  })
}

function barRow({ name, figure, low, high, sense, bar, unit, passed, isClose }) {
  const held = `${sense} ${number(bar)}${unit}`
  const value =
    low === high ? `${number(figure)}${unit}` : `${number(figure)}${unit} [${number(low)}, ${number(high)}]`
  return [name, value, isClose ? `(${held})` : held, passed ? 'met' : '**missed**']
}

function latencyRows({ connections }) {
  return Object.entries(connections).flatMap(([count, targets]) =>
    Object.values(targets).map(({ label, p50Ms, p99Ms, requestsPerSecond }) => [
      label,
      count,
      p50Ms.median.toFixed(2),
      p99Ms.median.toFixed(2),
      whole(requestsPerSecond),
    ]),
  )
}

function coldRow([dialect, { sizes, largestInSmallest }]) {
  const p50 = (size) => `${sizes[size].p50Us.median.toFixed(0)} µs`
  return [dialect, p50(1_000), p50(1_000_000), `${largestInSmallest.median.toFixed(2)} times`]
}

function listRow([name, { sizes, largestInSmallest }]) {
  const p50 = (size) => `${(sizes[size].p50Us.median / 1_000).toFixed(1)} ms`
  return [name, p50(1_000), p50(1_000_000), `${largestInSmallest.median.toFixed(2)} times`]
}

function interval({ median, low, high }, digits) {
  return `${median.toFixed(digits)} [${low.toFixed(digits)}, ${high.toFixed(digits)}]`
}

function whole({ median }) {
  return Math.round(median).toLocaleString('en-US')
}

/** Three digits that count, and no more than they say. */
function number(value) {
  // The report has no infinity: what stands for one is null.
  if (value === null) return '∞'
  return Math.abs(value) >= 100
    ? Math.round(value).toLocaleString('en-US')
    : String(Number(value.toPrecision(3)))
}

function table(head, rows) {
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}
