import { createApiKeysClient } from 'latchkey/client'
import { remoteApiKeys } from 'latchkey/remote'
import { createConsumerApp } from './consumer-app.ts'
import { printEvents } from './print-events.ts'
import { serve } from './serve.ts'

try {
  const { PORT = '3001', AUTH_URL: baseUrl, AUTH_KEY: key } = process.env
  if (!baseUrl) throw new Error('AUTH_URL must be the URL of the key routes of the auth service')
  if (!key) throw new Error('AUTH_KEY must be a key of the auth service that may verify other keys')
  const keys = remoteApiKeys(createApiKeysClient({ baseUrl, key, timeoutMs: 2_000 }), {
    // A revoked key can still read here for this long.
    cacheMs: 2_000,
    charge: true,
    prefix: 'demo',
    // Refuses clients that guess keys before it asks the auth service.
    failedAttempts: true,
    onEvent: printEvents('consumer'),
  })
  const url = await serve(createConsumerApp(keys), PORT)
  console.log(`consumer listens on ${url}`)
  process.send?.(url)
} catch (error) {
  console.error((error as Error).message)
  process.exitCode = 1
  process.disconnect?.()
}
