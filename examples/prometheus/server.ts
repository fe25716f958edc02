import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import { createApp } from './app.ts'
import { startTelemetry } from './telemetry.ts'

const HOST = '127.0.0.1'

const keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme_live' })
const server = createServer(createApp(keys))

try {
  const metricsPort = readPort('METRICS_PORT', '9464', 1)
  const port = readPort('PORT', '3000', 0)
  // The first of all: what is verified before is not counted.
  const telemetry = await startTelemetry(metricsPort, HOST)
  const close = () => {
    server.close(() => void Promise.all([keys.close(), telemetry.close()]))
    server.closeIdleConnections()
  }
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, close)
  await once(server.listen(port, HOST), 'listening')
  const { key } = await keys.issue({ owner: { type: 'organization', id: 'acme' }, name: 'first key' })
  const url = `http://${HOST}:${(server.address() as AddressInfo).port}`
  console.log(`Listening on ${url}; Ctrl-C stops it. Paste these into another terminal:`)
  console.log(`\nA request with a key\ncurl -i ${url}/projects -H 'X-Api-Key: ${key}'`)
  console.log(`\nA request with an invalid key\ncurl -i ${url}/projects -H 'X-Api-Key: nope'`)
  console.log(`\nThe metrics\ncurl -s http://${HOST}:${metricsPort}/metrics | grep ^latchkey\n`)
} catch (error) {
  console.error((error as Error).message)
  process.exit(1)
}

function readPort(name: string, fallback: string, min: number): number {
  const given = process.env[name] || fallback
  const port = /^\d+$/.test(given) ? Number(given) : Number.NaN
  if (port >= min && port <= 65_535) return port
  throw new Error(`${name} must be a number from ${min} to 65535`)
}
