import { redisStore } from 'latchkey/redis'
import { describe } from 'vitest'
import { proveQuotas } from '../support/quota-proofs.ts'
import { newPrefix, SERVERS } from '../support/redis-store.ts'

describe.each(SERVERS)('a quota in Redis: %s', (_name, connect) => {
  proveQuotas(async () => {
    const keyPrefix = newPrefix()
    return { open: () => redisStore(connect(), { keyPrefix }), close: async () => {} }
  })
})
