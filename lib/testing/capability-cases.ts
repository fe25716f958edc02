import { lifecycleKeys } from './lifecycle-cases.ts'
import type { StoreCases, StoreTest } from './store-test.ts'

/** An optional method of a store. */
export type StoreCapability = 'forget' | 'recordUsage' | 'swapQuota' | 'addUsage' | 'agree'

const OWNER = { type: 'user', id: 'u_1' }

/** The cases for a store without an optional method. */
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
  addUsage: {
    'createApiKeys verifies uncounted, and refuses "usage" as unsupported': async (test) => {
      const { same, rejects } = test
      const { keys, close } = lifecycleKeys(test)
      const { key, apiKey } = await keys.issue({ owner: OWNER, name: 'CI' })
      same((await keys.verify(key)).ok, true, 'a store that counts no use keeps keys all the same')
      const promise = 'use is refused if the store cannot count it, rather than shown as none'
      await rejects(() => keys.usage({ key: apiKey.id }), promise, 'unsupported')
      await rejects(() => keys.unusedPermissions(apiKey.id), promise, 'unsupported')
      await close()
    },
  },
  agree: {
    'createApiKeys verifies unchecked, and refuses "acceptConfiguration" as unsupported': async (test) => {
      const { same, rejects } = test
      const { keys, close } = lifecycleKeys(test, { peppers: [{ id: 'unchecked', secret: 'p'.repeat(32) }] })
      const { key } = await keys.issue({ owner: OWNER, name: 'CI' })
      same((await keys.verify(key)).ok, true, 'a store that keeps no agreements keeps keys under a pepper')
      const promise = 'an operator gets an error if the store cannot agree on anything'
      await rejects(() => keys.acceptConfiguration({ pepper: 'unchecked' }), promise, 'unsupported')
      await close()
    },
  },
}

async function refusesErase(test: StoreTest) {
  const { ids, same, rejects } = test
  const { keys, close } = lifecycleKeys(test)
  const { key } = await keys.issue({ owner: OWNER, name: 'CI' })
  const promise = '"erase" is refused if the store cannot forget, rather than half done'
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
  const promise = `"${name}" is refused if the store cannot keep it, rather than ignored`
  await rejects(() => keys.issue({ owner: OWNER, name: 'CI', ...setting }), promise, 'unsupported')
  same(await ids(), [], 'what is refused stores nothing')
  const { key, apiKey } = await keys.issue({ owner: OWNER, name: 'CI' })
  await rejects(() => keys.update(apiKey.id, setting), promise, 'unsupported')
  await keys.update(apiKey.id, { idleExpiryMs: null, quota: null })
  same((await keys.verify(key)).ok, true, 'a key that needs no more than the store has works')
  await close()
}
