import type { RequestListener } from 'node:http'
import { createRequire } from 'node:module'
import { Controller, Get, Module, UseGuards } from '@nestjs/common'
import express from 'express'
import type { Middleware } from 'koa'
import Koa from 'koa'
import type { ApiKeys } from 'latchkey'
import * as sourcesOnExpress from 'latchkey/express'
import * as sourcesOnKoa from 'latchkey/koa'
import * as sourcesOnNest from 'latchkey/nest'
import { describe, expect, inject, it } from 'vitest'
import { serveNest } from '../nest/serve-nest.ts'
import { issueKey } from '../support/issue-key.ts'
import { serve } from '../support/raw-http.ts'
import { BOB, createTestKeys } from '../support/test-keys.ts'

type OnExpress = typeof sourcesOnExpress
type OnKoa = typeof sourcesOnKoa

const load = createRequire(new URL('../../dist/', import.meta.url))
const ALICE = { name: 'Alice' }
const LOGIN = 'X-Login: 1'

/** An application whose middlewares are of one copy of the package, and whose guards and handlers are of the other. */
function onExpress(middlewares: OnExpress, guards: OnExpress, keys: ApiKeys): RequestListener {
  const app = express()
  app.use(middlewares.markSession({ user: (req) => (req.get('X-Login') ? ALICE : null) }))
  app.use(middlewares.apiKeyAuth(keys, { required: false, headers: ['X-Key'] }))
  const show: express.RequestHandler = (req, res) => {
    res.json({ method: guards.getAuth(req).method, view: req.authMethod })
  }
  app.get('/session', guards.requireSession(), show)
  app.get('/key', guards.requireApiKey({ keys }), show)
  app.get('/again', guards.apiKeyAuth(keys, { headers: ['X-Key'] }), show)
  return app
}

function onKoa(middlewares: OnKoa, guards: OnKoa, keys: ApiKeys): RequestListener {
  const app = new Koa()
  app.use(middlewares.markSession({ user: (ctx) => (ctx.get('X-Login') ? ALICE : null) }))
  app.use(middlewares.apiKeyAuth(keys, { required: false, headers: ['X-Key'] }))
  const routes: Record<string, Middleware> = {
    '/session': guards.requireSession(),
    '/key': guards.requireApiKey({ keys }),
    '/again': guards.apiKeyAuth(keys, { headers: ['X-Key'] }),
  }
  app.use((ctx, next) => (routes[ctx.path] as Middleware)(ctx, next))
  app.use((ctx) => {
    ctx.body = { method: guards.getAuth(ctx).method, view: (ctx.state as { authMethod?: string }).authMethod }
  })
  return app.callback()
}

describe('the sources and the CommonJS build, loaded side by side', () => {
  const doors: [string, (middlewares: 'sources' | 'build', keys: ApiKeys) => RequestListener][] = [
    [
      'Express',
      (middlewares, keys) => {
        const build: OnExpress = load('./express.cjs')
        expect(build.requireSession).not.toBe(sourcesOnExpress.requireSession)
        return middlewares === 'build'
          ? onExpress(build, sourcesOnExpress, keys)
          : onExpress(sourcesOnExpress, build, keys)
      },
    ],
    [
      'Koa',
      (middlewares, keys) => {
        const build: OnKoa = load('./koa.cjs')
        expect(build.requireSession).not.toBe(sourcesOnKoa.requireSession)
        return middlewares === 'build' ? onKoa(build, sourcesOnKoa, keys) : onKoa(sourcesOnKoa, build, keys)
      },
    ],
  ]
  const directions = doors.flatMap(([name, create]) => [
    [name, 'sources', create] as const,
    [name, 'build', create] as const,
  ])

  it.each(directions)(
    'agree on who is asking on %s, with middlewares of the %s',
    async (_name, from, create) => {
      expect(inject('buildFailure')).toBe('')
      const { keys } = createTestKeys({ rateLimits: [{ name: 'minute', limit: 10, windowMs: 60_000 }] })
      const ask = await serve(create(from, keys))
      const { key } = await issueKey(keys, { owner: BOB })
      const outcomeOf = async (path: string, lines: string[]) => {
        const answer = await ask(path, lines)
        const { method, view, code } = answer.json()
        return answer.status === 200 ? `${method} ${view}` : `${answer.status} ${code}`
      }
      const keyLine = `X-Key: ${key}`
      expect(await outcomeOf('/session', [LOGIN])).toBe('session session')
      expect(await outcomeOf('/session', [keyLine])).toBe('403 session_required')
      expect(await outcomeOf('/session', [LOGIN, keyLine])).toBe('403 session_required')
      expect(await outcomeOf('/key', [LOGIN])).toBe('403 api_key_required')
      expect(await outcomeOf('/key', [LOGIN, keyLine])).toBe('apikey apikey')
      expect(await outcomeOf('/key', [LOGIN, 'X-Key: junk'])).toBe('401 invalid_key')
      // Both copies verify: one charge.
      const before = await remaining(keys, key)
      expect(await outcomeOf('/again', [keyLine])).toBe('apikey apikey')
      expect(await remaining(keys, key)).toBe(before - 1)
    },
  )
})

type OnNest = typeof sourcesOnNest

describe('the sources and the CommonJS build of the Nest door', () => {
  const build: () => OnNest = () => load('./nest.cjs')

  it.each(['sources', 'build'] as const)('guard one application, with the module of the %s', async (from) => {
    expect(inject('buildFailure')).toBe('')
    const [module, decorators] = from === 'build' ? [build(), sourcesOnNest] : [sourcesOnNest, build()]
    expect(module.LatchkeyGuard).not.toBe(decorators.LatchkeyGuard)
    const { CurrentAuth, LatchkeyGuard, Public, RequireKey } = decorators
    @Controller()
    @Public()
    class Site {
      @Get('open')
      open() {
        return 'in'
      }
      @Get('bound')
      @UseGuards(LatchkeyGuard)
      bound() {
        return 'in'
      }
      @Get('key')
      @RequireKey({ permissions: { projects: ['read'] } })
      key(@CurrentAuth() auth: sourcesOnNest.Auth) {
        return auth.method
      }
    }
    const { keys } = createTestKeys({ rateLimits: [{ name: 'minute', limit: 10, windowMs: 60_000 }] })
    for (const globalGuard of [true, false]) {
      class AppModule {}
      Module({ imports: [module.LatchkeyModule.forRoot({ keys, globalGuard })], controllers: [Site] })(
        AppModule,
      )
      const ask = await serveNest('Fastify', AppModule)
      const { key } = await issueKey(keys, { owner: BOB, permissions: { projects: ['read'] } })
      expect((await ask('/open')).body).toBe('in')
      expect((await ask('/bound')).json()).toMatchObject({ code: 'missing_key' })
      expect((await ask('/key')).json()).toMatchObject({ code: 'missing_key' })
      const answer = await ask('/key', [`X-Api-Key: ${key}`])
      expect([answer.body, answer.header('RateLimit')]).toEqual(['apikey', '"minute";r=9;t=60'])
    }
  })

  it('do not both guard it', async () => {
    const modules = [build(), sourcesOnNest].map(({ LatchkeyModule }) =>
      LatchkeyModule.forRoot({ keys: createTestKeys().keys }),
    )
    class AppModule {}
    Module({ imports: modules })(AppModule)
    await expect(serveNest('Express', AppModule)).rejects.toThrow('see "npm ls latchkey"')
  })
})

async function remaining(keys: ApiKeys, key: string): Promise<number> {
  const verified = await keys.verify(key, { cost: 0 })
  return verified.ok ? (verified.limits[0]?.remaining ?? 0) : Number.NaN
}
