/**
 * Bytes per cached record: `measure-memory.mjs <keys> [limited]`, run with --expose-gc in a process of its own.
 * Issues the keys, verifies each once, and sends what the second step added to the memory in use, per key.
 */
import { setImmediate } from 'node:timers/promises'
import { createApiKeys, memoryRateLimiter, memoryStore } from '../dist/index.mjs'

const count = Number(process.argv[2])
const isLimited = process.argv[3] === 'limited'

let reads = 0
const keys = createApiKeys({
  store: createStore(),
  rateLimiter: isLimited ? memoryRateLimiter() : createStatelessLimiter(),
  prefix: 'bench',
  rateLimits: isLimited ? [{ name: 'minute', limit: 100, windowMs: 60_000 }] : [],
  cache: { maxEntries: count, maxAgeMs: 3_600_000 },
})

const issuedKeys = []
const emptyBytes = await readBytesInUse()
for (let index = 0; index < count; index += 1) {
  const { key } = await keys.issue({ owner: { type: 'user', id: `u_${index}` }, name: 'bench' })
  issuedKeys.push(Buffer.from(key).toString()) // flat, so that hashing it later moves no memory
}
const issuedBytes = await readBytesInUse()
await verifyAll()
const cachedBytes = await readBytesInUse()

const firstReads = reads
await verifyAll()
if (firstReads !== count || reads !== count) {
  throw new Error(
    `expected ${count} reads of the store, then none; saw ${firstReads}, then ${reads - firstReads}`,
  )
}
process.send(
  {
    bytesPerStoredKey: (issuedBytes - emptyBytes) / count,
    bytesPerCachedRecord: (cachedBytes - issuedBytes) / count,
  },
  () => process.disconnect(),
)

async function verifyAll() {
  for (const key of issuedKeys) {
    const result = await keys.verify(key)
    if (!result.ok) throw new Error(`verify refused a good key: ${result.code}`)
  }
}

/** Like the memory store, but counts reads, and gathers no usage: that is written and forgotten, not cached. */
function createStore() {
  const { insert, find, update, replaceDigest, list, purge } = memoryStore()
  return {
    insert,
    update,
    replaceDigest,
    list,
    purge,
    find(...query) {
      reads += 1
      return find(...query)
    },
  }
}

/** Keeps nothing, so that what is measured is the record alone. */
function createStatelessLimiter() {
  return {
    check: () => ({ outcome: 'admitted', limits: [] }),
    raiseVersions: () => {},
  }
}

async function readBytesInUse() {
  for (let pass = 0; pass < 4; pass += 1) {
    await setImmediate()
    global.gc()
  }
  const { heapUsed, external } = process.memoryUsage() // `external` includes array buffers
  return heapUsed + external
}
