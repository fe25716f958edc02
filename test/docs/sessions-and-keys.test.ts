import { readFileSync } from 'node:fs'
import express, { type Express, type RequestHandler } from 'express'
import session from 'express-session'
import type Koa from 'koa'
import type { ApiKeys } from 'latchkey'
import {
  apiKeyAuth,
  getAuth,
  markSession,
  requireApiKey,
  requireAuth,
  requirePermissions,
  requireSession,
} from 'latchkey/express'
import { getAuth as getAuthOnKoa } from 'latchkey/koa'
import passport from 'passport'
import { beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { type PublicTypes, readPublicTypes } from '../support/compiler.ts'
import { issueKey } from '../support/issue-key.ts'
import { type CodeBlock, codeIn, readCodeBlocks, readTable } from '../support/markdown.ts'
import { byName, declaredOptions, listedOptions } from '../support/option-table.ts'
import { type Answer, type Ask, listen, serve } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { expectShownAnswers } from '../support/shown-answers.ts'
import { createTestKeys } from '../support/test-keys.ts'

// A compiler is slow where much else runs.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const page = readFileSync(new URL('../../docs/sessions-and-keys.md', import.meta.url), 'utf8')
const blocks = readCodeBlocks(page)
const blocksOf = (heading: string) => blocks.filter((block) => block.heading === heading)
const showMethod: RequestHandler = (req, res) => void res.json({ method: getAuth(req).method })
const secret = 'only for this test'
const OWN_PAGE = 'Sec-Fetch-Site: same-origin'
const FOREIGN_PAGE = ['Origin: https://evil.example', 'Sec-Fetch-Site: cross-site']
const POST = { method: 'POST' }

it('answers as the guide shows', async () => {
  const { keys } = createTestKeys()
  const { key } = await issueKey(keys)
  const app = express()
  const shown = blocksOf('Sessions and keys')
  await runBlock((shown[0] as CodeBlock).text, { app, keys, secret, list: showMethod })
  await expectShownAnswers(shown, await listen(app), { $KEY: key })
})

describe('the table of guards', () => {
  const GUARDS: Record<string, RequestHandler> = {
    'requireSession()': requireSession(),
    'requireAuth()': requireAuth(),
    "requireAuth({ accept: ['session', 'apikey'] })": requireAuth({ accept: ['session', 'apikey'] }),
    'requireApiKey()': requireApiKey(),
    "requirePermissions({ projects: ['read'] })": requirePermissions({ projects: ['read'] }),
    "requirePermissions({ projects: ['read'] }, { accept: ['session'] })": requirePermissions(
      { projects: ['read'] },
      { accept: ['session'] },
    ),
  }
  const rows = readTable(page, 'guard').map(([guard = '', ...rest]) => [codeIn(guard)[0] ?? guard, ...rest])

  it('has every guard that is tried here, and no other', () => {
    expect(rows.map(([guard]) => guard)).toEqual(Object.keys(GUARDS))
  })

  it.each(Object.keys(GUARDS))('says what %s does', async (guard) => {
    const [, forSession = '', forKey = ''] = rows.find(([name]) => name === guard) ?? []
    const { keys } = createTestKeys()
    const holder = await issueKey(keys, { permissions: { projects: ['read'] } })
    const other = await issueKey(keys)
    const app = express()
    app.use(session({ secret, resave: false, saveUninitialized: true }))
    app.use(markSession({ user: (req) => (req.get('X-Logged-In') ? { id: 'u_1' } : null) }))
    app.use(apiKeyAuth(keys, { required: false }), GUARDS[guard] as RequestHandler, showMethod)
    const ask = await serve(app)
    const outcome = async (...lines: string[]) => inWords(await ask('/', lines))

    expect(await outcome('X-Logged-In: yes')).toBe(forSession)
    const holding = forKey.replace('passes if it holds them', 'passes')
    expect(await outcome(`X-Api-Key: ${holder.key}`)).toBe(holding)
    expect(await outcome(`X-Api-Key: ${holder.key}`, 'X-Logged-In: yes')).toBe(holding)
    expect(await outcome(`X-Api-Key: ${other.key}`)).toBe(
      forKey.replace('passes if it holds them', '`403 insufficient_permissions`'),
    )
  })

  /** An answer in the words of the table. */
  function inWords(answer: Answer): string {
    return answer.status === 200 ? 'passes' : `\`${answer.status} ${answer.json().code}\``
  }
})

describe('the tables of names', () => {
  let types: PublicTypes
  beforeAll(() => {
    types = readPublicTypes('latchkey/express')
  })

  it('list every answer of getAuth', () => {
    const named = readTable(page, '`method`').flatMap(([names = '']) => codeIn(names))
    expect(named).toEqual(types.literals('Auth', 'method'))
  })

  it.each([
    ['option of `requireSession` and `requireAuth`', 'AuthGuardOptions'],
    ['option of `requireApiKey`', 'ApiKeyGuardOptions'],
  ])('list every %s with its default', (title, name) => {
    expect(byName(listedOptions(page, title))).toEqual(byName(declaredOptions(types.members(name))))
  })
})

describe.each([
  ['Express', startExpress],
  ['Koa', startKoa],
])('the check against request forgery on %s', (_name, start) => {
  let ask: Ask
  let keys: ApiKeys

  beforeEach(async () => {
    keys = createTestKeys().keys
    ask = await start(keys)
  })

  it.each([
    ['nothing else', [], 403],
    ['a page of another site', FOREIGN_PAGE, 403],
    ['junk for a key', ['X-Api-Key: junk'], 401],
    ['junk under the scheme', ['Authorization: Api-Key junk'], 401],
    ['junk for a key, from its own page', ['X-Api-Key: junk', OWN_PAGE], 401],
    ['a token of another kind', ['Authorization: Bearer junk'], 403],
    ['an empty key', ['X-Api-Key:'], 403],
  ])('refuses a cookie with %s', async (_what, lines, status) => {
    const cookie = await logIn(ask)
    expect((await ask('/', [cookie, ...lines], POST)).status).toBe(status)
  })

  it('refuses a login from elsewhere, of somebody who is nobody yet', async () => {
    const answer = await ask('/login', FOREIGN_PAGE, POST)
    expect([answer.status, answer.all('Set-Cookie')]).toEqual([403, []])
  })

  it('passes a cookie from its own page, one that reads, and a key from anywhere', async () => {
    const cookie = await logIn(ask)
    const { key } = await issueKey(keys)
    const answers = [
      await ask('/', [cookie, OWN_PAGE], POST),
      await ask('/', [cookie]),
      await ask('/', [`X-Api-Key: ${key}`, ...FOREIGN_PAGE], POST),
    ]
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200])
    expect(answers.map((answer) => answer.json())).toEqual(
      ['session', 'session', 'apikey'].map((method) => ({ method })),
    )
  })
})

it('refuses the cookie of a login that nothing has marked', async () => {
  const change = (code: string) => code.replace('passport.session(), markSession()', 'passport.session()')
  const ask = await startExpress(createTestKeys().keys, change)
  const cookie = await logIn(ask)
  expect((await ask('/', [cookie])).json()).toEqual({ method: 'other' })
  expect((await ask('/', [cookie], POST)).status).toBe(403)
})

async function startExpress(keys: ApiKeys, change = (code: string) => code): Promise<Ask> {
  passport.serializeUser((user, done) => done(null, user))
  passport.deserializeUser((user: Express.User, done) => done(null, user))
  const app = express()
  const [code] = blocksOf('Request forgery')
  await runBlock(change((code as CodeBlock).text), { app, keys, secret })
  app.post('/login', (req, res, next) => {
    req.logIn({ id: 'u_1' }, (error) => (error ? next(error) : res.json({})))
  })
  app.all('/', showMethod)
  return serve(app)
}

async function startKoa(keys: ApiKeys): Promise<Ask> {
  const [, code] = blocksOf('Request forgery')
  const { app } = await runBlock((code as CodeBlock).text, { keys, secret }, ['app'])
  const answer: Koa.Middleware = (ctx) => {
    if (ctx.path === '/login') Object.assign(ctx.session as object, { user: { id: 'u_1' } })
    ctx.body = { method: getAuthOnKoa(ctx).method }
  }
  return serve((app as Koa).use(answer).callback())
}

async function logIn(ask: Ask): Promise<string> {
  const answer = await ask('/login', [OWN_PAGE], POST)
  expect(answer.status).toBe(200)
  // Koa signs the cookie with a second one.
  return `Cookie: ${answer
    .all('Set-Cookie')
    .map((cookie) => cookie.split(';')[0])
    .join('; ')}`
}
