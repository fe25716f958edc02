import express, { type ErrorRequestHandler, type RequestHandler } from 'express'
import {
  type ApiKeyRequest,
  apiKeyAuth,
  apiKeyErrorHandler,
  getAuth,
  markSession,
  requireApiKey,
  withApiKey,
} from 'latchkey/express'
import passport from 'passport'
import { describe, expect, it } from 'vitest'
import { EXPRESSES } from '../support/expresses.ts'
import { issueKey } from '../support/issue-key.ts'
import { type Answer, serve } from '../support/raw-http.ts'
import { BOB, createTestKeys } from '../support/test-keys.ts'

const READ = { permissions: { projects: ['read'] } }
const WRITE = { permissions: { projects: ['write'] } }

describe.each(EXPRESSES)('withApiKey with %s', (_version, createApp) => {
  /** Reads keys, and then has these routes; `X-Session` stands for a login session. */
  async function start(
    routes: Record<string, RequestHandler | RequestHandler[]>,
    before: RequestHandler[] = [],
  ) {
    const test = createTestKeys()
    const app = createApp()
    app.use(markSession({ user: (req) => req.get('X-Session') }))
    // A refusal is not the end here: what the wrapper makes of it is what is tested.
    app.use(apiKeyAuth(test.keys, { required: false, refuseWith: 'error' }), carryOn, ...before)
    for (const [path, handler] of Object.entries(routes)) app.get(path, handler)
    app.use(apiKeyErrorHandler(), tellError)
    const ask = await serve(app)
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
    const exchange: RequestHandler = (req, _res, next) => {
      req.user = { name: 'Mallory' }
      next()
    }
    const { ask, line } = await start({ '/': withApiKey(show) }, [exchange])
    expect((await ask('/', [line])).json()).toMatchObject({ status: 403, code: 'api_key_required' })
  })

  it('hands refusals to the error handlers with refuseWith "error"', async () => {
    let runs = 0
    const { ask } = await start({ '/': withApiKey(() => ++runs, { refuseWith: 'error' }) }, [
      (_req, res, next) => {
        res.setHeader('X-Rendered-By', 'the application')
        next()
      },
    ])
    const answer = await ask('/')
    expect(answer.json().code).toBe('missing_key')
    expect(answer.header('X-Rendered-By')).toBe('the application')
    expect(runs).toBe(0)
  })

  it.each([
    ['apiKey', (req: express.Request) => Object.assign(req, { apiKey: 'sent by the client' })],
    ['authMethod', (req: express.Request) => Object.defineProperty(req, 'authMethod', { value: 'session' })],
  ])('never runs a handler that would read another %s than the proven one', async (name, overwrite) => {
    let runs = 0
    const { ask, line } = await start({ '/': withApiKey(() => ++runs) }, [
      (req, _res, next) => {
        overwrite(req)
        next()
      },
    ])
    const answer = await ask('/', [line])
    expect(answer.status).toBe(500)
    expect(answer.body).toMatch(new RegExp(`^TypeError: withApiKey\\(\\) cannot show "${name}"`))
    expect(runs).toBe(0)
  })

  it('never runs a handler where Passport keeps the user under another name', async () => {
    let runs = 0
    const { keys } = createTestKeys()
    const app = createApp()
    app.use(passport.initialize({ userProperty: 'account' }))
    app.get(
      '/',
      apiKeyAuth(keys),
      withApiKey(() => ++runs),
    )
    app.use(tellError)
    const ask = await serve(app)
    const answer = await ask('/', [`X-Api-Key: ${(await issueKey(keys)).key}`])
    expect(answer.body).toMatch(/^TypeError: withApiKey\(\) cannot show "user"/)
    expect(runs).toBe(0)
  })

  it('runs the handler with the key and its user', async () => {
    const { ask, line } = await start({ '/projects/:id': withApiKey(show, READ) })
    const answer = await ask('/projects/7', [line])
    expect(answer.status).toBe(200)
    expect(answer.json()).toEqual({ id: '7', owner: BOB, user: BOB, authMethod: 'apikey', method: 'apikey' })
  })

  it('lets the handler pass the request on, and hand on an error', async () => {
    const { ask, line } = await start({
      '/error': withApiKey((_req, _res, next) => next(new Error('no paper'))),
      '/on': [withApiKey((_req, _res, next) => next()), (_req, res) => void res.end('behind')],
    })
    expect((await ask('/on', [line])).body).toBe('behind')
    expect((await ask('/error', [line])).body).toBe('Error: no paper')
  })

  it('hands what the handler throws to the error handlers', async () => {
    const { ask, line } = await start({
      '/': withApiKey(() => {
        throw new Error('no paper')
      }),
    })
    expect((await ask('/', [line])).body).toBe('Error: no paper')
  })
})

it('returns what the handler returns, whose rejections Express 5 hands to the error handlers', async () => {
  const { keys } = createTestKeys()
  const app = express()
  app.use(apiKeyAuth(keys))
  app.get(
    '/',
    withApiKey(async () => {
      throw new Error('no paper')
    }),
  )
  app.use(tellError)
  const ask = await serve(app)
  const answer = await ask('/', [`X-Api-Key: ${(await issueKey(keys)).key}`])
  expect(answer.body).toBe('Error: no paper')
})

it('refuses wrong arguments when it is mounted', () => {
  expect(() => withApiKey(undefined as never)).toThrow(
    new TypeError('"handler" must be a function, received undefined'),
  )
  expect(() => withApiKey(show, { permission: {} } as never)).toThrow(/did you mean "permissions"/)
  expect(() => withApiKey(show, { refuseWith: 'fail' } as never)).toThrow(/"refuseWith" must be/)
})

function show(req: ApiKeyRequest, res: express.Response): void {
  const { params, apiKey, user, authMethod } = req
  res.json({ ...params, owner: apiKey.owner, user, authMethod, method: getAuth(req).method })
}

const carryOn: ErrorRequestHandler = (_error, _req, _res, next) => next()

const tellError: ErrorRequestHandler = (error, _req, res, _next) => void res.status(500).end(String(error))

function withoutDate({ status, lines, body }: Answer) {
  return { status, lines: lines.filter((line) => !line.startsWith('Date:')), body }
}
