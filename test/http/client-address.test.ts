import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type RequestListener, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import express from 'express'
import Koa from 'koa'
import { type ApiKeyAuthOptions, apiKeyAuth } from 'latchkey/express'
import { apiKeyAuth as koaApiKeyAuth } from 'latchkey/koa'
import { ApiKeyStrategy } from 'latchkey/passport'
import { remoteApiKeys } from 'latchkey/remote'
import { Passport } from 'passport'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { serve } from '../support/raw-http.ts'
import { createTestKeys, forgeKey, type TestKeys } from '../support/test-keys.ts'

const DOORS: readonly (readonly [string, (test: TestKeys) => RequestListener])[] = [
  [
    'Express',
    ({ keys }) =>
      express()
        .set('trust proxy', 1)
        .use(apiKeyAuth(keys), (_req, res) => void res.end()),
  ],
  [
    'Passport',
    ({ keys }) => {
      const passport = new Passport()
      passport.use(new ApiKeyStrategy({ keys }))
      return express()
        .set('trust proxy', 1)
        .use(passport.authenticate('apikey'), (_req, res) => void res.end())
    },
  ],
  [
    'Koa',
    ({ keys }) => {
      const app = new Koa({ proxy: true, maxIpsCount: 1 })
      app.use(koaApiKeyAuth(keys)).use((ctx) => {
        ctx.body = ''
      })
      return app.callback()
    },
  ],
]

/** Asks through a Unix socket, whose peer has no address. */
async function askThroughSocket(handler: RequestListener) {
  const folder = await mkdtemp(join(tmpdir(), 'latchkey-'))
  const socketPath = join(folder, 'app.sock')
  const server = createServer(handler)
  await new Promise<void>((resolve) => server.listen(socketPath, resolve))
  onTestFinished(async () => {
    server.close()
    await rm(folder, { recursive: true, force: true })
  })
  return (headers: Record<string, string>) =>
    new Promise<number | undefined>((resolve, reject) => {
      const asked = request({ socketPath, headers, agent: false }, (response) => {
        response.resume().on('end', () => resolve(response.statusCode))
      })
      asked.on('error', reject).end()
    })
}

function watchWarnings() {
  const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
  return () => warned.mock.calls.map(([text, options]) => [String(text), (options as { code: string }).code])
}

describe.each(DOORS)('a client’s address on %s', (_name, build) => {
  it.each([
    '203.0.113.7:51234',
    '::ffff:203.0.113.7',
    '[::ffff:203.0.113.7]:443',
    '[2001:db8::7]',
    '[2001:db8::7]:51234',
    '2001:db8::7%eth0',
  ])('is looked up in allowedIps where it is written %s', async (address) => {
    const test = createTestKeys()
    const allowed = await issueKey(test.keys, { allowedIps: ['203.0.113.0/24', '2001:db8::/32'] })
    const other = await issueKey(test.keys, { allowedIps: ['198.51.100.1', '2001:db9::/32'] })
    const ask = await serve(build(test))
    const from = `X-Forwarded-For: ${address}`
    expect((await ask('/', [`X-Api-Key: ${allowed.key}`, from])).status).toBe(200)
    expect((await ask('/', [`X-Api-Key: ${other.key}`, from])).status).toBe(403)
    const [refused] = test.eventsOf('key.refused')
    expect(refused?.ip).toBe(address.includes('203') ? '203.0.113.7' : '2001:db8::7')
    await test.keys.close()
    expect((await test.keys.get(allowed.apiKey.id))?.lastUsedIp).toBe(refused?.ip)
  })

  it('that is missing on a Unix socket is told, once as a warning', async () => {
    const warnings = watchWarnings()
    const test = createTestKeys({ failedAttempts: { limit: 2 } })
    const bound = await issueKey(test.keys, { allowedIps: ['0.0.0.0/0', '::/0'] })
    const free = await issueKey(test.keys)
    const ask = await askThroughSocket(build(test))
    for (let i = 0; i < 3; i++) {
      expect(await ask({ 'x-api-key': bound.key })).toBe(403)
      expect(await ask({ 'x-api-key': forgeKey(free.key, { keyId: '0'.repeat(16) }) })).toBe(401)
      expect(await ask({ 'x-api-key': free.key })).toBe(200)
    }
    const told = test.eventsOf('address.missing').map(({ neededFor, found }) => `${neededFor}: ${found}`)
    expect(told).toEqual(Array(3).fill(['allowedIps: nothing', 'failedAttempts: nothing']).flat())
    expect(warnings()).toEqual([
      [expect.stringMatching(/^A key with "allowedIps" was refused.* "ip" option$/), 'LATCHKEY_NO_ADDRESS'],
      [expect.stringMatching(/^An invalid key was not counted by "failedAttempts"/), 'LATCHKEY_NO_ADDRESS'],
    ])
  })

  it('that is not needed is not missed', async () => {
    const warnings = watchWarnings()
    const test = createTestKeys()
    const { key } = await issueKey(test.keys)
    const ask = await askThroughSocket(build(test))
    expect([await ask({ 'x-api-key': key }), await ask({ 'x-api-key': 'junk' })]).toEqual([200, 401])
    expect([test.eventsOf('address.missing'), warnings()]).toEqual([[], []])
  })

  it('that is garbage is told, and not repeated', async () => {
    const warnings = watchWarnings()
    const test = createTestKeys()
    const { key } = await issueKey(test.keys, { allowedIps: ['203.0.113.7'] })
    const ask = await serve(build(test))
    expect((await ask('/', [`X-Api-Key: ${key}`, `X-Forwarded-For: ${key}`])).status).toBe(403)
    expect(test.eventsOf('address.missing')).toMatchObject([{ found: 'no address' }])
    expect(test.eventsOf('key.refused')).toMatchObject([{ ip: null }])
    expect(warnings()).toHaveLength(1)
    expect(JSON.stringify([test.events, warnings()])).not.toContain(key.slice(-40))
  })
})

it.each([[['203.0.113.7']], [7], [{}], [null]])('is none where the application reads %j', async (address) => {
  watchWarnings()
  const test = createTestKeys()
  const { key } = await issueKey(test.keys, { allowedIps: ['203.0.113.7'] })
  const free = await issueKey(test.keys)
  const options = { ip: () => address as unknown as string } satisfies ApiKeyAuthOptions
  const ask = await serve(express().use(apiKeyAuth(test.keys, options), (_req, res) => void res.end()))
  expect((await ask('/', [`X-Api-Key: ${key}`])).status).toBe(403)
  expect((await ask('/', [`X-Api-Key: ${free.key}`])).status).toBe(200)
  expect(test.eventsOf('address.missing')).toMatchObject([{ found: 'nothing' }])
})

it('goes to another service without its port', async () => {
  const { keys } = createTestKeys()
  const { key, apiKey } = await issueKey(keys, { allowedIps: ['203.0.113.7'] })
  const asked: unknown[] = []
  const remote = remoteApiKeys({
    async verify(request) {
      asked.push(request.ip)
      return { active: true, apiKey, limits: [] }
    },
  })
  for (const ip of ['203.0.113.7:443', '[::ffff:203.0.113.7]:443']) {
    expect(await remote.verify(key, { ip })).toMatchObject({ ok: true })
    remote.clear()
  }
  expect(asked).toEqual(['203.0.113.7', '203.0.113.7'])
})
