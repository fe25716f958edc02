import Router from '@koa/router'
import type { Context, Middleware } from 'koa'
import {
  type ApiKeyContext,
  apiKeyAuth,
  apiKeyErrorHandler,
  getAuth,
  markSession,
  requireApiKey,
  withApiKey,
} from 'latchkey/koa'
import { describe, expect, it } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { KOAS } from '../support/koas.ts'
import { type Answer, serve } from '../support/raw-http.ts'
import { BOB, createTestKeys } from '../support/test-keys.ts'

const READ = { permissions: { projects: ['read'] } }
const WRITE = { permissions: { projects: ['write'] } }

describe.each(KOAS)('withApiKey with %s', (_version, Application) => {
  /** Reads keys, and then has these routes; `X-Session` stands for a login session. */
  async function start(routes: Record<string, Middleware[] | Middleware>, before: Middleware[] = []) {
    const test = createTestKeys()
    const app = new Application()
    app.use(tellError).use(apiKeyErrorHandler())
    app.use(markSession({ user: (ctx) => ctx.get('X-Session') || undefined }))
    // A refusal is not the end here: what the wrapper makes of it is what is tested.
    const read = apiKeyAuth(test.keys, { required: false, refuseWith: 'error' })
    app.use(async (ctx, next) => {
      await Promise.resolve(read(ctx, async () => {})).catch(() => {})
      return next()
    })
    for (const middleware of before) app.use(middleware)
    const router = new Router()
    for (const [path, handler] of Object.entries(routes)) router.get(path, ...[handler].flat())
    app.use(router.routes())
    const ask = await serve(app.callback())
    const { key } = await issueKey(test.keys, { owner: BOB, ...READ })
    return { ...test, ask, line: `X-Api-Key: ${key}` }
  }

  it.each([
    ['nobody', [], 401, 'missing_key'],
    ['a session', ['X-Session: alice'], 403, 'api_key_required'],
    ['a bad key', ['X-Api-Key: junk'], 401, 'invalid_key'],
    ['a session with a bad key', ['X-Session: alice', 'X-Api-Key: junk'], 401, 'invalid_key'],
  ])(
    'refuses %s, as requireApiKey() does, without running the handler',
    async (_who, lines, status, code) => {
      let runs = 0
      const { ask } = await start({ '/wrapped': withApiKey(() => ++runs), '/guarded': requireApiKey() })
      const answer = await ask('/wrapped', lines)
      expect(answer.status).toBe(status)
      expect(answer.json().code).toBe(code)
      expect(withoutDate(answer)).toEqual(withoutDate(await ask('/guarded', lines)))
      expect(runs).toBe(0)
    },
  )

  it('refuses a key that lacks the permissions, and says which', async () => {
    const { ask, line } = await start({ '/': withApiKey(show, WRITE) })
    const answer = await ask('/', [line])
    expect(answer.status).toBe(403)
    expect(answer.json()).toMatchObject({
      code: 'insufficient_permissions',
      missing: { projects: ['write'] },
    })
  })

  it('refuses a key that other keys have verified', async () => {
    const { ask, line } = await start({ '/': withApiKey(show, { keys: createTestKeys().keys }) })
    expect((await ask('/', [line])).json()).toMatchObject({ status: 403, code: 'api_key_required' })
  })

  it('refuses a request whose user was exchanged after the proof', async () => {
    const { ask, line } = await start({ '/': withApiKey(show) }, [
      (ctx, next) => {
        ctx.state.user = { name: 'Mallory' }
        return next()
      },
    ])
    expect((await ask('/', [line])).json()).toMatchObject({ status: 403, code: 'api_key_required' })
  })

  it('throws refusals with refuseWith "error"', async () => {
    let runs = 0
    const codes: unknown[] = []
    const { ask } = await start({ '/': withApiKey(() => ++runs, { refuseWith: 'error' }) }, [
      (_ctx, next) =>
        next().catch((error) => {
          codes.push(error.code)
          throw error
        }),
    ])
    expect((await ask('/')).json().code).toBe('missing_key')
    expect(codes).toEqual(['missing_key'])
    expect(runs).toBe(0)
  })

  it.each([
    ['apiKey', (ctx: Context) => Object.assign(ctx.state, { apiKey: 'sent by the client' })],
    ['authMethod', (ctx: Context) => Object.defineProperty(ctx.state, 'authMethod', { value: 'session' })],
  ])('never runs a handler that would read another %s than the proven one', async (name, overwrite) => {
    let runs = 0
    const { ask, line } = await start({ '/': withApiKey(() => ++runs) }, [
      (ctx, next) => {
        overwrite(ctx as Context)
        return next()
      },
    ])
    const answer = await ask('/', [line])
    expect(answer.status).toBe(500)
    expect(answer.body).toMatch(new RegExp(`^TypeError: withApiKey\\(\\) cannot show "${name}"`))
    expect(runs).toBe(0)
  })

  it('runs the handler with the key and its user', async () => {
    const { ask, line } = await start({ '/': withApiKey(show, READ) })
    const answer = await ask('/', [line])
    expect(answer.status).toBe(200)
    expect(answer.json()).toEqual({ owner: BOB, user: BOB, authMethod: 'apikey', method: 'apikey' })
  })

  it('waits for the handler, and lets it pass the request on', async () => {
    const { ask, line } = await start(
      {
        '/': [
          withApiKey(async (ctx, next) => {
            await next()
            ctx.body = `${ctx.body}, and back`
          }),
          async (ctx) => {
            ctx.body = await Promise.resolve('there')
          },
        ],
      },
      [
        async (ctx, next) => {
          await next()
          ctx.body = `${ctx.body}, and out`
        },
      ],
    )
    expect((await ask('/', [line])).body).toBe('there, and back, and out')
  })

  it('throws what the handler throws, or rejects with', async () => {
    const fail = () => {
      throw new Error('no paper')
    }
    const { ask, line } = await start({
      '/throws': withApiKey(fail),
      '/rejects': withApiKey(async () => fail()),
    })
    expect((await ask('/throws', [line])).body).toBe('Error: no paper')
    expect((await ask('/rejects', [line])).body).toBe('Error: no paper')
  })
})

it('refuses wrong arguments when it is mounted', () => {
  expect(() => withApiKey(undefined as never)).toThrow(
    new TypeError('"handler" must be a function, received undefined'),
  )
  expect(() => withApiKey(show, { permission: {} } as never)).toThrow(/did you mean "permissions"/)
  expect(() => withApiKey(show, { refuseWith: 'fail' } as never)).toThrow(/"refuseWith" must be/)
})

function show(ctx: ApiKeyContext): void {
  const { apiKey, user, authMethod } = ctx.state
  ctx.body = { owner: apiKey.owner, user, authMethod, method: getAuth(ctx).method }
}

const tellError: Middleware = async (ctx, next) => {
  try {
    await next()
  } catch (error) {
    ctx.status = 500
    ctx.body = String(error)
  }
}

function withoutDate({ status, lines, body }: Answer) {
  return { status, lines: lines.filter((line) => !line.startsWith('Date:')), body }
}
