import express, { type RequestHandler } from 'express'
import Koa from 'koa'
import { type AuthenticatorOptions, apiKeyAuth, requireApiKey } from 'latchkey/express'
import * as koa from 'latchkey/koa'
import { ApiKeyStrategy } from 'latchkey/passport'
import passport from 'passport'
import { describe, expect, it } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { serve } from '../support/raw-http.ts'
import { createTestKeys, type TestKeys } from '../support/test-keys.ts'

const shared: AuthenticatorOptions = {
  realm: 'Acme',
  bearer: false,
  resolveUser: (apiKey) => ({ id: apiKey.owner.id, isResolved: true }),
}

const showUser: RequestHandler = (req, res) => void res.json(req.user)

const APPLICATIONS: Record<string, (keys: TestKeys['keys']) => Parameters<typeof serve>[0]> = {
  'apiKeyAuth of Express': (keys) => express().use(apiKeyAuth(keys, shared), showUser),
  'a guard after it': (keys) =>
    express().use(apiKeyAuth(keys, { ...shared, required: false }), requireApiKey(), showUser),
  'apiKeyAuth of Koa': (keys) =>
    new Koa()
      .use(koa.apiKeyAuth(keys, shared))
      .use((ctx) => {
        ctx.body = ctx.state.user
      })
      .callback(),
  ApiKeyStrategy: (keys) => {
    const auth = new passport.Passport().use(new ApiKeyStrategy({ keys, ...shared, refuseWith: 'fail' }))
    return express().use(auth.authenticate('apikey', { session: false }), showUser)
  },
}

describe.each(Object.keys(APPLICATIONS))('%s', (name) => {
  it('takes the options that were written once for all', async () => {
    const { keys } = createTestKeys()
    const { key, apiKey } = await issueKey(keys)
    const ask = await serve((APPLICATIONS[name] as (typeof APPLICATIONS)[string])(keys))
    expect((await ask('/', [`X-Api-Key: ${key}`])).json()).toEqual({ id: apiKey.owner.id, isResolved: true })
    const refused = await ask('/')
    expect([refused.status, refused.header('www-authenticate')]).toEqual([401, 'Api-Key realm="Acme"'])
  })
})
