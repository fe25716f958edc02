import { type ApiKeys, createApiKeys } from '../core/api-keys.ts'
import type { ApiKeysOptions } from '../core/api-keys-options.ts'
import type { Clock } from '../core/clock.ts'
import type { ApiKeyEvent } from '../core/events.ts'
import { memoryRateLimiter } from '../rate-limits/memory.ts'
import { T0 } from './key-records.ts'
import { atOnce, type StoreCases, type StoreTest } from './store-test.ts'

const OWNER = { type: 'user', id: 'u_1' }
const NAME = { owner: OWNER, name: 'CI' }
const DAY_MS = 86_400_000

export const LIFECYCLE_CASES: StoreCases = {
  'issues, verifies, changes, rotates, revokes and purges': async (test) => {
    const { ids, same, has } = test
    const { keys, move, close } = lifecycleKeys(test)
    const permissions = { projects: ['read'] }
    const { key, apiKey } = await keys.issue({ ...NAME, permissions, metadata: { team: 'blue' } })
    has(await keys.verify(key, { permissions }), { ok: true }, 'a key verifies once issue has resolved')
    await keys.update(apiKey.id, { permissions: {} })
    has(await keys.verify(key, { permissions }), { ok: false }, 'a change decides the next verification')
    await keys.disable(apiKey.id)
    has(await keys.verify(key), { ok: false, reason: 'disabled' }, 'a disabled key is refused')
    await keys.enable(apiKey.id)
    const next = await keys.rotate(apiKey.id, { graceMs: DAY_MS })
    has(await keys.verify(key), { ok: true }, 'a rotated key works during its grace period')
    has(await keys.verify(next.key), { ok: true }, 'a successor works')
    move(DAY_MS)
    has(
      await keys.verify(key),
      { ok: false, reason: 'expired' },
      'a rotated key stops working after its grace period',
    )
    await keys.revoke(next.apiKey.id, { by: 'admin', reason: 'leaked' })
    has(
      await keys.verify(next.key),
      { ok: false, reason: 'revoked' },
      'a revoked key is refused from then on',
    )
    move(DAY_MS)
    same(await keys.purge({ endedBefore: new Date(T0 + 2 * DAY_MS) }), 2, 'purge removes what has ended')
    same(await ids(), [], 'purge removes what has ended')
    has(await keys.verify(next.key), { ok: false, reason: 'unknown' }, 'a purged key is unknown')
    await close()
  },

  'makes one process refuse a key that another has revoked': async (test) => {
    const { has, same } = test
    // They share the store and nothing else.
    const [here, there] = [lifecycleKeys(test, { cache: false }), lifecycleKeys(test)]
    const issued = await atOnce(5, () => there.keys.issue(NAME))
    for (const { key } of issued)
      has(await here.keys.verify(key), { ok: true }, 'a key works in every process')
    same(await there.keys.revokeOwner(OWNER), 5, 'revokeOwner finds every key of the owner')
    const promise = 'a key that one process has revoked is refused by every other that asks the store'
    for (const { key } of issued) has(await here.keys.verify(key), { ok: false, reason: 'revoked' }, promise)
    await here.close()
    await there.close()
  },

  'lets one of 20 concurrent rotations win, and leaves nothing of the others': async (test) => {
    const { list, same } = test
    const { keys, close } = lifecycleKeys(test)
    const { apiKey } = await keys.issue(NAME)
    const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => keys.rotate(apiKey.id)))
    const winners = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
    same(winners.length, 1, 'a key has one successor, however many calls rotate it at once')
    const found = (await list()).map(({ id, rotatedTo }) => [id, rotatedTo])
    const successor = winners[0]?.apiKey.id
    const expected = [
      [apiKey.id, successor],
      [successor, null],
    ]
    same(found.sort(), expected.sort(), 'the successors that lost are gone')
    same((await keys.verify(winners[0]?.key as string)).ok, true, 'the successor that won works')
    await close()
  },

  'pages through keys by cursor': async (test) => {
    const { same } = test
    const { keys, move, close } = lifecycleKeys(test)
    const issued: string[] = []
    for (let i = 0; i < 7; i += 1) {
      issued.push((await keys.issue(NAME)).apiKey.id)
      move(1)
    }
    const seen: string[] = []
    let cursor: string | undefined
    do {
      const page = await keys.list({ owner: OWNER, limit: 2, ...(cursor !== undefined && { cursor }) })
      seen.push(...page.apiKeys.map(({ id }) => id))
      cursor = page.nextCursor
    } while (cursor !== undefined && seen.length < 100)
    same(seen, issued, 'the pages show every key once, in order of creation')
    await close()
  },
}

export const LIFECYCLE_USAGE_CASES: StoreCases = {
  'records uses, and expires a key that is not used': async (test) => {
    const { has } = test
    const { keys, move, close } = lifecycleKeys(test)
    const { key, apiKey } = await keys.issue({ ...NAME, idleExpiryMs: 3_600_000 })
    await keys.verify(key, { ip: '192.0.2.1' })
    move(1)
    await keys.verify(key, { ip: '192.0.2.2' })
    await close()
    const use = { usageCount: 2, lastUsedAt: new Date(T0 + 1), lastUsedIp: '192.0.2.2' }
    has(await test.find(apiKey.id), { ...use, version: 1 }, 'uses are written, and do not change the key')
    const later = lifecycleKeys(test)
    later.move(2 * 3_600_000)
    has(await later.keys.verify(key), { ok: false, reason: 'idle' }, 'a key that is not used expires')
    await later.close()
  },
}

export const LIFECYCLE_QUOTA_CASES: StoreCases = {
  'admits as many of 50 concurrent calls as the quota allows, through a rotation': async (test) => {
    const { same } = test
    const { keys, close } = lifecycleKeys(test)
    const { key, apiKey } = await keys.issue({ ...NAME, quota: { remaining: 30 } })
    const first = await atOnce(20, () => keys.verify(key))
    same(first.filter(({ ok }) => ok).length, 20, 'a quota admits as many calls as it has units')
    const next = await keys.rotate(apiKey.id)
    const both = await atOnce(50, (i) => keys.verify(i % 2 === 0 ? key : next.key))
    same(both.filter(({ ok }) => ok).length, 10, 'a rotation carries the quota over, and does not double it')
    same((await keys.get(next.apiKey.id))?.quota?.remaining, 0, 'nothing is left')
    await close()
  },

  'gives back unspent units when the keys are closed': async (test) => {
    const { same } = test
    const before = lifecycleKeys(test)
    const { key, apiKey } = await before.keys.issue({ ...NAME, quota: { remaining: 100 } })
    for (let i = 0; i < 5; i += 1) await before.keys.verify(key)
    await before.close()
    same((await test.read(apiKey.id)).quota?.remaining, 95, 'a clean shutdown loses no units')
    const after = lifecycleKeys(test)
    const results = await atOnce(100, () => after.keys.verify(key))
    same(results.filter(({ ok }) => ok).length, 95, 'returned units can be spent')
    await after.close()
  },
}

export interface LifecycleKeys {
  readonly keys: ApiKeys
  move(ms: number): void
  /** Ends the keys, and requires that no call on the store has failed. */
  close(): Promise<void>
}

/** `createApiKeys` over the store, at a time that stands still until it is moved. */
export function lifecycleKeys(
  { store, same }: StoreTest,
  options: Partial<ApiKeysOptions> = {},
): LifecycleKeys {
  let now = T0
  const clock: Clock = { now: () => now, setTimer: () => () => {} }
  const faults: string[] = []
  const keys = createApiKeys({
    store,
    rateLimiter: memoryRateLimiter({ clock }),
    prefix: 'acme',
    clock,
    onEvent(event: ApiKeyEvent) {
      if (event.type === 'fault') faults.push(`${event.operation}: ${event.error}`)
    },
    ...options,
  })
  return {
    keys,
    move(ms) {
      now += ms
    },
    async close() {
      await keys.close()
      same(faults, [], 'no call on a working store fails')
    },
  }
}
