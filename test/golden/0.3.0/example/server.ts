import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type ApiKeyEvent, createApiKeys, memoryRateLimiter } from 'latchkey'
import { migrate, sqliteStore } from 'latchkey/sql'
import { createApp } from './app.ts'
import { type ClientKey, findClientKey } from './client-key.ts'
import { curlLines } from './curl-lines.ts'
import { createDemoUsers } from './users.ts'

const HOST = '127.0.0.1'
const folder = process.env.DATA_DIR || fileURLToPath(new URL('data', import.meta.url))

mkdirSync(folder, { recursive: true })
const store = sqliteStore(join(folder, 'keys.db'))
const keys = createApiKeys({
  store,
  rateLimiter: memoryRateLimiter(),
  prefix: 'demo',
  // Five at once, then one every two seconds.
  rateLimits: [{ name: 'burst', limit: 30, windowMs: 60_000, burst: 5 }],
  onEvent: printEvent,
})
const server = createServer(createApp({ keys, users: await createDemoUsers() }))

try {
  const { port } = await listen(server, process.env.PORT || '3000')
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, close)
  await migrate(store)
  printLines(`http://${HOST}:${port}`, await findClientKey(keys, join(folder, 'client-key')))
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 1
  await close()
}

async function listen(server: Server, given: string): Promise<AddressInfo> {
  const port = Number(given)
  if (!/^\d+$/.test(given) || port > 65_535) throw new Error('PORT must be a number from 0 to 65535')
  try {
    await once(server.listen(port, HOST), 'listening')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EADDRINUSE')
      throw new Error(`Port ${port} is in use. Take another one: PORT=3001 npm start`)
    if (code === 'EACCES')
      throw new Error(`Port ${port} needs rights that you do not have. Take one above 1023`)
    throw error
  }
  return server.address() as AddressInfo
}

function printLines(url: string, { key, isFromBefore }: ClientKey): void {
  if (isFromBefore) console.log('The key from the previous run still works.')
  console.log(`Listening on ${url}; Ctrl-C stops it. Paste these into another terminal:`)
  for (const { title, expect, command } of curlLines(url, key)) {
    console.log(`\n${title} → ${expect}\n${command}`)
  }
  console.log()
}

/** Events name the precise reason of a refusal, which clients never see. They never hold a key. */
function printEvent(event: ApiKeyEvent): void {
  if (event.type === 'fault') {
    console.error(event.operation, event.error)
    return
  }
  const reason = event.type === 'key.refused' ? (event.reason ?? event.code) : null
  const keyId = 'keyId' in event ? event.keyId : null
  console.log([event.type, reason, keyId].filter((word) => word !== null).join(' '))
}

/** Lets requests in progress finish, for at most two seconds, and stores how often the keys were used. */
async function close(): Promise<void> {
  const impatience = setTimeout(() => server.closeAllConnections(), 2_000)
  await new Promise((resolve) => server.close(resolve))
  clearTimeout(impatience)
  await keys.close()
  await store.close()
}
