import { lifecycleKeys } from './lifecycle-cases.ts'
import type { StoreCases, StoreTest } from './store-test.ts'

/** A method that a store may do without. */
export type StoreCapability = 'forget' | 'recordUsage' | 'swapQuota' | 'agree'

const OWNER = { type: 'user', id: 'u_1' }

/** What is to be seen of a store that does without a method. */
export const CAPABILITY_CASES: Readonly<Record<StoreCapability, StoreCases>> = {
  forget: {
    'createApiKeys refuses "erase" as unsupported': refusesErase,
  },
  recordUsage: {
    'createApiKeys refuses "idleExpiryMs" as unsupported': (test) => refuses(test, { idleExpiryMs: 60_000 }),
  },
  swapQuota: {
    'createApiKeys refuses "quota" as unsupported': (test) => refuses(test, { quota: { remaining: 10 } }),
  },
  agree: {
    'createApiKeys verifies unchecked, and refuses "acceptConfiguration" as unsupported': async (test) => {
      const { same, rejects } = test
      const { keys, close } = lifecycleKeys(test, { peppers: [{ id: 'unchecked', secret: 'p'.repeat(32) }] })
      const { key } = await keys.issue({ owner: OWNER, name: 'CI' })
      same((await keys.verify(key)).ok, true, 'a store that keeps no agreements keeps keys under a pepper')
      const promise = 'an operator is told where nothing can be agreed on'
      await rejects(() => keys.acceptConfiguration({ pepper: 'unchecked' }), promise, 'unsupported')
      await close()
    },
  },
}

async function refusesErase(test: StoreTest) {
  const { ids, same, rejects } = test
  const { keys, close } = lifecycleKeys(test)
  const { key } = await keys.issue({ owner: OWNER, name: 'CI' })
  const promise = '"erase" is refused where the store cannot forget, rather than done by halves'
  await rejects(() => keys.erase(OWNER), promise, 'unsupported')
  same((await keys.verify(key)).ok, true, 'what is refused changes nothing')
  same((await keys.erase(OWNER, { knownAs: null })).removed, 1, 'keys can be removed without it')
  same(await ids(), [], 'keys can be removed without it')
  await close()
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
