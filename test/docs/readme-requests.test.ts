import { readFileSync } from 'node:fs'
import express, { type Express } from 'express'
import type Koa from 'koa'
import type { ApiKeys } from 'latchkey'
import { getAuth } from 'latchkey/express'
import passport from 'passport'
import { beforeEach, describe, expect, it } from 'vitest'
import { readCodeBlocks } from '../support/markdown.ts'
import { type Answer, type Ask, serve } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { createTestKeys } from '../support/test-keys.ts'

const blocks = readCodeBlocks(readFileSync(new URL('../../README.md', import.meta.url), 'utf8'))
const codeOf = (heading: string) =>
  blocks.filter((block) => block.heading === heading && block.language === 'ts').map(({ text }) => text)

const OWN_PAGE = 'Sec-Fetch-Site: same-origin'
const FOREIGN_PAGE = ['Origin: https://evil.example', 'Sec-Fetch-Site: cross-site']
const POST = { method: 'POST' }
const users = { find: (id: string) => ({ id }) }

async function keyLine(keys: ApiKeys, action = 'read'): Promise<string> {
  const owner = { type: 'user', id: 'u_2' }
  const { key } = await keys.issue({ owner, name: 'test', permissions: { projects: [action] } })
  return `X-Api-Key: ${key}`
}

describe('the check against request forgery', () => {
  let app: Express
  let ask: Ask
  let keys: ApiKeys

  beforeEach(() => start())

  async function start(change = (code: string) => code): Promise<void> {
    passport.serializeUser((user, done) => done(null, user))
    passport.deserializeUser((user: Express.User, done) => done(null, user))
    keys = createTestKeys().keys
    app = express()
    const [code = ''] = codeOf('Against request forgery')
    await runBlock(change(code), { app, keys, secret: 'only for this test' })
    app.post('/login', (req, res, next) => {
      req.logIn({ id: 'u_1' }, (error) => (error ? next(error) : res.json({})))
    })
    app.all('/', (_req, res) => void res.json({}))
    ask = await serve(app)
  }

  async function logIn(): Promise<string> {
    const answer = await ask('/login', [OWN_PAGE], POST)
    expect(answer.status).toBe(200)
    return `Cookie: ${answer.header('Set-Cookie')?.split(';')[0]}`
  }

  it.each([
    ['nothing else', [], 403],
    ['a page of another site', FOREIGN_PAGE, 403],
    ['junk for a key', ['X-Api-Key: junk'], 401],
    ['junk under the scheme', ['Authorization: Api-Key junk'], 401],
    ['junk for a key, from its own page', ['X-Api-Key: junk', OWN_PAGE], 401],
    ['a token of another kind', ['Authorization: Bearer junk'], 403],
    ['an empty key', ['X-Api-Key:'], 403],
  ])('refuses a cookie with %s', async (_what, lines, status) => {
    const cookie = await logIn()
    expect((await ask('/', [cookie, ...lines], POST)).status).toBe(status)
  })

  it('refuses the cookie of a login that nothing has marked', async () => {
    await start((code) => code.replace('passport.session(), markSession()', 'passport.session()'))
    app.get('/method', (req, res) => void res.json({ method: getAuth(req).method }))
    const cookie = await logIn()
    expect((await ask('/method', [cookie])).json()).toEqual({ method: 'other' })
    expect((await ask('/', [cookie], POST)).status).toBe(403)
  })

  it('refuses a login from elsewhere, of somebody who is nobody yet', async () => {
    const answer = await ask('/login', FOREIGN_PAGE, POST)
    expect([answer.status, answer.all('Set-Cookie')]).toEqual([403, []])
  })

  it('passes a cookie from its own page, one that reads, and a key from anywhere', async () => {
    const cookie = await logIn()
    const answers = [
      await ask('/', [cookie, OWN_PAGE], POST),
      await ask('/', [cookie]),
      await ask('/', [await keyLine(keys), ...FOREIGN_PAGE], POST),
    ]
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
  })
})

describe('the code for Koa', () => {
  const [withKeys = '', withSessions = ''] = codeOf('Koa')

  it('answers keys by their permissions', async () => {
    const { keys } = createTestKeys()
    const { app } = await runBlock(withKeys, { keys, users }, ['app'])
    const ask = await serve((app as Koa).callback())
    const codeIn = (answer: Answer) => [answer.status, answer.json().code]
    expect(codeIn(await ask('/'))).toEqual([401, 'missing_key'])
    expect(codeIn(await ask('/', [await keyLine(keys, 'write')]))).toEqual([403, 'insufficient_permissions'])
    expect((await ask('/', [await keyLine(keys)])).json()).toEqual({ owner: { type: 'user', id: 'u_2' } })
  })

  it('passes sessions, and neither nobody nor a key', async () => {
    const { keys } = createTestKeys()
    const source = withSessions.replace('app.use(markSession', 'app.use(logIn)\n$&')
    const logIn: Koa.Middleware = (ctx, next) => {
      if (ctx.get('X-Log-In')) Object.assign(ctx, { session: { user: { id: 'u_1' } } })
      return next()
    }
    const { app } = await runBlock(source, { secret: 'only for this test', logIn }, ['app'])
    const ask = await serve(
      (app as Koa)
        .use((ctx) => {
          ctx.body = ctx.state.user
        })
        .callback(),
    )
    expect((await ask('/')).json().code).toBe('authentication_required')
    expect((await ask('/', ['X-Log-In: yes'])).json()).toEqual({ id: 'u_1' })
    const both = await ask('/', ['X-Log-In: yes', await keyLine(keys)])
    expect(both.json().code).toBe('session_required')
  })
})
