import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import { redisRateLimiter } from 'latchkey/redis'
import { inject, onTestFinished } from 'vitest'
import { describeSameIdAgain } from '../support/same-id-again.ts'

describeSameIdAgain(() => {
  const client = new Redis(inject('redisUrl'))
  onTestFinished(() => client.disconnect())
  // Long enough for a connection to be made: while Redis is away, each process counts for itself.
  return redisRateLimiter(client, { keyPrefix: `test:${randomUUID()}`, timeoutMs: 5_000 })
})
