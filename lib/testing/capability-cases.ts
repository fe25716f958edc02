import { lifecycleKeys } from './lifecycle-cases.ts'
import type { StoreCapability } from './store-conformance.ts'
import type { StoreCases, StoreTest } from './store-test.ts'

const OWNER = { type: 'user', id: 'u_1' }

/** What is to be seen of a store that does without a method. */
export const CAPABILITY_CASES: Readonly<Record<StoreCapability, StoreCases>> = {
  recordUsage: {
    'createApiKeys refuses "idleExpiryMs" as unsupported': (test) => refuses(test, { idleExpiryMs: 60_000 }),
  },
  swapQuota: {
    'createApiKeys refuses "quota" as unsupported': (test) => refuses(test, { quota: { remaining: 10 } }),
  },
}

async function refuses(test: StoreTest, setting: { idleExpiryMs?: number; quota?: { remaining: number } }) {
  const { ids, same, rejects } = test
  const { keys, close } = lifecycleKeys(test)
  const [name] = Object.keys(setting)
  const promise = `"${name}" is refused where the store cannot keep it, rather than passed over`
  await rejects(() => keys.issue({ owner: OWNER, name: 'CI', ...setting }), promise, 'unsupported')
  same(await ids(), [], 'what is refused stores nothing')
  const { key, apiKey } = await keys.issue({ owner: OWNER, name: 'CI' })
  await rejects(() => keys.update(apiKey.id, setting), promise, 'unsupported')
  await keys.update(apiKey.id, { idleExpiryMs: null, quota: null })
  same((await keys.verify(key)).ok, true, 'a key that needs no more than the store has works')
  await close()
}
