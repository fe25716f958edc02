import assert from 'node:assert/strict'
import { redisStore } from 'latchkey/redis'
import { storeConformance } from 'latchkey/testing'
import { describe, test } from 'vitest'
import { CLIENTS, newPrefix } from '../support/redis-store.ts'

describe.each(CLIENTS)('%s', (_name, connect) => {
  storeConformance({ test, assert }, () => redisStore(connect(), { keyPrefix: newPrefix() }))
})
