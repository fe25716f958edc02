import { type ApiKey, createApiKeys, type KeyStore, memoryRateLimiter, memoryStore } from 'latchkey'
import { redisStore } from 'latchkey/redis'
import { migrate } from 'latchkey/sql'
import { expect, it, onTestFinished } from 'vitest'
import { fakeClock } from '../support/fake-clock.ts'
import { newPrefix, SERVERS } from '../support/redis-store.ts'
import { DATABASES } from '../support/sql-databases.ts'

const STORES: readonly (readonly [string, () => Promise<KeyStore>])[] = [
  ['memory', async () => memoryStore()],
  ...DATABASES.map(([name, create]) => [name, () => openDatabase(create)] as const),
  ...SERVERS.map(
    ([name, connect]) =>
      [`Redis on ${name}`, async () => redisStore(connect(), { keyPrefix: newPrefix() })] as const,
  ),
]

async function openDatabase(create: (typeof DATABASES)[number][1]): Promise<KeyStore> {
  const database = await create()
  onTestFinished(() => database.remove())
  const store = database.open()
  await migrate(store)
  return store
}

it.each(STORES)(
  'lists the keys of several owners in one order, while others are issued: %s',
  async (_name, open) => {
    const clock = fakeClock()
    const keys = createApiKeys({
      store: await open(),
      rateLimiter: memoryRateLimiter({ clock }),
      prefix: 'acme',
      clock,
    })
    const issued: ApiKey[] = []
    const issue = async (i: number) => {
      // Several share a moment, so that the order must not hang on the time alone.
      if (i % 3 === 0) clock.set(clock.now() + 1)
      const { apiKey } = await keys.issue({ owner: { type: 'user', id: `u_${i % 5}` }, name: `${i}` })
      issued.push(apiKey)
    }
    for (let i = 0; i < 60; i++) await issue(i)
    const owners = [0, 2, 3].map((i) => ({ type: 'user', id: `u_${i}` }))
    const seen: string[] = []
    let cursor: string | undefined
    do {
      const page = await keys.list({ owners, limit: 7, ...(cursor && { cursor }) })
      seen.push(...page.apiKeys.map(({ id }) => id))
      cursor = page.nextCursor
      // A later moment: what is issued in the moment of the cursor may lie before it.
      clock.set(clock.now() + 1)
      for (let i = 0; i < 5 && issued.length < 75; i++) await issue(issued.length)
    } while (cursor)
    const ids = new Set(owners.map(({ id }) => id))
    const expected = issued
      .filter(({ owner }) => ids.has(owner.id))
      .sort((a, b) => a.createdAt.getTime() - b.createdAt.getTime() || (a.id < b.id ? -1 : 1))
      .map(({ id }) => id)
    expect(seen).toEqual(expected)
  },
)
