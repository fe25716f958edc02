import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import express from 'express'
import { type ApiKeyEvent, type ApiKeysOptions, createApiKeys, memoryRateLimiter } from 'latchkey'
import { apiKeyAuth } from 'latchkey/express'
import { migrate } from 'latchkey/sql'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { openStore } from '../support/open-store.ts'
import { startPostgres } from '../support/postgres-server.ts'
import type { DatabaseServer } from '../support/server-process.ts'
import { forgeKey, NAME } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

const MAX_AGE_MS = 1_500
const TIMEOUT_MS = 300
const FLUSH_MS = 100

const outages: [string, (server: DatabaseServer) => unknown, (server: DatabaseServer) => unknown][] = [
  ['is killed', (server) => server.kill(), (server) => server.restart()],
  ['stands still', (server) => server.pause(), (server) => server.resume()],
]

describe.each(outages)('an application whose PostgreSQL %s', (_what, breakServer, mendServer) => {
  it('serves keys that it holds as long as it may, says 503 of all others, and goes on by itself', async () => {
    const unhandled = watchUnhandled()
    const { server, keys, get } = await startApp()
    const [held, other] = [await keys.issue(NAME), await keys.issue(NAME)]
    const unknown = forgeKey(other.key, { keyId: '0123456789abcdef' })

    const readAfter = performance.now()
    expect((await get(held.key)).status).toBe(200)
    const readBefore = performance.now()
    await breakServer(server)

    const others = (async () => [await get(other.key), await get(unknown)])()
    const answers = []
    do answers.push(await get(held.key))
    while (answers.at(-1)?.status === 200)
    const refused = answers.pop()
    expect(refused).toMatchObject({ status: 503, code: 'unavailable' })
    // It was held for all of the time that it may be, and no longer.
    expect(refused?.endedAt).toBeGreaterThanOrEqual(readAfter + MAX_AGE_MS)
    expect(answers.length).toBeGreaterThan(0)
    expect(answers.filter(({ startedAt }) => startedAt > readBefore + MAX_AGE_MS)).toEqual([])
    for (const answer of await others) expect(answer).toMatchObject({ status: 503, code: 'unavailable' })
    // A caller waits for a database that says nothing no longer than this.
    expect((refused?.endedAt ?? 0) - (refused?.startedAt ?? 0)).toBeLessThan(TIMEOUT_MS + 1_000)

    await mendServer(server)
    for (const { key } of [held, other]) {
      await expect.poll(() => get(key), { timeout: 10_000 }).toMatchObject({ status: 200 })
    }
    expect(await get(unknown)).toMatchObject({ status: 401, code: 'invalid_key' })
    await keys.revoke(other.apiKey.id)
    expect(await get(other.key)).toMatchObject({ status: 401, code: 'invalid_key' })
    expect(await unhandled()).toEqual([])
  })

  it('writes the uses of that time afterwards, each of them once', async () => {
    const unhandled = watchUnhandled()
    const { server, keys, get, events } = await startApp()
    const issued = [await keys.issue(NAME), await keys.issue(NAME)]
    const admitted = new Map(issued.map(({ apiKey }) => [apiKey.id, 0]))
    const use = async () => {
      for (const { key, apiKey } of issued) {
        if ((await get(key)).status === 200) admitted.set(apiKey.id, (admitted.get(apiKey.id) ?? 0) + 1)
      }
    }
    const counted = async () =>
      new Map(
        await Promise.all(
          issued.map(async ({ apiKey: { id } }) => [id, (await keys.get(id))?.usageCount] as const),
        ),
      )
    await use()
    // Nothing is being written when the server goes: what is then in flight may be written twice.
    await expect.poll(counted).toEqual(admitted)

    await breakServer(server)
    const failures = () =>
      events.filter((event) => event.type === 'fault' && event.operation === 'usage').length
    // Held keys are used on, until writing that has failed more than once.
    while (failures() < 2) await use()
    await mendServer(server)
    await expect.poll(() => counted().catch(String), { timeout: 10_000 }).toEqual(admitted)
    await setTimeout(3 * FLUSH_MS)
    expect(await counted()).toEqual(admitted)
    expect([...admitted.values()].every((count) => count > 1)).toBe(true)
    expect(await unhandled()).toEqual([])
  })

  it('keeps no more uses in mind than it may, and reports those that it drops', async () => {
    const { server, keys, get, events } = await startApp({ usage: { flushMs: FLUSH_MS, maxEntries: 3 } })
    const issued = await Promise.all(Array.from({ length: 5 }, () => keys.issue(NAME)))
    const written = async () => {
      const all = await Promise.all(issued.map(({ apiKey }) => keys.get(apiKey.id)))
      return all.reduce((sum, apiKey) => sum + (apiKey?.usageCount ?? 0), 0)
    }
    // The first use of a key does not wait for others.
    for (const { key } of issued) {
      expect((await get(key)).status).toBe(200)
      await keys.flush()
    }
    expect(await written()).toBe(5)
    const faults = () => events.flatMap((event) => (event.type === 'fault' ? [String(event.error)] : []))
    await breakServer(server)
    for (const { key } of issued) expect((await get(key)).status).toBe(200)
    await expect
      .poll(faults, { timeout: 10_000 })
      .toContainEqual(expect.stringMatching(/uses were not counted/))
    await mendServer(server)
    await expect.poll(() => written().catch(String), { timeout: 10_000 }).toBe(5 + 3)
  })
})

interface Answer {
  readonly status: number
  readonly code: string | undefined
  readonly startedAt: number
  readonly endedAt: number
}

/** An Express application over a PostgreSQL of its own, and what it answers to a key. */
async function startApp(options: Partial<ApiKeysOptions> = {}) {
  const server = await startPostgres({ binaries: inject('postgresBinaries') })
  const { store, close } = openStore(server.url)
  await migrate(store)
  const events: ApiKeyEvent[] = []
  const keys = createApiKeys({
    store,
    rateLimiter: memoryRateLimiter(),
    prefix: 'acme_test',
    cache: { maxAgeMs: MAX_AGE_MS, negativeMaxAgeMs: false },
    usage: { flushMs: FLUSH_MS },
    timeoutMs: TIMEOUT_MS,
    onEvent: (event) => void events.push(event),
    ...options,
  })
  const app = express()
  app.get('/', apiKeyAuth(keys), (_req, res) => void res.json({}))
  const http = createServer(app)
  await once(http.listen(0, '127.0.0.1'), 'listening')
  const { port } = http.address() as AddressInfo
  onTestFinished(async () => {
    http.closeAllConnections()
    http.close()
    await keys.close()
    await close()
    await server.stop()
  })

  async function get(key: string): Promise<Answer> {
    const startedAt = performance.now()
    const response = await fetch(`http://127.0.0.1:${port}/`, { headers: { 'X-Api-Key': key } })
    const body = (await response.json()) as { code?: string }
    return { status: response.status, code: body.code, startedAt, endedAt: performance.now() }
  }

  return { server, keys, get, events }
}
