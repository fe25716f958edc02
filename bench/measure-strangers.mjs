/**
 * What a body costs whose sender is nobody, beside `express.json()` and a 401: `measure-strangers.mjs <rounds> <seed>`. Sends from a
 * process of its own, so that only the server's CPU counts; one object per round that maps each body to CPU microseconds of each subject.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { Agent, request } from 'node:http'
import { fileURLToPath } from 'node:url'
import { createRandom, shuffle } from './statistics.mjs'

const rounds = Number(process.argv[2])
const random = createRandom(Number(process.argv[3]))
const turnsPerRound = 4
const warmupRounds = 2
const sizes = [
  { name: '64 KiB', bytes: 65_536, requestsPerTurn: 25 },
  { name: '1 MiB', bytes: 1_048_576, requestsPerTurn: 5 },
]
/** As many values as fit, as many objects, and a single text. */
const shapes = [
  { name: 'numbers', item: '0', wrap: (items) => `[${items}]` },
  { name: 'objects', item: '{"a":0}', wrap: (items) => `[${items}]` },
  { name: 'text', item: 'x', glue: '', wrap: (items) => `"${items}"` },
]

const server = fork(
  fileURLToPath(new URL('serve-strangers.mjs', import.meta.url)),
  [String(sizes.at(-1).bytes)],
  {
    env: { ...process.env, NODE_ENV: 'production' },
  },
)
const [ports] = await once(server, 'message')
const agent = new Agent({ keepAlive: true, maxSockets: 1 })
const bodies = sizes.flatMap(({ bytes, requestsPerTurn, ...size }) =>
  shapes.map((shape) => ({
    name: `${size.name}, ${shape.name}`,
    requestsPerTurn,
    text: makeBody(shape, bytes),
  })),
)

const measured = []
for (let round = -warmupRounds; round < rounds; round += 1) {
  const figures = await runRound()
  if (round >= 0) measured.push(figures)
}
server.kill()
agent.destroy()
process.send(measured, () => process.disconnect())

async function runRound() {
  const figures = {}
  for (const body of bodies) {
    const totals = Object.fromEntries(Object.keys(ports).map((name) => [name, 0]))
    for (let turn = 0; turn < turnsPerRound; turn += 1) {
      for (const name of shuffle(Object.keys(ports), random)) totals[name] += await runTurn(name, body)
    }
    const requests = turnsPerRound * body.requestsPerTurn
    figures[body.name] = Object.fromEntries(
      Object.entries(totals).map(([name, cpuUs]) => [name, cpuUs / requests]),
    )
  }
  return figures
}

async function runTurn(name, { text, requestsPerTurn }) {
  const before = await readCpuUs()
  for (let sent = 0; sent < requestsPerTurn; sent += 1) {
    const status = await post(ports[name], text)
    if (status !== 401) throw new Error(`"${name}" answered ${status} to a stranger`)
  }
  return (await readCpuUs()) - before
}

async function readCpuUs() {
  const answer = once(server, 'message')
  server.send('cpu')
  return (await answer)[0]
}

function post(port, body) {
  return new Promise((resolve, reject) => {
    const headers = { 'Content-Type': 'application/json', 'Content-Length': body.length }
    const sent = request({ agent, port, host: '127.0.0.1', path: '/api-keys', method: 'POST', headers })
    sent.on('error', reject)
    sent.on('response', (response) => {
      response.resume()
      response.on('end', () => resolve(response.statusCode))
    })
    sent.end(body)
  })
}

/** A key that is asked for, whose metadata fills the body up to its size. */
function makeBody({ item, glue = ',', wrap }, bytes) {
  const around = (items) => `{"name":"x","metadata":{"a":${wrap(items)}}}`
  const room = bytes - around('').length
  const count = Math.floor((room + glue.length) / (item.length + glue.length))
  return Buffer.from(around(Array(count).fill(item).join(glue)))
}
