import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import { createDemoUsers } from '../express/users.ts'
import { createApp } from './app.ts'
import { curlLines } from './curl-lines.ts'

const HOST = '127.0.0.1'

// In memory, keys end with the process: a real application keeps them in a database.
const keys = createApiKeys({
  store: memoryStore(),
  rateLimiter: memoryRateLimiter(),
  prefix: 'demo',
  rateLimits: [{ name: 'minute', limit: 10, windowMs: 60_000 }],
})
const app = createApp({ keys, users: await createDemoUsers() })
const server = createServer(app.callback())

try {
  await once(server.listen(readPort(process.env.PORT || '3000'), HOST), 'listening')
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, close)
  const { key } = await keys.issue({
    owner: { type: 'user', id: 'u_1' },
    name: 'first key',
    permissions: { projects: ['read'] },
  })
  const url = `http://${HOST}:${(server.address() as AddressInfo).port}`
  console.log(`Listening on ${url}; Ctrl-C stops it. Paste these into another terminal:`)
  for (const { title, expect, command } of curlLines(url, key)) {
    console.log(`\n${title} → ${expect}\n${command}`)
  }
  console.log()
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 1
  await close()
}

function readPort(given: string): number {
  if (!/^\d+$/.test(given) || Number(given) > 65_535) throw new Error('PORT must be a number from 0 to 65535')
  return Number(given)
}

/** Lets requests in progress finish first, and stores how often the keys were used. */
async function close(): Promise<void> {
  const impatience = setTimeout(() => server.closeAllConnections(), 2_000)
  await new Promise((resolve) => server.close(resolve))
  clearTimeout(impatience)
  await keys.close()
}
