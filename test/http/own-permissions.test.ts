import type { RequestListener } from 'node:http'
import Koa from 'koa'
import type { ApiKeys, Permissions } from 'latchkey'
import { createApiKeysClient } from 'latchkey/client'
import * as forExpress from 'latchkey/express'
import * as forKoa from 'latchkey/koa'
import { ApiKeyStrategy } from 'latchkey/passport'
import { remoteApiKeys } from 'latchkey/remote'
import { Passport } from 'passport'
import { describe, expect, it } from 'vitest'
import { EXPRESSES } from '../support/expresses.ts'
import { createWorld, ROUTERS } from '../support/management-world.ts'
import { serve } from '../support/raw-http.ts'
import { ALICE, BOB, createTestKeys, forgeKey, NAME } from '../support/test-keys.ts'

const VERIFY = { 'api-keys': ['verify'] }
const BILLING = { 'api-keys': ['verify-billing'] }
const NAMED: Permissions = { '*': ['*'], ...VERIFY }

/** Keys of customers that look as if they might do everything. */
const WILDCARDS: readonly (readonly [Permissions])[] = [
  [{ '*': ['*'] }],
  [{ 'api-keys': ['*'] }],
  [{ '*': ['verify'] }],
  [{ '*': ['verify', '*'], 'api-keys': ['*'] }],
]

type Build = (keys: ApiKeys) => RequestListener

/** Whatever asks a key for a permission, by name. */
const ASKING: readonly (readonly [string, Build])[] = [
  ...EXPRESSES.flatMap(([name, express]): (readonly [string, Build])[] => [
    [
      `apiKeyAuth on ${name}`,
      (keys) => express().get('/', forExpress.apiKeyAuth(keys, { permissions: VERIFY }), answer),
    ],
    [
      `requirePermissions on ${name}`,
      (keys) =>
        express().get('/', forExpress.apiKeyAuth(keys), forExpress.requirePermissions(VERIFY), answer),
    ],
    [
      `requireApiKey on ${name}`,
      (keys) =>
        express().get(
          '/',
          forExpress.apiKeyAuth(keys),
          forExpress.requireApiKey({ permissions: [VERIFY, BILLING] }),
          answer,
        ),
    ],
    [
      `ApiKeyStrategy on ${name}`,
      (keys) => {
        const passport = new Passport()
        passport.use(new ApiKeyStrategy({ keys }))
        return express().get(
          '/',
          passport.authenticate('apikey', { session: false, permissions: VERIFY } as object),
          answer,
        )
      },
    ],
  ]),
  ['apiKeyAuth on Koa', (keys) => onKoa(forKoa.apiKeyAuth(keys, { permissions: VERIFY }))],
  ['requirePermissions on Koa', (keys) => onKoa(forKoa.apiKeyAuth(keys), forKoa.requirePermissions(VERIFY))],
]

function answer(_req: unknown, res: { end(text: string): unknown }): void {
  res.end('verified')
}

function onKoa(...middlewares: Koa.Middleware[]): RequestListener {
  const app = new Koa()
  for (const middleware of middlewares) app.use(middleware)
  app.use((ctx) => {
    ctx.body = 'verified'
  })
  return app.callback()
}

describe.each(ASKING)('%s', (_name, build) => {
  it.each(WILDCARDS)('refuses the library’s own permission to %j', async (permissions) => {
    const { keys } = createTestKeys()
    const ask = await serve(build(keys))
    const status = async (granted: Permissions) => {
      const { key } = await keys.issue({ ...NAME, permissions: granted })
      return (await ask('/', [`X-Api-Key: ${key}`])).status
    }
    expect(await status(permissions)).toBe(403)
    expect(await status({ ...permissions, ...VERIFY })).toBe(200)
  })

  it('counts the permission as used where the key is let in, and only there', async () => {
    const { keys } = createTestKeys()
    const ask = await serve(build(keys))
    const { key, apiKey } = await keys.issue({ ...NAME, permissions: { projects: ['read'] } })
    await ask('/', [`X-Api-Key: ${key}`])
    expect((await keys.unusedPermissions(apiKey.id))?.used).toEqual({})
    const permissions = { projects: ['read'], ...VERIFY }
    const held = await keys.issue({ ...NAME, permissions })
    await ask('/', [`X-Api-Key: ${held.key}`])
    expect((await keys.unusedPermissions(held.apiKey.id))?.used).toEqual(VERIFY)
  })
})

describe('an owner that may do everything', () => {
  it('has to be said to hold the library’s own permissions too', async () => {
    let owned: Permissions = { '*': ['*'] }
    const { keys } = createTestKeys({ ownerPermissions: () => owned })
    const { key } = await keys.issue({ ...NAME, permissions: NAMED })
    expect(await keys.verify(key, { permissions: { projects: ['read'] } })).toMatchObject({ ok: true })
    expect(await keys.verify(key, { permissions: VERIFY })).toMatchObject({ missing: VERIFY })
    expect(await keys.verify(key)).toMatchObject({ apiKey: { permissions: { '*': ['*'] } } })
    owned = NAMED
    await keys.invalidateOwner(ALICE)
    expect(await keys.verify(key, { permissions: VERIFY })).toMatchObject({ ok: true })
    expect(await keys.verify(key)).toMatchObject({ apiKey: { permissions: NAMED } })
  })
})

describe.each(ROUTERS)('managing keys behind %s', (_name, build) => {
  it.each(WILDCARDS)(
    'verifies nothing for a key of %j, which has no address blocked',
    async (permissions) => {
      const tested = createTestKeys({ failedAttempts: { limit: 1 } })
      const { keys, call, eventsOf } = await createWorld({}, build, tested)
      const { key } = await keys.issue({ ...NAME, permissions })
      const wrong = forgeKey(key, { secret: 'x'.repeat(43) })
      const verify = (by: string) =>
        call('POST', '/verify', { key: by, json: { key: wrong, ip: '203.0.113.5' } })
      expect((await verify(key)).body).toMatchObject({ code: 'insufficient_permissions', missing: VERIFY })
      expect(eventsOf('address.blocked')).toEqual([])
      const service = await keys.issue({ ...NAME, owner: BOB, permissions: VERIFY })
      expect((await verify(service.key)).body).toEqual({ active: false })
      expect(eventsOf('address.blocked')).toMatchObject([{ address: '203.0.113.5' }])
    },
  )

  it('asks for another permission of the library by its name as well', async () => {
    const { keys, call } = await createWorld({ verifyPermission: BILLING }, build)
    const status = async (permissions: Permissions) => {
      const { key } = await keys.issue({ ...NAME, permissions })
      return (await call('POST', '/verify', { key, json: { key } })).status
    }
    expect(await status({ '*': ['*'], 'api-keys': ['*', 'verify'] })).toBe(403)
    expect(await status(BILLING)).toBe(200)
  })

  it('tells other services that a wildcard does not hold them', async () => {
    const { keys, port } = await createWorld({}, build)
    const service = await keys.issue({ ...NAME, owner: BOB, permissions: VERIFY })
    const client = createApiKeysClient({ baseUrl: `http://127.0.0.1:${port}/api-keys`, key: service.key })
    const { key } = await keys.issue({ ...NAME, permissions: { '*': ['*'] } })
    expect(await client.verify({ key, permissions: VERIFY })).toMatchObject({
      refused: { code: 'insufficient_permissions', missing: VERIFY },
    })
    const remote = remoteApiKeys(client, { cacheMs: 5_000 })
    for (let i = 0; i < 2; i++) {
      expect(await remote.verify(key, { permissions: VERIFY })).toMatchObject({ missing: VERIFY })
    }
  })

  it.each([
    ['an actor that may grant everything', { grantable: { '*': ['*'] } }, 403],
    ['an actor that may grant all actions of it', { grantable: { 'api-keys': ['*'] } }, 403],
    ['an admin that may grant everything', { admin: true, grantable: { '*': ['*'] } }, 403],
    ['an actor that may grant it by name', { grantable: VERIFY }, 201],
    ['an admin that may grant it by name', { admin: true, grantable: NAMED }, 201],
    ['an admin that nothing bounds', { admin: true }, 201],
  ])('lets %s issue, enable and rotate such keys, or not', async (_what, more, status) => {
    const actor = () => ({ id: 'u', owners: [ALICE], ...more })
    const { keys, call } = await createWorld({ actor }, build)
    const json = { name: 'service', owner: ALICE, permissions: VERIFY }
    expect((await call('POST', '/', { json })).status).toBe(status)
    const { apiKey } = await keys.issue({ ...NAME, permissions: VERIFY })
    await keys.disable(apiKey.id)
    expect((await call('POST', `/${apiKey.id}/enable`)).status).toBe(status === 201 ? 200 : status)
    expect((await call('POST', `/${apiKey.id}/rotate`)).status).toBe(status)
  })

  it('lets a change add them to a key of everything only where they are named', async () => {
    const { keys, call } = await createWorld(
      { actor: () => ({ id: 'u', owners: [ALICE], grantable: { '*': ['*'] } }) },
      build,
    )
    const { apiKey } = await keys.issue({ ...NAME, permissions: { '*': ['*'] } })
    const answer = await call('PATCH', `/${apiKey.id}`, { json: { permissions: NAMED } })
    expect(answer.body).toMatchObject({ status: 403, code: 'permissions_exceeded' })
  })
})
