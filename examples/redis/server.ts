import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { ApiKeyEvent } from 'latchkey'
import { createApp } from './app.ts'
import { connectRedis } from './connect-redis.ts'
import { createSharedKeys } from './keys.ts'

const HOST = '127.0.0.1'

try {
  const { close, url } = await serve(process.env)
  // `disconnect`: the process that started this one is gone.
  for (const event of ['SIGINT', 'SIGTERM', 'disconnect']) process.once(event, close)
  console.log(`${process.pid} listens on ${url}`)
  process.send?.(url)
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 1
  process.disconnect?.()
}

/** One process of the application. Any number of them may share a Redis. */
async function serve({ PORT = '3000', ADMIN_TOKEN }: NodeJS.ProcessEnv) {
  if (!ADMIN_TOKEN) throw new Error('ADMIN_TOKEN must be the token that administrators send to revoke keys')
  const redis = await connectRedis()
  const keys = createSharedKeys(redis, printEvent)
  const server = createServer(createApp({ keys, adminToken: ADMIN_TOKEN }))
  let isClosing = false

  /** Lets requests in progress finish, for at most two seconds, and stores how often the keys were used. */
  async function close(): Promise<void> {
    if (isClosing) return
    isClosing = true
    const impatience = setTimeout(() => server.closeAllConnections(), 2_000)
    await new Promise((resolve) => server.close(resolve))
    clearTimeout(impatience)
    await keys.close()
    await redis.quit()
    process.disconnect?.()
  }

  try {
    await once(server.listen(Number(PORT), HOST), 'listening')
  } catch (error) {
    redis.disconnect()
    throw error
  }
  return { close, url: `http://${HOST}:${(server.address() as AddressInfo).port}` }
}

/** Events name the precise reason of a refusal, which clients never see. They never hold a key. */
function printEvent(event: ApiKeyEvent): void {
  if (event.type === 'fault') {
    console.error(process.pid, event.operation, event.error)
    return
  }
  const reason = event.type === 'key.refused' ? (event.reason ?? event.code) : ''
  const keyId = 'keyId' in event ? event.keyId : ''
  console.log([process.pid, event.type, reason, keyId].filter(Boolean).join(' '))
}
