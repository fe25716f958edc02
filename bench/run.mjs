import { fork } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { buildLibrary, installPeers } from './prepare.mjs'
import { formatResults } from './print.mjs'
import { createRandom } from './statistics.mjs'

const usage = `npm run bench -- [part] [options]

  http, doors, latency, warmup, start, verify, memory, strangers, redis, stores, list, quota: one part instead of all

  --only part                      the same
  --targets a,b                    only these servers (see targets.mjs)
  --rounds 25                      rounds of the comparisons over HTTP, of verify(), of strangers, of check() and of list()
  --starts 5                       how often the processes are started afresh in the course of the rounds
  --warmups 8                      rounds after each start that do not count
  --requests 2000                  requests to each server in each round
  --connections 16                 connections to each server
  --sizes 1000,100000,1000000      how many keys the stores hold of which cold verification and list() are measured
  --seed N                         repeats the order in which the targets took their turns
  --strict                         exit 1 when a bar is missed
`
const parts = [
  'http',
  'doors',
  'latency',
  'warmup',
  'start',
  'verify',
  'memory',
  'strangers',
  'redis',
  'stores',
  'list',
  'quota',
]
/** Of the part `latency`. */
const connectionCounts = [1, 16, 256]
/** Of the part `warmup`. */
const warmupRounds = 20
/** What these two parts measure. */
const servers = [
  'bare',
  'hand',
  'middleware',
  'headerapikey-limited',
  'koa-bare',
  'koa-hand',
  'koa-middleware',
]
/** What the part `doors` sets the doors against. */
const express = ['bare', 'middleware']
const memoryKeys = 100_000
const resultsFile = new URL('results.json', import.meta.url)
const chartFile = new URL('cost.svg', import.meta.url)

try {
  const passed = await main()
  process.exitCode = passed ? 0 : 1
} catch (error) {
  console.error(error)
  process.exitCode = 1
}

async function main() {
  const options = readOptions()
  if (options.help) {
    console.log(usage)
    return true
  }
  installPeers()
  const summarise = await import('./results.mjs')
  const { summariseHttp, summariseDoors, summariseVerify, summariseStrangers, summariseRedis } = summarise
  const { summariseLatency, summariseWarmup, summariseStart, summariseStores } = summarise
  const { summariseList, summariseQuota, judge } = summarise
  const { targets } = await import('./targets.mjs')
  const names = readTargets(targets, options)
  const needsLibrary =
    options.parts.some((part) => part !== 'http') || names.http.some((name) => targets[name].library)
  if (needsLibrary) buildLibrary()

  const results = {}
  const note = (part, figures) => {
    results[part] = { ...describeRun(options), ...figures }
  }
  if (names.http.length > 0) note('http', summariseHttp(await runHttp(names.http, options)))
  if (names.doors.length > 0)
    note('doors', summariseDoors(await runHttp([...express, ...names.doors], options)))
  if (options.parts.includes('latency')) note('latency', summariseLatency(await runLatency(options)))
  if (options.parts.includes('warmup')) note('warmup', summariseWarmup(await runWarmup(options)))
  if (options.parts.includes('start')) note('start', summariseStart(await runStart(options)))
  if (options.parts.includes('verify')) note('verify', summariseVerify(await runVerify(options)))
  if (options.parts.includes('memory')) note('memory', await runMemory())
  if (options.parts.includes('strangers')) note('strangers', summariseStrangers(await runStrangers(options)))
  if (options.parts.includes('redis')) note('redis', summariseRedis(await runRedis(names.redis, options)))
  if (options.parts.includes('stores')) note('stores', summariseStores(await runStores(options)))
  if (options.parts.includes('list')) note('list', summariseList(await runList(options)))
  if (options.parts.includes('quota')) note('quota', summariseQuota(await runQuota(options)))
  results.bars = judge(results)
  console.log(formatResults(describeRun(options), results))
  const report = withLastReport(results)
  writeFileSync(resultsFile, `${JSON.stringify(report, roundNumber, 2)}\n`)
  if (results.http && !options.targets) await drawChart(results.http)
  return !options.strict || results.bars.every(({ passed }) => passed)
}

async function drawChart(http) {
  const { drawCosts } = await import('./chart.mjs')
  writeFileSync(chartFile, drawCosts(http))
}

/** The parts that ran take their places in the last report. */
function withLastReport({ bars, ...ran }) {
  const last = existsSync(resultsFile) ? JSON.parse(readFileSync(resultsFile, 'utf8')) : { bars: [] }
  const kept = last.bars.filter(({ part }) => ran[part] === undefined)
  return { ...last, ...ran, bars: [...kept, ...bars] }
}

function readOptions() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      only: { type: 'string' },
      targets: { type: 'string' },
      rounds: { type: 'string', default: '25' },
      starts: { type: 'string', default: '5' },
      warmups: { type: 'string', default: '8' },
      requests: { type: 'string', default: '2000' },
      connections: { type: 'string', default: '16' },
      sizes: { type: 'string', default: '1000,100000,1000000' },
      seed: { type: 'string', default: String(randomInt(2 ** 32)) },
      strict: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const { strict, help } = values
  const [only, ...more] = values.only === undefined ? positionals : [values.only, ...positionals]
  if (more.length > 0 || (only !== undefined && !parts.includes(only))) {
    throw new TypeError(`the part must be one of ${parts.join(', ')}, received ${[only, ...more].join(' ')}`)
  }
  const sizes = values.sizes.split(',').map((size) => readInteger('sizes', size, 1_000))
  const rounds = readInteger('rounds', values.rounds, 1)
  return {
    parts: only === undefined ? parts : [only],
    targets: values.targets?.split(','),
    rounds,
    starts: Math.min(rounds, readInteger('starts', values.starts, 1)),
    warmups: readInteger('warmups', values.warmups, 0),
    requests: readInteger('requests', values.requests, 1),
    connections: readInteger('connections', values.connections, 1),
    sizes,
    seed: readInteger('seed', values.seed, 0),
    strict,
    help,
  }
}

function readInteger(name, text, min) {
  const value = Number(text)
  if (text !== '' && Number.isSafeInteger(value) && value >= min) return value
  throw new TypeError(`"--${name}" must be an integer from ${min}, received ${text}`)
}

/** The servers to measure of each part that is run. */
function readTargets(targets, options) {
  const partOf = (name) => {
    const { redis, door } = targets[name]
    return redis ? 'redis' : door ? 'doors' : 'http'
  }
  const known = Object.keys(targets).filter((name) => options.parts.includes(partOf(name)))
  const names = options.targets ?? known
  const unknown = names.find((name) => !known.includes(name))
  if (unknown !== undefined) {
    throw new TypeError(`"--targets" knows ${known.join(', ') || 'none in this part'}; received ${unknown}`)
  }
  const namesOf = (part) => names.filter((name) => partOf(name) === part)
  return { http: namesOf('http'), doors: namesOf('doors'), redis: namesOf('redis') }
}

function describeRun({ seed, rounds, starts, warmups, requests, connections }) {
  return {
    at: new Date().toISOString(),
    node: process.versions.node,
    cpu: cpus()[0]?.model.trim() ?? 'unknown CPU',
    cores: availableParallelism(),
    seed,
    rounds,
    starts,
    warmups,
    requests,
    connections,
  }
}

async function runHttp(names, options, redisUrl) {
  const { measureHttp } = await import('./http.mjs')
  const random = createRandom(options.seed)
  return measureHttp({ ...options, names, redisUrl, random, onProgress: showProgress })
}

async function runLatency(options) {
  const measured = {}
  for (const connections of connectionCounts) {
    measured[connections] = await runHttp(servers, { ...options, connections })
  }
  return measured
}

/** Resolves with the rounds of each start. */
async function runWarmup(options) {
  const measured = []
  for (let start = 0; start < options.starts; start += 1) {
    measured.push(await runHttp(servers, { ...options, warmups: 0, starts: 1, rounds: warmupRounds }))
  }
  return measured
}

async function runStart({ rounds, seed }) {
  showProgress('measure-start.mjs')
  return inFolder((folder) => runScript('measure-start.mjs', [rounds, seed, folder]))
}

/** Runs in a folder of its own, which is removed afterwards. */
async function inFolder(work) {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-bench-'))
  try {
    return await work(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function runVerify(options) {
  const shares = await runScripts('measure-verify.mjs', [], options)
  return shares.flat()
}

async function runStrangers(options) {
  const shares = await runScripts('measure-strangers.mjs', [], options)
  return shares.flat()
}

/** Runs a script in as many processes, for the same reason, as the servers are started: each measures a share. */
async function runScripts(file, args, { rounds, starts, seed }) {
  const shares = []
  let measured = 0
  for (let start = 0; start < starts; start += 1) {
    showProgress(`${file}, start ${start + 1} of ${starts}`)
    const share = Math.round((rounds * (start + 1)) / starts) - measured
    shares.push(await runScript(file, [share, seed + start, ...args]))
    measured += share
  }
  return shares
}

async function runMemory() {
  showProgress('memory')
  const record = await runScript('measure-memory.mjs', [memoryKeys], ['--expose-gc'])
  const limited = await runScript('measure-memory.mjs', [memoryKeys, 'limited'], ['--expose-gc'])
  return {
    keys: memoryKeys,
    bytesPerCachedRecord: record.bytesPerCachedRecord,
    bytesPerCachedRecordAndLedger: limited.bytesPerCachedRecord,
    bytesPerStoredKey: record.bytesPerStoredKey,
  }
}

/** One Redis server for the whole part. */
async function runRedis(names, options) {
  const { withRedis } = await import('./redis.mjs')
  return withRedis(async (redisUrl) => {
    const servers = names.length > 0 ? await runHttp(names, options, redisUrl) : null
    const shares = await runScripts('measure-check.mjs', [redisUrl], options)
    const checks = shares.flatMap(({ measured }) => measured)
    return { version: shares[0].redisVersion, servers, checks }
  })
}

/** The stores one after the other, each alone on the machine; then verification beside that of better-auth. */
async function runStores({ rounds, seed, sizes }) {
  const { withPostgres } = await import('./postgres.mjs')
  const { withRedis } = await import('./redis.mjs')
  return inFolder((folder) => {
    const cold = (dialect, place) => runScript('measure-cold.mjs', [rounds, seed, dialect, place, sizes])
    return withPostgres(async (postgresUrl) => {
      showProgress('measure-cold.mjs, SQLite')
      const sqlite = await cold('sqlite', folder)
      showProgress('measure-cold.mjs, PostgreSQL')
      const postgres = await cold('postgres', postgresUrl)
      showProgress('measure-peer.mjs')
      const peer = await withRedis((redisUrl) =>
        runScript('measure-peer.mjs', [rounds, seed, postgresUrl, redisUrl]),
      )
      return { sqlite, postgres, peer }
    })
  })
}

async function runList({ rounds, seed, sizes }) {
  const { withPostgres } = await import('./postgres.mjs')
  showProgress('measure-list.mjs')
  return withPostgres((postgresUrl) => runScript('measure-list.mjs', [rounds, seed, postgresUrl, sizes]))
}

async function runQuota(options) {
  const { withPostgres } = await import('./postgres.mjs')
  const shares = await runScripts('measure-lease.mjs', [], options)
  showProgress('measure-quota.mjs')
  const driven = await withPostgres((postgresUrl) =>
    runScript('measure-quota.mjs', [options.seed, postgresUrl]),
  )
  return { driven, leases: shares.flat() }
}

/** Runs a script in a process of its own; resolves with what it sends. */
async function runScript(file, args, execArgv = []) {
  const child = fork(fileURLToPath(new URL(file, import.meta.url)), args.map(String), {
    env: { ...process.env, NODE_ENV: 'production' },
    execArgv,
  })
  const failed = once(child, 'exit').then(([code]) => {
    throw new Error(`${file} ended with code ${code} and no result`)
  })
  const [result] = await Promise.race([once(child, 'message'), failed])
  failed.catch(() => {}) // it ends now, as it should
  return result
}

function showProgress(text) {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${text}`)
  else console.error(text)
}

function roundNumber(_name, value) {
  return typeof value === 'number' ? Math.round(value * 10_000) / 10_000 : value
}
