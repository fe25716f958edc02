import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import { createDemoUsers } from '../express/users.ts'
import { createApp } from './app.ts'
import { curlLines } from './curl-lines.ts'

const HOST = '127.0.0.1'
const keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'demo' })
const server = createServer()

try {
  await once(server.listen(readPort(process.env.PORT || '3000'), HOST), 'listening')
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, close)
  const origin = `http://${HOST}:${(server.address() as AddressInfo).port}`
  server.on('request', createApp({ keys, users: await createDemoUsers(), origin }))
  const { key } = await keys.issue({
    owner: { type: 'user', id: 'u_2' },
    name: 'first key',
    permissions: { projects: ['read', 'write'] },
  })
  console.log(`Listening on ${origin}; Ctrl-C stops it. Paste these into another terminal:`)
  for (const { title, expect, command } of curlLines(origin, key)) {
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

async function close(): Promise<void> {
  const impatience = setTimeout(() => server.closeAllConnections(), 2_000)
  await new Promise((resolve) => server.close(resolve))
  clearTimeout(impatience)
  await keys.close()
}
