/** The results as text for people. */
export function formatResults(
  settings,
  { http, doors, latency, warmup, start, verify, memory, strangers, redis, stores, list, quota, bars },
) {
  return [
    formatSettings(settings),
    http && formatHttp('HTTP', http),
    doors && formatHttp('The doors over HTTP', doors),
    latency && formatLatency(latency),
    warmup && formatWarmup(warmup),
    start && formatStart(start),
    verify && formatVerify(verify),
    memory && formatMemory(memory),
    strangers && formatStrangers(strangers),
    redis?.http && formatHttp(`HTTP with Redis ${redis.version}`, redis.http),
    redis && formatCheck(redis),
    stores && formatCold(stores),
    stores && formatPeer(stores),
    list && formatList(list),
    quota && formatQuota(quota),
    bars.length > 0 && formatBars(bars),
  ]
    .filter(Boolean)
    .join('\n\n')
}

function formatSettings({ node, cpu, cores, seed, rounds }) {
  const few = rounds < 25 ? ' (fewer than 25: for a quick look only)' : ''
  const meaning = rounds < 6 ? 'is the whole range' : 'holds the true median with 95 % confidence'
  return `Node ${node}, ${cores} × ${cpu}. Seed ${seed}, ${rounds} rounds${few}.
Figures are medians over rounds; [ ] ${meaning}.`
}

function formatHttp(title, { targets }) {
  const rows = Object.entries(targets).map(([name, target]) => [
    name,
    target.label,
    interval(target.cpuUsPerRequest, 1),
    target.against ?? '',
    target.against ? interval(target.addedUs, 1) : '',
    target.against ? interval(target.addedPercent, 1) : '',
    interval(target.requestsPerSecond, 0),
  ])
  const header = ['target', '', 'CPU µs/request', 'against', 'added µs', 'added %', 'requests/s']
  const controls = Object.entries(targets)
    .filter(([name, { against }]) => name === `${against}-again`)
    .map(([, { against, addedPercent }]) => `${against}: ${spread(addedPercent)}`)
  const lines = [`${title}: server CPU per request`, formatTable([header, ...rows])]
  if (controls.length > 0) lines.push(...controls.map((control) => `A/A control, ${control}`))
  return lines.join('\n')
}

function formatLatency({ connections }) {
  const rows = Object.entries(connections).flatMap(([count, servers]) =>
    Object.values(servers).map(({ label, p50Ms, p99Ms, requestsPerSecond }) => [
      count,
      label,
      interval(p50Ms, 2),
      interval(p99Ms, 2),
      interval(requestsPerSecond, 0),
    ]),
  )
  const header = ['connections', '', 'p50 ms', 'p99 ms', 'requests/s']
  return ['Latency, each connection with one request under way', formatTable([header, ...rows])].join('\n')
}

function formatWarmup({ requests, cpuUsPerRequest }) {
  const rounds = Object.values(cpuUsPerRequest)[0].map((_, round) => round + 1)
  const rows = Object.entries(cpuUsPerRequest).map(([name, values]) => [
    name,
    ...values.map((v) => v.toFixed(0)),
  ])
  return [
    `Warm-up: CPU µs/request in each round of ${requests} requests from the start of the server`,
    formatTable([['', ...rounds.map(String)], ...rows]),
  ].join('\n')
}

function formatStart(start) {
  return [
    'Start, each time in a process of its own',
    formatTable([
      ['', 'ms', 'in loading Express'],
      ['loading Express', interval(start.expressMs, 0), '1'],
      [
        "loading latchkey with Express's door",
        interval(start.latchkeyMs, 0),
        interval(start.latchkeyInExpress, 2),
      ],
      ['the same once Express is loaded', '', interval(start.latchkeyAfterExpressInExpress, 2)],
      ['first verify(), SQLite', interval(start.firstVerifyMs, 1), ''],
    ]),
    `Bundled and minified: ${start.bundledBytes.toLocaleString('en')} bytes`,
  ].join('\n')
}

function formatVerify(verify) {
  const { sha256Ns, verifyNs, verifyUnlimitedNs, verifyInHashes, verifyUnlimitedInHashes } = verify
  const { verifyRemoteNs, verifyRemoteInLocal } = verify
  return [
    'verify(): CPU per call, warm, one call after the other',
    formatTable([
      ['', 'ns/call', 'in hashes'],
      ["crypto.hash('sha256', key)", interval(sha256Ns, 0), '1'],
      ['keys.verify(key), one limit', interval(verifyNs, 0), interval(verifyInHashes, 2)],
      ['keys.verify(key), no limit', interval(verifyUnlimitedNs, 0), interval(verifyUnlimitedInHashes, 2)],
    ]),
    `remoteApiKeys(client).verify(key), remembered: ${interval(verifyRemoteNs, 0)} ns, ${interval(verifyRemoteInLocal, 2)} times a local one without a limit`,
    `A/A control, sha256: ${spread(verify.controlPercent)}`,
  ].join('\n')
}

function formatMemory({ keys, bytesPerCachedRecord, bytesPerCachedRecordAndLedger, bytesPerStoredKey }) {
  return [
    `Memory at ${keys.toLocaleString('en')} keys`,
    formatTable([
      ['', 'bytes'],
      ['cached record', bytesPerCachedRecord.toFixed(0)],
      [
        'cached record and what memoryRateLimiter() counts for one limit',
        bytesPerCachedRecordAndLedger.toFixed(0),
      ],
      ['key in memoryStore(), and the key itself', bytesPerStoredKey.toFixed(0)],
    ]),
  ].join('\n')
}

function formatStrangers({ bodies }) {
  const rows = Object.entries(bodies).map(([body, figures]) => [
    body,
    interval(figures.jsonUs, 0),
    interval(figures.expressUs, 0),
    interval(figures.expressInJson, 2),
    interval(figures.koaUs, 0),
    interval(figures.koaInJson, 2),
  ])
  return [
    'A body whose sender is nobody: server CPU for its 401',
    formatTable([
      ['body', 'express.json() µs', 'apiKeyRouter µs', 'times', 'apiKeyRouter of Koa µs', 'times'],
      ...rows,
    ]),
    ...Object.entries(bodies).map(
      ([body, { controlPercent }]) => `A/A control, ${body}: ${spread(controlPercent)}`,
    ),
  ].join('\n')
}

function formatCheck({ version, check }) {
  const rows = Object.entries(check).flatMap(([concurrent, { subjects, ...times }]) => {
    const row = (name, label, timesAsFast) => {
      const { callsPerSecond, cpuUsPerCall } = subjects[name]
      return [concurrent, label, interval(callsPerSecond, 0), interval(cpuUsPerCall, 1), timesAsFast]
    }
    return [
      row('one', 'redisRateLimiter, one limit', interval(times.oneTimesAsFast, 2)),
      row('flexible', 'RateLimiterRedis', '1'),
      row('three', 'redisRateLimiter, three limits', interval(times.threeTimesAsFast, 2)),
      row('union', 'RateLimiterUnion of three', '1'),
    ]
  })
  const controls = Object.entries(check).flatMap(
    ([concurrent, { flexibleControlPercent, unionControlPercent }]) => [
      `A/A control, RateLimiterRedis at ${concurrent}: ${spread(flexibleControlPercent)}`,
      `A/A control, RateLimiterUnion at ${concurrent}: ${spread(unionControlPercent)}`,
    ],
  )
  return [
    `check() alone with Redis ${version}, beside rate-limiter-flexible, 1,000 keys`,
    formatTable([['concurrent', '', 'calls/s', 'CPU µs/call', 'times as fast'], ...rows]),
    ...controls,
  ].join('\n')
}

function formatCold({ postgresVersion, cold, import: imports }) {
  const titles = { sqlite: 'SQLite', postgres: `PostgreSQL ${postgresVersion}` }
  const rows = Object.entries(cold).flatMap(([dialect, { sizes }]) =>
    Object.entries(sizes).map(([size, { p50Us, p99Us, callsPerVerify }]) => [
      titles[dialect],
      Number(size).toLocaleString('en'),
      interval(p50Us, 0),
      interval(p99Us, 0),
      String(callsPerVerify),
    ]),
  )
  const speeds = Object.entries(imports).map(([dialect, { keys, keysPerSecond, cpuUsPerKey }]) => [
    titles[dialect],
    keys.toLocaleString('en'),
    interval(keysPerSecond, 0),
    cpuUsPerKey.toFixed(1),
  ])
  return [
    'verify() with nothing in memory, one call after the other, keys drawn at random',
    formatTable([['', 'keys', 'p50 µs', 'p99 µs', 'store calls'], ...rows]),
    '',
    'importAll(), rows of better-auth [slowest and fastest tenth]',
    formatTable([['', 'keys', 'keys/s', 'CPU µs/key'], ...speeds]),
  ].join('\n')
}

function formatQuota({ driven, lease }) {
  const rows = driven.map((row) => [
    row.pace,
    String(row.processes),
    row.quota === null ? 'none' : row.quota.toLocaleString('en'),
    row.requests.toLocaleString('en'),
    row.admitted.toLocaleString('en'),
    row.swapsPerRequest.toFixed(4),
    row.readsPerRequest.toFixed(4),
    row.callsPerRequest.toFixed(4),
    row.cpuUsPerRequest.toFixed(1),
  ])
  const header = [
    'pace',
    'processes',
    'quota',
    'requests',
    'admitted',
    'swaps',
    'reads',
    'store calls',
    'CPU µs',
  ]
  return [
    'Quotas in PostgreSQL: what each request costs, until the quota is spent or 10 minutes (busy) or an hour (slow) have gone by',
    formatTable([header, ...rows]),
    '',
    'verify() with a lease in hand: CPU per call',
    formatTable([
      ['', 'ns/call', 'over the same without a quota, %'],
      ['no limit, no quota', interval(lease.plainNs, 0), ''],
      ['no limit, a lease in hand', interval(lease.leasedNs, 0), interval(lease.leasedPercent, 1)],
      ['one limit, no quota', interval(lease.limitedNs, 0), ''],
      [
        'one limit, a lease in hand',
        interval(lease.limitedLeasedNs, 0),
        interval(lease.limitedLeasedPercent, 1),
      ],
    ]),
    `A/A control, no limit: ${spread(lease.controlPercent)}`,
  ].join('\n')
}

function formatPeer({ postgresVersion, peer }) {
  const labels = {
    'better-auth': 'better-auth, verifyApiKey',
    'better-auth-again': 'the same again (A/A control)',
    latchkey: 'latchkey, memoryRateLimiter, one limit',
    'latchkey-redis': 'latchkey, redisRateLimiter, one limit',
  }
  const rows = Object.entries(peer.subjects).map(([name, subject]) => [
    labels[name],
    interval(subject.cpuUsPerCall, 1),
    interval(subject.callsPerSecond, 0),
    String(subject.readsPerCall),
    String(subject.writesPerCall),
    String(subject.usagePerCall),
  ])
  const header = ['', 'CPU µs/call', 'calls/s', 'reads', 'writes', 'later, for usage']
  return [
    `Warm verification on PostgreSQL ${postgresVersion}, 16 calls under way: this process's CPU, and statements per call`,
    formatTable([header, ...rows]),
    `In CPU of better-auth: ${interval(peer.cpuShare, 4)}, with Redis ${interval(peer.cpuShareWithRedis, 4)}`,
    `A/A control, better-auth: ${spread(peer.controlPercent)}`,
  ].join('\n')
}

function formatList({ postgresVersion, filled, lists }) {
  const sizes = filled.map(({ size }) => size)
  const rows = Object.entries(lists).map(([name, { sizes: figures, largestInSmallest }]) => [
    name,
    ...sizes.map((size) => interval(figures[size].p50Us, 0)),
    interval(largestInSmallest, 2),
    String(figures[sizes.at(-1)].statements),
    figures[sizes.at(-1)].keysPerPage.toFixed(1),
  ])
  const counts = sizes.map((size) => `${size.toLocaleString('en')} keys, p50 µs`)
  return [
    `list() of 20 on PostgreSQL ${postgresVersion}, one call after the other, 100 keys an owner`,
    formatTable([['', ...counts, 'largest in smallest', 'queries', 'keys'], ...rows]),
  ].join('\n')
}

function formatBars(bars) {
  const lines = bars.map(({ name, figure, low, high, sense, bar, aim, meetsAim, unit, passed, isClose }) => {
    const digits = bar < 0.1 && bar > 0 ? 4 : unit === '×' ? 2 : 1
    const range = `[${low.toFixed(digits)}, ${high.toFixed(digits)}]`
    const aimed = aim === undefined ? '' : `, aim ${aim}${unit}: ${meetsAim ? 'met' : 'missed'}`
    const close = isClose ? ' (the interval holds the bar)' : ''
    return `${passed ? 'PASS' : 'FAIL'}  ${name}: ${figure.toFixed(digits)}${unit} ${range}, bar ${sense} ${bar}${unit}${aimed}${close}`
  })
  return ['Bars', ...lines].join('\n')
}

function interval({ median, low, high }, digits) {
  return `${median.toFixed(digits)} [${low.toFixed(digits)}, ${high.toFixed(digits)}]`
}

function spread(percent) {
  const { p5, p95, min, max } = percent
  const single = `5 % to 95 % of rounds ${p5.toFixed(1)} to ${p95.toFixed(1)}, all ${min.toFixed(1)} to ${max.toFixed(1)}`
  return `difference ${interval(percent, 2)} %; single rounds: ${single} %`
}

function formatTable(rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)))
  return rows
    .map((row) => `  ${row.map((cell, column) => cell.padEnd(widths[column])).join('  ')}`.trimEnd())
    .join('\n')
}
