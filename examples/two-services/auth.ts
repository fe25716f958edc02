import type { ApiKeys, IssuedKey } from 'latchkey'
import { createAuthApp } from './auth-app.ts'
import { openKeys } from './keys.ts'
import { printEvents } from './print-events.ts'
import { serve } from './serve.ts'

/** The message to the process that started this one. */
export interface AuthStarted {
  /** The URL of the key routes. */
  readonly url: string
  /** The consumer's own key: it verifies others, and can do nothing else. */
  readonly service: IssuedKey
  /** A key to try. */
  readonly demo: IssuedKey
}

try {
  const { PORT = '3000', ADMIN_TOKEN: adminToken } = process.env
  if (!adminToken) throw new Error('ADMIN_TOKEN must be the token that administrators send to manage keys')
  const { keys, close } = await openKeys(process.env, printEvents('auth'))
  const origin = await serve(createAuthApp({ keys, adminToken }), PORT, close)
  const url = `${origin}/api-keys`
  console.log(`auth listens on ${url}`)
  // If nothing started it, it issues no keys: administrators do.
  if (process.send) process.send({ url, ...(await issueKeys(keys)) } satisfies AuthStarted)
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 1
  process.disconnect?.()
}

async function issueKeys(keys: ApiKeys) {
  const service = await keys.issue({
    owner: { type: 'service', id: 'consumer' },
    name: 'consumer',
    permissions: { 'api-keys': ['verify'] },
    // It asks for everybody.
    rateLimits: [],
  })
  const demo = await keys.issue({
    owner: { type: 'user', id: 'u_1' },
    name: 'first key',
    permissions: { projects: ['read'] },
    rateLimits: [{ name: 'minute', limit: 3, windowMs: 60_000 }],
  })
  return { service, demo }
}
