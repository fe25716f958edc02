/**
 * Where the time of one server of `targets.mjs` goes: `node bench/profile.mjs <target> [<requests>] [<redisUrl>]`. It prints
 * microseconds for each request by function of the library, or of the target, with what Node's and other packages' functions take
 * on their behalf. Sampling costs time itself: read the shares, and take sums from `npm run bench -- http`.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import inspector from 'node:inspector/promises'
import { fileURLToPath } from 'node:url'
import { routePath, targets } from './targets.mjs'

const warmupRequests = 30_000
const samplingUs = 150

const [name, requests = '60000', redisUrl] = process.argv.slice(2)
if (name === 'load') await load(...process.argv.slice(3))
else await profile()

/** The process that sends. */
async function load(port, key, count) {
  const { openConnections } = await import('./load.mjs')
  const { send } = await openConnections({ port: Number(port), path: routePath, key, count: 16 })
  await send(warmupRequests)
  process.send('warm')
  await once(process, 'message')
  await send(Number(count))
  process.send('done', () => process.disconnect())
}

async function profile() {
  const { app, key } = await targets[name].create(redisUrl)
  const server = createServer(app).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  const sender = fork(fileURLToPath(import.meta.url), ['load', port, key, requests], { execArgv: [] })
  const session = new inspector.Session()
  session.connect()
  await once(sender, 'message')
  await session.post('Profiler.enable')
  await session.post('Profiler.setSamplingInterval', { interval: samplingUs })
  await session.post('Profiler.start')
  sender.send('go')
  await once(sender, 'message')
  print(await session.post('Profiler.stop'))
  process.exit()
}

function print({ profile: { nodes, samples, timeDeltas } }) {
  const byId = new Map(nodes.map((node) => [node.id, node]))
  for (const node of nodes) for (const child of node.children ?? []) byId.get(child).parent = node
  const costs = new Map()
  for (const [i, id] of samples.entries()) {
    const place = placeOf(byId.get(id))
    if (place) costs.set(place, (costs.get(place) ?? 0) + timeDeltas[i])
  }
  const rows = [...costs].map(([place, us]) => [place, us / Number(requests)]).sort((a, b) => b[1] - a[1])
  const total = rows.reduce((sum, [, us]) => sum + us, 0)
  console.log(`${name}: ${total.toFixed(1)} µs a request`)
  for (const [place, us] of rows) if (us >= 0.01) console.log(us.toFixed(2).padStart(7), place)
}

/** The nearest function of ours above a sample; undefined if the framework called something else in between. */
function placeOf(sampled) {
  let node = sampled
  while (node && !isOurs(node)) {
    if (isFramework(node)) return undefined
    node = node.parent
  }
  if (!node || /^answer/.test(node.callFrame.functionName)) return undefined
  return node.callFrame.functionName || `line ${node.callFrame.lineNumber + 1}`
}

function isOurs({ callFrame: { url } }) {
  return /\/dist\/[^/]+\.mjs$/.test(url) && !url.includes('node_modules') ? true : url.endsWith('targets.mjs')
}

/** What goes on to the next handler. */
function isFramework({ callFrame: { functionName, url } }) {
  return (
    /node_modules\/(router|express|koa|koa-compose|passport)\//.test(url) &&
    /^(next|handle|dispatch|process_params|handleRequest)/.test(functionName)
  )
}
