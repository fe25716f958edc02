import { describe } from 'vitest'
import { redisStore } from '../../lib/redis.ts'
import { describeKeyStore } from '../support/key-store-cases.ts'
import { CLIENTS, newPrefix } from '../support/redis-store.ts'

describe.each(CLIENTS)('%s', (_name, connect) => {
  describeKeyStore(() => redisStore(connect(), { keyPrefix: newPrefix() }))
})
