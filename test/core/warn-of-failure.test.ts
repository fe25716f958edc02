import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createApiKeys, LatchkeyError, memoryRateLimiter } from 'latchkey'
import { remoteApiKeys } from 'latchkey/remote'
import { sqliteStore } from 'latchkey/sql'
import { expect, it, onTestFinished, vi } from 'vitest'
import type { LimiterEvent } from '../../lib/core/limits/rate-limiter.ts'
import { fakeClock } from '../support/fake-clock.ts'
import { issueKey } from '../support/issue-key.ts'
import { rejects } from '../support/recording-store.ts'
import { createTestKeys, forgeKey } from '../support/test-keys.ts'

type Options = Parameters<typeof createTestKeys>[0]

/** Keys whose events nobody receives, and the texts of the warnings so far. */
function start(options: Options = {}) {
  const spy = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
  const test = createTestKeys({ ...options, onEvent: undefined as never })
  const warnings = () => {
    expect(spy.mock.calls.every(([, given]) => (given as { code?: string }).code === 'LATCHKEY_FAULT')).toBe(
      true,
    )
    return spy.mock.calls.map(([text]) => String(text))
  }
  return { ...test, warnings }
}

const UNKNOWN = forgeKey(`acme_test_${'0'.repeat(16)}_${'0'.repeat(43)}000000`, {})

it('tells once a minute why requests are answered 503 where nobody listens', async () => {
  const { keys, store, clock, warnings } = start()
  store.fail(
    'find',
    rejects(Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:5432'), { code: 'ECONNREFUSED' })),
  )
  for (let i = 0; i < 20; i++)
    await expect(keys.verify(UNKNOWN)).rejects.toMatchObject({ code: 'unavailable' })
  expect(warnings()).toEqual([
    'The store of API keys failed: connect ECONNREFUSED 127.0.0.1:5432. Requests that need it get a 503: check that ' +
      'it runs, can be reached, and is migrated. Pass "onEvent" to receive every failure; without it, each kind is reported ' +
      'once a minute',
  ])
  await clock.advance(59_999)
  await keys.verify(UNKNOWN).catch(() => {})
  expect(warnings()).toHaveLength(1)
  await clock.advance(1)
  await keys.verify(UNKNOWN).catch(() => {})
  expect(warnings()).toHaveLength(2)
})

it('tells of a database that nobody has migrated, and what to do', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const { warnings } = start()
  const store = sqliteStore(join(folder, 'keys.db'))
  const keys = createApiKeys({ store, rateLimiter: memoryRateLimiter(), prefix: 'acme_test' })
  await expect(keys.verify(UNKNOWN)).rejects.toMatchObject({ code: 'unavailable' })
  await expect(keys.list()).rejects.toThrow()
  expect(warnings()).toEqual([expect.stringMatching(/lacks tables.*run migrate\(store\).*not_migrated/)])
})

it('claims no 503 where an old table only keeps the configuration from being compared', async () => {
  const { keys, store, warnings } = start({ peppers: [{ id: '2026', secret: 'a'.repeat(32) }] })
  store.fail('agree', rejects(new LatchkeyError('not_migrated', 'run migrate(store)')))
  const { key } = await issueKey(keys)
  await expect(keys.verify(key)).resolves.toMatchObject({ ok: true })
  expect(warnings()).toEqual([expect.stringMatching(/run migrate\(store\).*Requests that need it get a 503/)])
})

it('tells of each part by itself', async () => {
  const limiter = memoryRateLimiter({ clock: fakeClock() })
  const { keys, store, warnings } = start({
    rateLimiter: { ...limiter, check: () => Promise.reject(new Error('the server is gone')) },
    isOwnerActive: ({ id }) => {
      if (id === 'lost') throw new TypeError('users is not a function')
      return true
    },
  })
  const { key } = await issueKey(keys)
  const lost = await issueKey(keys, { owner: { type: 'user', id: 'lost' } })
  await keys.verify(key).catch(() => {})
  await keys.verify(lost.key).catch(() => {})
  store.fail('insert', rejects(new Error('disk full')))
  await issueKey(keys).catch(() => {})
  expect(warnings()).toEqual([
    expect.stringMatching(/^The rate limiter failed: the server is gone\. /),
    expect.stringMatching(/^"isOwnerActive" or "ownerPermissions" failed: users is not a function\. /),
    expect.stringMatching(/^The store of API keys failed: disk full\. /),
  ])
})

it('tells of a limiter that is suspended, and of a change that was delayed', async () => {
  let tell = (_happening: LimiterEvent): void => {}
  const clock = fakeClock()
  const limiter = memoryRateLimiter({ clock })
  const { keys, warnings } = start({
    clock,
    rateLimiter: {
      ...limiter,
      raiseVersions: () => Promise.reject(new Error('no answer')),
      listen(listener) {
        tell = listener
        return () => {}
      },
    },
  })
  tell({ type: 'suspended', error: new Error('read ETIMEDOUT') })
  tell({ type: 'resumed', afterMs: 5 })
  const { apiKey } = await issueKey(keys)
  const revoked = keys.revoke(apiKey.id)
  await clock.advance(10_000)
  await revoked
  expect(warnings()).toEqual([
    expect.stringMatching(
      /^The rate limiter keeps failing, so Latchkey has stopped asking it: read ETIMEDOUT\. .*"onUnavailable"/,
    ),
    expect.stringMatching(/^The rate limiter failed: no answer\. /),
    expect.stringMatching(/^The rate limiter could not be told that an API key has changed: /),
  ])
})

it('tells of a service that verifies keys and fails', async () => {
  const { warnings } = start()
  const remote = remoteApiKeys({
    verify: () => Promise.reject(new Error('getaddrinfo ENOTFOUND auth.internal')),
  })
  await expect(remote.verify(UNKNOWN)).rejects.toMatchObject({ code: 'unavailable' })
  expect(warnings()).toEqual([
    expect.stringMatching(
      /^The service that verifies API keys failed: getaddrinfo ENOTFOUND auth\.internal\. /,
    ),
  ])
})

it('tells of requests after close()', async () => {
  const { keys, warnings } = start()
  const { key } = await issueKey(keys)
  await keys.close()
  await expect(keys.verify(key)).rejects.toMatchObject({ code: 'unavailable' })
  expect(warnings()).toEqual([
    expect.stringMatching(
      /^An API key could not be verified: close\(\) was called on these API keys.*"close\(\)"/,
    ),
  ])
})

it('says nothing of refusals and changes', async () => {
  const { keys, warnings } = start({ rateLimits: [{ name: 'minute', limit: 1, windowMs: 60_000 }] })
  const { key, apiKey } = await issueKey(keys)
  for (const text of ['junk', UNKNOWN, key, key]) await keys.verify(text)
  await keys.revoke(apiKey.id)
  expect(warnings()).toEqual([])
})

it('leaves it to the listener where there is one', async () => {
  const { warnings } = start()
  const { keys, store, eventsOf } = createTestKeys()
  store.fail('find', rejects(new Error('down')))
  await keys.verify(UNKNOWN).catch(() => {})
  expect(eventsOf('fault')).toHaveLength(1)
  expect(warnings()).toEqual([])
})

it('repeats no key and no digest, whatever an error quotes', async () => {
  const hex = '0123456789abcdef'.repeat(4)
  const bcrypt = `$2b$10$${'./Ab1'.repeat(10)}xyz`
  for (const secret of [UNKNOWN, hex, bcrypt, 'u1D3/sk-4f7c0a6d-3f0f-4b8e-9d57-2f5f5f1d9a10'.slice(5)]) {
    const { keys, store, clock, warnings } = start()
    const before = warnings().length
    await clock.advance(120_000 * (before + 1))
    store.fail(
      'find',
      rejects(new Error(`Duplicate entry '${secret}' for key "lookup" on db-1.eu.example.com`)),
    )
    await keys.verify(UNKNOWN).catch(() => {})
    const told = warnings().at(-1) as string
    expect(warnings().length).toBe(before + 1)
    expect(told).toContain(`Duplicate entry '…' for key "lookup" on db-1.eu.example.com`)
    for (let i = 0; i + 16 <= secret.length; i++) expect(told).not.toContain(secret.slice(i, i + 16))
  }
})

it('says nothing of what a format was asked about', async () => {
  const { keys, warnings } = start({
    formats: [
      {
        name: 'mine',
        lookup(key: string): string {
          throw new Error(`cannot read ${key}`)
        },
      },
    ],
  })
  await keys.verify('short-key').catch(() => {})
  expect(warnings()).toEqual([expect.stringMatching(/^A format of imported API keys failed\. Fix/)])
  expect(warnings().join()).not.toContain('short-key')
})

it.each<[string, unknown, string]>([
  ['nothing', undefined, 'an error without a message'],
  ['null', null, 'an error without a message'],
  ['a text', 'secret text', 'an error without a message'],
  ['an error without a text', new Error(''), 'an error without a message'],
  ['several lines', new Error('one\r\ntwo\u001b[31m'), 'one two [31m'],
  ['a text of any length', new Error('a '.repeat(100_000)), 'a '.repeat(150)],
  ['a code', Object.assign(new Error('refused.'), { code: '28P01' }), 'refused (28P01)'],
  ['a code that may be anything', Object.assign(new Error('refused'), { code: 'a b' }), 'refused'],
  [
    'one error for each address',
    new AggregateError([new Error('connect ECONNREFUSED ::1:6379')], ''),
    'connect ECONNREFUSED ::1:6379',
  ],
])('takes %s for a cause', async (_what, thrown, cause) => {
  const { keys, store, warnings } = start()
  store.fail('find', rejects(thrown as Error))
  await keys.verify(UNKNOWN).catch(() => {})
  expect(warnings()).toEqual([
    expect.stringMatching(
      new RegExp(`^The store of API keys failed: ${cause.replace(/[.[\]()]/g, '\\$&')}\\. Requests`),
    ),
  ])
})

it('fails nothing where an error cannot be read', async () => {
  const { keys, store } = start()
  const spiteful = Object.defineProperty({}, 'message', {
    get() {
      throw new Error('spite')
    },
  })
  store.fail('find', rejects(spiteful as Error))
  await expect(keys.verify(UNKNOWN)).rejects.toMatchObject({ code: 'unavailable' })
})
