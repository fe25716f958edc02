import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { openConnections } from './load.mjs'
import { quantile, shuffle } from './statistics.mjs'
import { routeBody, routePath, targets } from './targets.mjs'

/**
 * Short turns, many to a round: what slows this machine for a second then slows every target alike. Much shorter
 * ones would measure the reading of the CPU time, which costs a server about as much as half a request.
 */
const minRequestsPerTurn = 100
/** So that all connections are busy for most of a turn. */
const requestsPerConnection = 4

/**
 * Measures every named target in every round, in turns whose order is shuffled anew each time. Resolves with one
 * object per round that maps each target to its figures; figures of one round are a pair.
 *
 * The servers are started `starts` times in the course of the run: two processes of the same program differ by a
 * few per cent for as long as they live, and no number of rounds would average that out.
 */
export async function measureHttp({
  names,
  rounds,
  starts,
  warmups,
  requests,
  connections,
  redisUrl,
  random,
  onProgress,
}) {
  const requestsPerTurn = Math.max(minRequestsPerTurn, connections * requestsPerConnection)
  const plan = { turns: Math.ceil(requests / requestsPerTurn), requestsPerTurn, random }
  const measured = []
  for (let start = 0; start < starts; start += 1) {
    const servers = []
    try {
      for (const name of names) servers.push(await startServer(name, connections, redisUrl))
      for (const server of servers) await probe(server)
      for (let warmup = 0; warmup < warmups; warmup += 1) {
        onProgress(`start ${start + 1} of ${starts}: warming up`)
        await runRound(servers, plan)
      }
      while (measured.length < Math.round((rounds * (start + 1)) / starts)) {
        onProgress(`start ${start + 1} of ${starts}: round ${measured.length + 1} of ${rounds}`)
        measured.push(await runRound(servers, plan))
      }
    } finally {
      for (const server of servers) server.stop()
    }
  }
  return measured
}

async function runRound(servers, { turns, requestsPerTurn, random }) {
  const totals = new Map(servers.map((server) => [server, { cpuUs: 0, elapsedMs: 0, latenciesMs: [] }]))
  for (let turn = 0; turn < turns; turn += 1) {
    for (const server of shuffle(servers, random)) {
      const { cpuUs, elapsedMs, latenciesMs } = await runTurn(server, requestsPerTurn)
      const total = totals.get(server)
      total.cpuUs += cpuUs
      total.elapsedMs += elapsedMs
      total.latenciesMs.push(...latenciesMs)
    }
  }
  const requests = turns * requestsPerTurn
  return Object.fromEntries(
    [...totals].map(([{ name }, { cpuUs, elapsedMs, latenciesMs }]) => [
      name,
      {
        cpuUsPerRequest: cpuUs / requests,
        requestsPerSecond: requests / (elapsedMs / 1000),
        p50Ms: quantile(latenciesMs, 0.5),
        p99Ms: quantile(latenciesMs, 0.99),
      },
    ]),
  )
}

async function runTurn(server, requests) {
  try {
    const before = await server.readCpuUs()
    const { elapsedMs, latenciesMs } = await server.send(requests)
    const after = await server.readCpuUs()
    return { cpuUs: after - before, elapsedMs, latenciesMs }
  } catch (error) {
    throw new Error(`"${server.name}": ${error.message}`, { cause: error })
  }
}

async function startServer(name, connections, redisUrl) {
  const args = redisUrl === undefined ? [name] : [name, redisUrl]
  const child = fork(fileURLToPath(new URL('serve-target.mjs', import.meta.url)), args, {
    env: { ...process.env, NODE_ENV: 'production' },
    execArgv: [],
  })
  let load
  let stopping = false
  const died = once(child, 'exit').then(([code]) => {
    if (!stopping) throw new Error(`the server of "${name}" ended with code ${code}`)
  })
  died.catch(() => {}) // reported by whoever waits for the server next

  try {
    const { port, key } = await hear()
    load = await openConnections({ port, path: routePath, key, count: connections })
    return { name, port, key, send, readCpuUs, stop }
  } catch (error) {
    stop()
    throw error
  }

  async function hear() {
    const [message] = await Promise.race([once(child, 'message'), died])
    return message
  }

  function send(requests) {
    return Promise.race([load.send(requests), died])
  }

  async function readCpuUs() {
    const answer = hear()
    child.send('cpu')
    return (await answer).cpuUs
  }

  function stop() {
    stopping = true
    load?.close()
    child.kill()
  }
}

/** A figure for a guard that does not guard, or for a limit that is not on, is worth nothing. */
async function probe({ name, port, key }) {
  const { guarded = false, limited = false } = targets[name]
  const admitted = await get(port, key)
  expect(name, 'status with a good key', admitted.status, 200)
  expect(name, 'body', admitted.body, routeBody)
  expect(name, 'presence of the RateLimit field', admitted.headers.has('RateLimit'), limited)

  const lastCharacter = key.endsWith('0') ? '1' : '0'
  const refused = await get(port, key.slice(0, -1) + lastCharacter)
  expect(name, 'status with a bad key', refused.status, guarded ? 401 : 200)
}

async function get(port, key) {
  const response = await fetch(`http://127.0.0.1:${port}${routePath}`, {
    headers: { 'X-Api-Key': key, Connection: 'close' },
  })
  return { status: response.status, headers: response.headers, body: await response.text() }
}

function expect(name, what, actual, expected) {
  if (actual !== expected) throw new Error(`"${name}": ${what}: expected ${expected}, received ${actual}`)
}
