/**
 * One thing, once, in a process of its own: `time-start.mjs <what> [<file> <key>]`. Sends the milliseconds that it took.
 */
const [what, file, key] = process.argv.slice(2)

const loadExpress = () => import('express')
const loadLatchkey = async () => {
  await import('../dist/index.mjs')
  await import('../dist/express.mjs')
}

const work = {
  express: () => time(loadExpress),
  latchkey: () => time(loadLatchkey),
  'latchkey-after-express': async () => {
    await loadExpress()
    return time(loadLatchkey)
  },
  'first-verify': firstVerify,
}
process.send(await work[what](), () => process.disconnect())

/** What a server does with its first request, some time after it began to listen. */
async function firstVerify() {
  const { createApiKeys, memoryRateLimiter } = await import('../dist/index.mjs')
  const { sqliteStore } = await import('../dist/sql.mjs')
  const rateLimits = [{ name: 'minute', limit: 1_000, windowMs: 60_000 }]
  const store = sqliteStore(file)
  const keys = createApiKeys({ store, rateLimiter: memoryRateLimiter(), prefix: 'bench', rateLimits })
  await new Promise((resolve) => setTimeout(resolve, 200))
  const took = await time(async () => {
    const { ok } = await keys.verify(key)
    if (!ok) throw new Error('the key was refused')
  })
  await keys.close()
  await store.close()
  return took
}

async function time(act) {
  const startedAt = performance.now()
  await act()
  return performance.now() - startedAt
}
