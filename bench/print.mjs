/** The results as text for people. */
export function formatResults({ settings, http, verify, memory, bars }) {
  return [
    formatSettings(settings),
    http && formatHttp(http),
    verify && formatVerify(verify),
    memory && formatMemory(memory),
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

function formatHttp({ targets }) {
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
  const lines = ['HTTP: server CPU per request', formatTable([header, ...rows])]
  if (controls.length > 0) lines.push(...controls.map((control) => `A/A control, ${control}`))
  return lines.join('\n')
}

function formatVerify(verify) {
  const { sha256Ns, verifyNs, verifyUnlimitedNs, verifyInHashes, verifyUnlimitedInHashes } = verify
  return [
    'verify(): CPU per call, warm, one call after the other',
    formatTable([
      ['', 'ns/call', 'in hashes'],
      ["crypto.hash('sha256', key)", interval(sha256Ns, 0), '1'],
      ['keys.verify(key), one limit', interval(verifyNs, 0), interval(verifyInHashes, 2)],
      ['keys.verify(key), no limit', interval(verifyUnlimitedNs, 0), interval(verifyUnlimitedInHashes, 2)],
    ]),
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

function formatBars(bars) {
  const lines = bars.map(({ name, figure, low, high, bar, aim, unit, passed, isClose }) => {
    const digits = unit === '×' ? 2 : 1
    const range = `[${low.toFixed(digits)}, ${high.toFixed(digits)}]`
    const aimed = aim === undefined ? '' : `, aim ${aim}${unit}: ${figure <= aim ? 'met' : 'missed'}`
    const close = isClose ? ' (the interval holds the bar)' : ''
    return `${passed ? 'PASS' : 'FAIL'}  ${name}: ${figure.toFixed(digits)}${unit} ${range}, bar ${bar}${unit}${aimed}${close}`
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
