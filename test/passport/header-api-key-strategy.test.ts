import { setTimeout } from 'node:timers/promises'
import type { CanActivate } from '@nestjs/common'
import express, { type RequestHandler } from 'express'
import session, { MemoryStore } from 'express-session'
import { getAuth, markSession, requireApiKey, requireAuth, requireSession } from 'latchkey/express'
import Strategy, {
  type ApiKeyRouteOptions,
  ApiKeyStrategy,
  BadRequestError,
  type HeaderAPIKeyConfig,
  type HeaderAPIKeyDone,
  HeaderAPIKeyStrategy,
  type HeaderAPIKeyVerify,
} from 'latchkey/passport'
import { type AuthenticateOptions, Authenticator, type Strategy as PassportStrategy } from 'passport'
import { HeaderAPIKeyStrategy as Original, BadRequestError as OriginalError } from 'passport-headerapikey'
import { Strategy as LocalStrategy } from 'passport-local'
import { describe, expect, expectTypeOf, it, vi } from 'vitest'
import { EXPRESSES } from '../support/expresses.ts'
import { issueKey } from '../support/issue-key.ts'
import { type Answer, type Ask, serve } from '../support/raw-http.ts'
import { createTestKeys } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

const ALICE = { name: 'Alice' }
const BOB = { name: 'Bob' }
const SCHEME: HeaderAPIKeyConfig = { header: 'Authorization', prefix: 'Api-Key ' }
const BARE = 'Api-Key realm="Users"'
const INVALID = 'Api-Key realm="Users", error="invalid_key"'

/** Knows one key, which is Bob's. */
const verifyBob: HeaderAPIKeyVerify = (apiKey, done) => done(null, apiKey === 'good' ? BOB : false)

/** The original, with what its types do not know of. */
function original(config: unknown, passReqToCallback: unknown, verify: HeaderAPIKeyVerify): Original {
  return new Original(config as never, passReqToCallback as never, verify as never)
}

interface Parts {
  createApp?: typeof express
  strategy: PassportStrategy
  options?: AuthenticateOptions
  /** Runs before the routes. */
  before?: RequestHandler[]
  /** Runs between authentication and the answer. */
  after?: RequestHandler[]
  withSession?: boolean
}

/** An application with `/`, `/callback`, which shows what a custom callback receives, and `/login`. */
async function start({
  createApp = express,
  strategy,
  options = {},
  before = [],
  after = [],
  ...parts
}: Parts) {
  const passport = new Authenticator()
  passport.serializeUser((user, done) => done(null, JSON.stringify(user)))
  passport.deserializeUser((text: string, done) => done(null, JSON.parse(text)))
  passport.use('key', strategy)
  passport.use(new LocalStrategy((_name, _password, done) => done(null, ALICE)))
  const app = createApp()
  if (parts.withSession) {
    const store = new MemoryStore()
    app.use(session({ secret: 'test', resave: false, saveUninitialized: false, store }))
    app.use(passport.session())
  }
  app.use(express.json())
  app.post('/login', passport.authenticate('local'), show)
  if (before.length > 0) app.use(...before)
  app.get('/callback', (req, res, next) => {
    const told = (...received: unknown[]) => res.json(received.map(plain))
    passport.authenticate('key', options, told)(req, res, next)
  })
  const authenticate: RequestHandler = passport.authenticate('key', options)
  app.all('/', authenticate, ...after, show)
  const answer: express.ErrorRequestHandler = (error, _req, res, _next) => {
    if (!res.headersSent) res.status(500).json({ error: plain(error) })
  }
  app.use(answer)
  return { app, passport, ask: await serve(app) }
}

const show: RequestHandler = (req, res) => {
  const auth = getAuth(req)
  res.json({ user: req.user, info: req.authInfo, method: auth.method, authMethod: req.authMethod })
}

function plain(value: unknown): unknown {
  return value instanceof Error && !(value instanceof BadRequestError) ? value.message : value
}

async function logIn(ask: Ask): Promise<string> {
  const answer = await ask('/login', [], { method: 'POST', json: { username: 'a', password: 'b' } })
  return `Cookie: ${answer.header('Set-Cookie')?.split(';')[0]}`
}

/** The actions of Passport, noted down, for a strategy without an application. */
function act(strategy: { authenticate(req: never, options?: object): void }, req: object, options?: object) {
  const calls: unknown[][] = []
  const action =
    (name: string) =>
    (...args: unknown[]) =>
      void calls.push([name, ...args])
  const actions = { success: action('success'), fail: action('fail'), error: action('error') }
  Object.assign(Object.create(strategy), actions).authenticate(req, options)
  return calls
}

describe('what passport-headerapikey promises', () => {
  it('is exported under its three names', () => {
    expect(Strategy).toBe(HeaderAPIKeyStrategy)
    // What Node's own ESM makes of a default import of the original.
    expect({ ...Strategy }).toEqual({ default: Strategy, HeaderAPIKeyStrategy: Strategy, BadRequestError })
    expect(new BadRequestError('no key')).toMatchObject({ name: 'BadRequestError', message: 'no key' })
    expect(new OriginalError('no key')).toMatchObject({ name: 'BadRequestError', message: 'no key' })
  })

  it.each([
    ['all of them', { header: 'TestHeader', prefix: 'asdf' }, true],
    ['a header alone', { header: 'apikey' }, false],
    ['a prefix alone', { prefix: 'Key ' }, true],
    ['empty texts', { header: '', prefix: '' }, false],
    ['an empty object', {}, null],
    ['null', null, null],
    ['undefined', undefined, undefined],
  ] as const)('has the properties of the original: %s', (_what, config, passReqToCallback) => {
    const ours = new HeaderAPIKeyStrategy(config, passReqToCallback, verifyBob)
    const theirs = original(structuredClone(config), passReqToCallback, verifyBob)
    const properties = ({ apiKeyHeader, name, verify, passReqToCallback }: typeof ours | typeof theirs) => ({
      apiKeyHeader,
      name,
      verify,
      passReqToCallback,
    })
    expect(properties(ours)).toEqual(properties(theirs))
    expect(ours.name).toBe('headerapikey')
  })

  const request = () => ({ headers: { authorization: 'Api-Key topSecret' } })

  it('hands verify the key and done, and the request last where that is asked for', () => {
    for (const passReqToCallback of [false, true]) {
      const verify = vi.fn()
      const req = request()
      act(new HeaderAPIKeyStrategy(SCHEME, passReqToCallback, verify), req)
      expect(verify).toHaveBeenCalledExactlyOnceWith(
        'topSecret',
        expect.any(Function),
        ...(passReqToCallback ? [req] : []),
      )
    }
  })

  it('calls verify as a method of the strategy', () => {
    const seen: unknown[] = []
    const strategy = new HeaderAPIKeyStrategy(
      SCHEME,
      false,
      function (this: HeaderAPIKeyStrategy, _key, done) {
        seen.push(this.name)
        done(null, BOB)
      },
    )
    act(strategy, request())
    expect(seen).toEqual(['headerapikey'])
  })

  it('answers at once where verify does', () => {
    const failure = new Error('database down')
    const outcomeOf = (...answer: Parameters<HeaderAPIKeyDone>) =>
      act(new HeaderAPIKeyStrategy(SCHEME, true, (_key, done) => done(...answer)), request())
    expect(outcomeOf(failure)).toEqual([['error', failure]])
    expect(outcomeOf(null, null, { message: 'no such key' })).toEqual([['fail', { message: 'no such key' }]])
    expect(outcomeOf(null, BOB, { message: 'welcome' })).toEqual([['success', BOB, { message: 'welcome' }]])
  })

  it('takes every value that is false for no user', () => {
    for (const user of [undefined, null, false, 0, '']) {
      const strategy = new HeaderAPIKeyStrategy(SCHEME, false, (_key, done) => done(null, user))
      expect(act(strategy, request())).toEqual([['fail', undefined]])
    }
  })

  it('fails without a key, with an empty one and with another prefix, and does not ask verify', () => {
    const verify = vi.fn()
    const strategy = new HeaderAPIKeyStrategy(SCHEME, true, verify)
    for (const headers of [{}, { authorization: '' }, { authorization: 'WrongPrefix topSecret' }])
      expect(act(strategy, { headers })).toEqual([['fail', new BadRequestError('Missing API Key')]])
    expect(verify).not.toHaveBeenCalled()
  })

  it('finds the header in any case, whatever made the request', () => {
    const strategy = new HeaderAPIKeyStrategy({ header: 'x-API-key' }, false, verifyBob)
    for (const name of ['x-api-key', 'X-Api-Key', 'X-API-KEY'])
      expect(act(strategy, { headers: { [name]: 'good' } })).toEqual([['success', BOB, undefined]])
  })
})

/** What a client and a custom callback see of one request. */
interface Seen {
  status: number
  body: string
  challenges: string[]
  callback: unknown
  /** What verify was asked. */
  asked: unknown[]
}

interface Case {
  config?: HeaderAPIKeyConfig | null
  passReqToCallback?: boolean
  verify?: HeaderAPIKeyVerify
  lines?: readonly string[]
  options?: AuthenticateOptions & ApiKeyRouteOptions
}

type Constructor = new (config: never, passReqToCallback: never, verify: never) => PassportStrategy

async function look(kind: Constructor, createApp: typeof express, parts: Case): Promise<Seen> {
  const { config = null, passReqToCallback = false, verify = verifyBob, lines = [], options } = parts
  const asked: unknown[] = []
  const watched: HeaderAPIKeyVerify = (apiKey, done, ...rest) => {
    asked.push([apiKey, ...rest.map((req) => typeof (req as express.Request).get)])
    return verify(apiKey, done, ...rest)
  }
  const strategy = new kind(structuredClone(config) as never, passReqToCallback as never, watched as never)
  const { ask } = await start({ createApp, strategy, ...(options && { options }) })
  const answer = await ask('/', lines)
  const told = await ask('/callback', lines)
  return {
    status: answer.status,
    body: answer.body,
    challenges: answer.all('WWW-Authenticate'),
    callback: told.body.startsWith('[') ? JSON.parse(told.body) : told.status,
    asked,
  }
}

describe.each(EXPRESSES)('beside the original on %s', (_name, createApp) => {
  async function lookAtBoth(parts: Case) {
    return {
      ours: await look(HeaderAPIKeyStrategy as never, createApp, parts),
      theirs: await look(Original as never, createApp, parts),
    }
  }

  const succeeds: HeaderAPIKeyVerify = (_key, done) => done(null, BOB, { scope: 'all' })
  const later =
    (...answer: Parameters<HeaderAPIKeyDone>): HeaderAPIKeyVerify =>
    (_key, done) =>
      void setImmediate(done, ...answer)

  const same: Record<string, Case> = {
    'a good key in the usual header': { lines: ['X-Api-Key: good'] },
    'the header in another case': { lines: ['x-API-KEY: good'] },
    'another header': { config: { header: 'My-Key', prefix: '' }, lines: ['my-key: good'] },
    'a prefix': { config: SCHEME, lines: ['Authorization: Api-Key good'] },
    'a prefix without a blank': { config: { prefix: 'key_' }, lines: ['X-Api-Key: key_good'] },
    'a prefix twice': {
      config: { prefix: 'key_' },
      verify: succeeds,
      lines: ['X-Api-Key: key_key_good'],
    },
    'a prefix inside the key': {
      config: { prefix: 'k' },
      verify: succeeds,
      lines: ['X-Api-Key: kgook'],
    },
    'Authorization as a whole': {
      config: { header: 'Authorization' },
      verify: (text, done) => done(null, text === 'Token good' && BOB),
      lines: ['Authorization: Token good'],
    },
    'the request': { passReqToCallback: true, lines: ['X-Api-Key: good'] },
    info: { verify: succeeds, lines: ['X-Api-Key: good'] },
    'no authInfo': { verify: succeeds, lines: ['X-Api-Key: good'], options: { authInfo: false } },
    'a user later': { verify: later(null, BOB, { scope: 'all' }), lines: ['X-Api-Key: good'] },
    'a user that is true': { verify: later(null, true), lines: ['X-Api-Key: good'] },
    'an error': { verify: (_key, done) => done(new Error('down')), lines: ['X-Api-Key: good'] },
    'an error later': { verify: later(new Error('down')), lines: ['X-Api-Key: good'] },
    'an error that is none': { verify: later(true), lines: ['X-Api-Key: good'] },
    assignProperty: { lines: ['X-Api-Key: good'], options: { assignProperty: 'account' } },
    successRedirect: { lines: ['X-Api-Key: good'], options: { successRedirect: '/in', session: false } },
    failureRedirect: {
      verify: later(null, false, { message: 'why' }),
      lines: ['X-Api-Key: bad'],
      options: { failureRedirect: '/out' },
    },
  }

  it.each(Object.entries(same))('is the same: %s', async (_what, parts) => {
    const { ours, theirs } = await lookAtBoth({ ...parts, options: { session: false, ...parts.options } })
    const { method, authMethod, ...body } = ours.body.startsWith('{"user') ? JSON.parse(ours.body) : {}
    const {
      method: _,
      authMethod: __,
      ...theirBody
    } = theirs.body.startsWith('{"user') ? JSON.parse(theirs.body) : {}
    expect(body).toEqual(theirBody)
    expect({ ...ours, body: '' }).toEqual({ ...theirs, body: '' })
    if (ours.body.startsWith('{"user') && !parts.options?.assignProperty) {
      expect({ method, authMethod }).toEqual({ method: 'other', authMethod: 'other' })
    }
  })

  const sameButForTheChallenge: Record<string, Case> = {
    'no key': {},
    'a bad key': { lines: ['X-Api-Key: bad'] },
    'a bad key, later': { verify: later(null, false), lines: ['X-Api-Key: bad'] },
    'a bad key and info': { verify: later(null, null, { message: 'why' }), lines: ['X-Api-Key: bad'] },
    'false for an error': { verify: later(false), lines: ['X-Api-Key: bad'] },
  }

  it.each(Object.entries(sameButForTheChallenge))(
    'is the same but for the challenge of a 401: %s',
    async (_what, parts) => {
      const { ours, theirs } = await lookAtBoth(parts)
      expect(theirs).toMatchObject({ status: 401, challenges: [] })
      const challenges = parts.lines ? [INVALID] : [BARE]
      expect(ours).toEqual({ ...theirs, challenges })
    },
  )

  /** Each with what is seen of the original and of the drop-in. */
  const different: Record<string, [Case, theirs: Partial<Seen>, ours: Partial<Seen>]> = {
    'another scheme has a challenge': [
      { config: { header: 'Authorization', prefix: 'Bearer ' }, lines: ['Authorization: Basic good'] },
      { status: 401, challenges: [] },
      {
        status: 401,
        challenges: ['Bearer realm="Users"'],
        callback: [null, false, { name: 'BadRequestError', message: 'Missing API Key' }, null],
      },
    ],
    'another prefix has a challenge': [
      { config: { prefix: 'key_' }, lines: ['X-Api-Key: good'] },
      { status: 401, challenges: [] },
      {
        status: 401,
        challenges: [INVALID],
        callback: [
          null,
          false,
          {
            name: 'BadRequestError',
            message: 'Invalid API Key, or no "key_" before it, in the header x-api-key',
          },
          null,
        ],
      },
    ],
    'a scheme compares in any case': [
      { config: SCHEME, lines: ['Authorization: API-key good'] },
      { status: 401, asked: [] },
      { status: 200, asked: [['good'], ['good']] },
    ],
    'blanks around a key are no part of it': [
      { config: SCHEME, lines: ['Authorization: Api-Key \t good'] },
      { status: 401, asked: [['\t good'], ['\t good']] },
      { status: 200, asked: [['good'], ['good']] },
    ],
    'a prefix is no regular expression': [
      { config: { prefix: 'Key (v1) ' }, lines: ['X-Api-Key: Key (v1) good'] },
      { status: 401, asked: [['Key (v1) good'], ['Key (v1) good']] },
      { status: 200, asked: [['good'], ['good']] },
    ],
    'a prefix need not be a regular expression': [
      { config: { prefix: '[' }, lines: ['X-Api-Key: [good'] },
      { status: 500 },
      { status: 200 },
    ],
    'a prefix alone is no key': [
      { config: { prefix: 'key_' }, lines: ['X-Api-Key: key_'] },
      { asked: [[''], ['']], challenges: [] },
      { asked: [], challenges: [BARE] },
    ],
    'a prefix alone is no key, whatever blank it ends in': [
      { config: { prefix: 'Api-Key: ' }, lines: ['X-Api-Key: Api-Key: '] },
      { asked: [], challenges: [] },
      { asked: [], challenges: [BARE] },
    ],
    'a text for info is not sent': [
      { verify: later(null, false, 'Basic realm="x"'), lines: ['X-Api-Key: bad'] },
      { challenges: ['Basic realm="x"'], callback: [null, false, 'Basic realm="x"', null] },
      { challenges: [INVALID], callback: [null, false, { message: 'Basic realm="x"' }, null] },
    ],
    'a number for info is no status': [
      { verify: later(null, false, 418), lines: ['X-Api-Key: bad'] },
      { status: 418 },
      { status: 401, challenges: [INVALID], callback: [null, false, { message: '418' }, null] },
    ],
    'two keys are a 400': [
      { lines: ['X-Api-Key: good', 'X-Api-Key: bad'] },
      { status: 401, asked: [['good, bad'], ['good, bad']] },
      { status: 400, asked: [], callback: [null, false, INVALID, 400] },
    ],
    'the same key twice is two keys': [
      { config: SCHEME, lines: ['Authorization: Api-Key good', 'authorization: api-key good'] },
      { status: 200 },
      { status: 400, asked: [] },
    ],
    'two keys that a proxy has joined are a 400': [
      { lines: ['X-Api-Key: good, bad'] },
      { status: 401, asked: [['good, bad'], ['good, bad']] },
      { status: 400, asked: [] },
    ],
    'an empty line beside a key is none': [
      { lines: ['X-Api-Key:', 'X-Api-Key: good'] },
      { status: 401, asked: [[', good'], [', good']] },
      { status: 200, asked: [['good'], ['good']] },
    ],
    'a key of 513 characters is refused': [
      { verify: (_key, done) => done(null, BOB), lines: [`X-Api-Key: ${'k'.repeat(513)}`] },
      { status: 200 },
      { status: 401, asked: [], challenges: [INVALID] },
    ],
    'a key that is not ASCII is refused': [
      { verify: (_key, done) => done(null, BOB), lines: ['X-Api-Key: gööd'] },
      { status: 200 },
      { status: 401, asked: [], challenges: [INVALID] },
    ],
    'a key with a control character is refused': [
      { verify: (_key, done) => done(null, BOB), lines: ['X-Api-Key: go\tod'] },
      { status: 200 },
      { status: 401, asked: [], challenges: [INVALID] },
    ],
    'an exception is an error for a custom callback': [
      {
        verify: () => {
          throw new Error('mistake')
        },
        lines: ['X-Api-Key: good'],
      },
      { status: 500, body: '{"error":"mistake"}', callback: 500 },
      { status: 500, body: '{"error":"mistake"}', callback: ['mistake'] },
    ],
    'a route that asks for permissions refuses': [
      { lines: ['X-Api-Key: good'], options: { session: false, permissions: { projects: ['read'] } } },
      { status: 200 },
      { status: 403, asked: [] },
    ],
  }

  it.each(Object.entries(different))('differs on purpose: %s', async (_what, [parts, theirs, ours]) => {
    vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const seen = await lookAtBoth({ options: { session: false }, ...parts })
    expect(seen.theirs).toMatchObject(theirs)
    expect(seen.ours).toMatchObject(ours)
  })

  it('admits keys of 512 characters, and keys with blanks in them', async () => {
    for (const key of ['k'.repeat(512), 'Token good', '!~,;=']) {
      const { ours, theirs } = await lookAtBoth({ verify: succeeds, lines: [`X-Api-Key: ${key}`] })
      expect(ours.asked).toEqual([[key], [key]])
      expect(theirs.asked).toEqual(ours.asked)
    }
  })

  /** What the original does not survive is given a moment; nothing then has answered. */
  async function answerOrSilence(kind: Constructor, verify: HeaderAPIKeyVerify) {
    const unhandled = watchUnhandled()
    const strategy = new kind(null as never, false as never, verify as never)
    const { ask } = await start({ createApp, strategy, options: { session: false } })
    const pending = ask('/', ['X-Api-Key: good']).catch(() => null)
    const answer: Answer | null = await Promise.race([pending, setTimeout(100, null)])
    return { status: answer?.status ?? 'silence', unhandled: (await unhandled()).length }
  }

  const rejecting: Record<string, HeaderAPIKeyVerify> = {
    'a rejected promise': () => Promise.reject(new Error('down')),
    'a promise rejected with nothing': () => Promise.reject(),
    'a mistake behind await': async () => {
      await null
      throw new TypeError('mistake')
    },
  }

  it.each(Object.entries(rejecting))('differs on purpose: %s is an error', async (_what, verify) => {
    expect(await answerOrSilence(Original as never, verify)).toEqual({ status: 'silence', unhandled: 1 })
    const ours = await answerOrSilence(HeaderAPIKeyStrategy as never, verify)
    expect(ours).toEqual({ status: 500, unhandled: 0 })
  })

  it('differs on purpose: info that no header can hold ends no process', async () => {
    const verify = later(null, false, 'Schlüssel 鍵\r\nSet-Cookie: a=b')
    const theirs = await answerOrSilence(Original as never, verify)
    expect(theirs).toEqual({ status: 'silence', unhandled: 1 })
    const ours = await answerOrSilence(HeaderAPIKeyStrategy as never, verify)
    expect(ours).toEqual({ status: 401, unhandled: 0 })
  })

  it('differs on purpose: of several answers the first counts', async () => {
    const twice: HeaderAPIKeyVerify = (_key, done) => {
      setImmediate(() => {
        done(null, false)
        done(null, BOB)
      })
    }
    const once = async (kind: Constructor) => {
      const calls = vi.fn()
      const strategy = new kind(null as never, false as never, twice as never)
      const { app, passport, ask } = await start({ createApp, strategy })
      app.get('/noted', (req, res, next) => {
        const note = (_error: unknown, user: unknown) => {
          calls(user)
          if (!res.headersSent) res.json(user)
        }
        passport.authenticate('key', note)(req, res, next)
      })
      await ask('/noted', ['X-Api-Key: good'])
      return calls.mock.calls
    }
    expect(await once(Original as never)).toEqual([[false], [BOB]])
    expect(await once(HeaderAPIKeyStrategy as never)).toEqual([[false]])
  })

  it('differs on purpose: an exception that is none is an error too, and never lets a request pass', async () => {
    for (const thrown of [undefined, null, false, 'route', 'router']) {
      const verify: HeaderAPIKeyVerify = () => {
        throw thrown
      }
      const { ours, theirs } = await lookAtBoth({ verify, lines: ['X-Api-Key: good'] })
      expect(ours.status).toBe(500)
      expect(theirs.status).not.toBe(401)
    }
    const skipping = await look(Original as never, createApp, {
      verify: later('route'),
      lines: ['X-Api-Key: good'],
    })
    expect(skipping.status).toBe(404)
    const ours = await lookAtBoth({ verify: later('route'), lines: ['X-Api-Key: good'] })
    expect(ours.ours.status).toBe(500)
    const strategy = new HeaderAPIKeyStrategy(null, false, (_key, done) => done('router' as never))
    const error = new Error('verify of HeaderAPIKeyStrategy failed without an error', { cause: 'router' })
    expect(act(strategy, { headers: { 'x-api-key': 'good' } })).toEqual([['error', error]])
  })

  it('differs on purpose: begins no session', async () => {
    const cookies = async (strategy: PassportStrategy, options: AuthenticateOptions) => {
      const { ask } = await start({ createApp, strategy, options, withSession: true })
      const answer = await ask('/', ['X-Api-Key: good'])
      expect(answer.status).toBe(200)
      return answer.all('Set-Cookie').length
    }
    for (const options of [{}, { session: true }]) {
      expect(await cookies(original(null, false, verifyBob), options)).toBe(1)
      for (const verify of [verifyBob, later(null, BOB)])
        expect(await cookies(new HeaderAPIKeyStrategy(null, false, verify), options)).toBe(0)
    }
  })

  it('differs on purpose: leaves the session of another user alone', async () => {
    const strategy = new HeaderAPIKeyStrategy(null, false, verifyBob)
    const { app, ask } = await start({ createApp, strategy, withSession: true })
    app.get('/me', show)
    const cookie = await logIn(ask)
    const answer = await ask('/', [cookie, 'X-Api-Key: good'])
    expect(answer.json()).toMatchObject({ user: BOB, method: 'other' })
    expect(answer.all('Set-Cookie')).toEqual([])
    expect((await ask('/me', [cookie])).json()).toMatchObject({ user: ALICE })
  })

  it('differs on purpose: failures are kept by no cache', async () => {
    for (const line of ['X-Api-Key: bad', 'X-Other: 1', 'X-Api-Key: a, b']) {
      const cacheOf = async (strategy: PassportStrategy) =>
        (await (await start({ createApp, strategy })).ask('/', [line])).header('Cache-Control')
      expect(await cacheOf(original(null, false, verifyBob))).toBeUndefined()
      expect(await cacheOf(new HeaderAPIKeyStrategy(null, false, verifyBob))).toBe('no-store')
    }
  })
})

describe('the challenge of a failure with info', () => {
  const strategy = () =>
    new HeaderAPIKeyStrategy(null, false, (_key, done) => done(null, false, { message: 'why' }))

  it('stands beside those of other strategies', async () => {
    const { app, passport, ask } = await start({ strategy: strategy() })
    passport.use('first', new HeaderAPIKeyStrategy({ prefix: 'Token ' }, false, verifyBob))
    app.get('/both', passport.authenticate(['key', 'first']))
    const answer = await ask('/both', ['X-Api-Key: bad'])
    expect(answer.status).toBe(401)
    expect(answer.all('WWW-Authenticate')).toEqual(['Token realm="Users", error="invalid_key"', INVALID])
  })

  it('is not in an answer of another status', async () => {
    const { app, passport, ask } = await start({ strategy: strategy() })
    app.get('/gone', (req, res, next) => {
      passport.authenticate('key', () => void res.status(410).end())(req, res, next)
    })
    const answer = await ask('/gone', ['X-Api-Key: bad'])
    expect(answer.status).toBe(410)
    expect(answer.all('WWW-Authenticate')).toEqual([])
  })

  it('is in a 401 of the application’s own', async () => {
    const { app, passport, ask } = await start({ strategy: strategy() })
    app.get('/own', (req, res, next) => {
      passport.authenticate('key', () => void res.status(401).json({}))(req, res, next)
    })
    expect((await ask('/own', ['X-Api-Key: bad'])).all('WWW-Authenticate')).toEqual([INVALID])
  })
})

describe('what is passed to the constructor', () => {
  const build = (...args: unknown[]) =>
    new HeaderAPIKeyStrategy(...(args as ConstructorParameters<typeof HeaderAPIKeyStrategy>))

  it.each([
    ['no verify', [null, false], '"verify" must be a function, received undefined'],
    [
      'verify in the place of passReqToCallback',
      [null, verifyBob],
      /"passReqToCallback" must be true or false/,
    ],
    ['a text for passReqToCallback', [null, 'yes', verifyBob], /"passReqToCallback" must be true or false/],
    [
      'a text in the place of the object',
      ['X-Api-Key', false, verifyBob],
      /"headerConfig" must be an object/,
    ],
    ['a misspelt option', [{ heder: 'a' }, false, verifyBob], /did you mean "header"/],
    ['a number for the header', [{ header: 1 }, false, verifyBob], /"headerConfig.header" must be the name/],
    [
      'a header with a blank',
      [{ header: 'X Key' }, false, verifyBob],
      /"headerConfig.header" must be the name/,
    ],
    ['a cookie', [{ header: 'Cookie' }, false, verifyBob], /must not be "cookie"/],
    [
      'a regular expression for the prefix',
      [{ prefix: /a/ }, false, verifyBob],
      /"headerConfig.prefix" must be/,
    ],
    [
      'a prefix that is not ASCII',
      [{ prefix: 'Schlüssel ' }, false, verifyBob],
      /"headerConfig.prefix" must be/,
    ],
    ['a prefix with a line break', [{ prefix: 'a\n' }, false, verifyBob], /"headerConfig.prefix" must be/],
    ['a prefix of 256 characters', [{ prefix: 'k'.repeat(256) }, false, verifyBob], /at most 255/],
    [
      'a text for doneLast',
      [{ doneLast: 'yes' }, true, verifyBob],
      /"headerConfig.doneLast" must be true or false/,
    ],
  ])('is refused: %s', (_what, args, message) => {
    expect(() => build(...args)).toThrow(TypeError)
    expect(() => build(...args)).toThrow(message)
  })

  it('is told to be options of ApiKeyStrategy, where it is', () => {
    const { keys } = createTestKeys()
    for (const args of [[{ keys }], [{ keys, realm: 'x' }, verifyBob], [{ keys }, false, verifyBob]]) {
      expect(() => build(...args)).toThrow(TypeError)
      expect(() => build(...args)).toThrow('use ApiKeyStrategy')
    }
  })

  it('is never changed, as the original changes it', () => {
    const [config, theirs] = [{ header: 'X-Key' }, { header: 'X-Key' }]
    build(Object.freeze(config), false, verifyBob)
    expect(config).toEqual({ header: 'X-Key' })
    original(theirs, false, verifyBob)
    expect(theirs).not.toEqual({ header: 'X-Key' })
  })

  it('has the types that applications of the original have written down', () => {
    type TheirDone = (error: Error | null, user?: object, info?: object) => void
    const written = (_apiKey: string, done: TheirDone, req?: express.Request) => done(null, { ip: req?.ip })
    build({ header: 'a', prefix: 'b' }, true, written)
    new HeaderAPIKeyStrategy({ header: 'a', prefix: 'b' }, true, written)
    new HeaderAPIKeyStrategy(null, true, (apiKey, done, req) => {
      expectTypeOf(apiKey).toEqualTypeOf<string>()
      expectTypeOf(req).toExtend<{ ip?: string | undefined; apiKey?: unknown } | undefined>()
      done(null, { ip: req?.ip })
    })
    new HeaderAPIKeyStrategy({ doneLast: true }, true, (_apiKey, req, done) => done(null, { ip: req.ip }))
    // @ts-expect-error these are options of another strategy
    expect(() => new HeaderAPIKeyStrategy({ keys: {} }, false, verifyBob)).toThrow()
  })
})

describe.each(EXPRESSES)('the mark on %s', (_name, createApp) => {
  const strategy = () => new HeaderAPIKeyStrategy({ header: 'X-Legacy' }, false, verifyBob)
  const login: RequestHandler = (req, _res, next) => {
    Object.assign(req, { session: { passport: { user: 1 } }, user: ALICE })
    next()
  }

  it('never is a session, wherever markSession() stands', async () => {
    for (const [before, after] of [
      [login, markSession()],
      [markSession(), login],
    ] as const) {
      const { ask } = await start({
        createApp,
        strategy: strategy(),
        before: [login, before],
        after: [after],
      })
      const { method } = (await ask('/', ['X-Legacy: good'])).json()
      expect(['other', 'conflict']).toContain(method)
    }
    const same = new HeaderAPIKeyStrategy(null, false, (_key, done) => done(null, ALICE))
    const parts = { createApp, strategy: same, before: [login, markSession()], after: [markSession()] }
    const { ask } = await start(parts)
    expect((await ask('/', ['X-Api-Key: good'])).json()).toMatchObject({
      method: 'other',
      authMethod: 'other',
    })
  })

  it('is a conflict where the user is exchanged afterwards, or taken away', async () => {
    for (const user of [ALICE, undefined]) {
      const exchange: RequestHandler = (req, _res, next) => {
        Object.assign(req, { user })
        next()
      }
      const { ask } = await start({ createApp, strategy: strategy(), after: [exchange, markSession()] })
      expect((await ask('/', ['X-Legacy: good'])).json()).toMatchObject({ method: 'conflict' })
    }
  })

  it.each([
    ['requireSession()', requireSession(), 403],
    ['requireAuth()', requireAuth(), 403],
    ['requireApiKey()', requireApiKey(), 403],
    ['requireAuth of both', requireAuth({ accept: ['session', 'apikey'] }), 403],
    ['requireAuth of others', requireAuth({ accept: ['other'] }), 200],
  ])('is refused or not: %s', async (_what, guard, status) => {
    const { ask } = await start({ createApp, strategy: strategy(), before: [login], after: [guard] })
    expect((await ask('/', ['X-Legacy: good'])).status).toBe(status)
  })

  it('is no key that nothing has verified, for the warnings of guards', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { ask } = await start({ createApp, strategy: strategy(), after: [requireApiKey()] })
    expect((await ask('/', ['X-Legacy: good'])).status).toBe(403)
    expect(warn).not.toHaveBeenCalled()
  })

  it.each([
    ['a bad key', 'X-Legacy: bad', 'invalid_key', 401],
    ['two keys', 'X-Legacy: good, good', 'multiple_credentials', 400],
    ['a key that is none', `X-Legacy: ${'k'.repeat(600)}`, 'invalid_key', 401],
  ])('is rejected, and no cookie helps: %s', async (_what, line, code, status) => {
    const { app, passport, ask } = await start({ createApp, strategy: strategy() })
    const byCallback: RequestHandler = (req, res, next) =>
      passport.authenticate('key', () => next())(req, res, next)
    const lookAt: RequestHandler = (req, res) => void res.json({ auth: getAuth(req), user: req.user ?? null })
    app.get('/look', login, markSession(), byCallback, markSession(), lookAt)
    app.get('/guarded', login, markSession(), byCallback, requireAuth({ accept: ['session', 'other'] }), show)
    expect((await ask('/look', [line])).json()).toEqual({ auth: { method: 'rejected', code }, user: null })
    expect((await ask('/guarded', [line])).status).toBe(403)
    expect((await ask('/', [line])).status).toBe(status)
  })

  it('is rejected where verify has failed', async () => {
    const failing = new HeaderAPIKeyStrategy(null, false, (_key, done) => done(new Error('down')))
    const { app, passport, ask } = await start({ createApp, strategy: failing })
    const byCallback: RequestHandler = (req, res, next) =>
      passport.authenticate('key', () => next())(req, res, next)
    app.get('/look', login, markSession(), byCallback, (req, res) => void res.json(getAuth(req)))
    const answer = await ask('/look', ['X-Api-Key: good'])
    expect(answer.json()).toEqual({ method: 'rejected', code: 'unavailable' })
  })

  it('leaves a session alone where no key is presented, or another scheme', async () => {
    const scheme = new HeaderAPIKeyStrategy(SCHEME, false, verifyBob)
    const { app, passport, ask } = await start({ createApp, strategy: scheme })
    const byCallback: RequestHandler = (req, res, next) =>
      passport.authenticate('key', () => next())(req, res, next)
    app.get('/look', login, markSession(), byCallback, show)
    app.get('/settings', login, markSession(), byCallback, requireSession(), show)
    for (const lines of [[], ['Authorization: Basic YTpi'], ['Authorization:'], ['Authorization: Api-Key']])
      expect((await ask('/look', lines)).json()).toMatchObject({ method: 'session', user: ALICE })
    for (const lines of [
      ['Authorization: api-key x'],
      ['Authorization: Basic a', 'Authorization: Api-Key x'],
    ])
      expect((await ask('/settings', lines)).status).toBe(403)
  })

  it('is not made with assignProperty, and the user stays', async () => {
    const parts = { createApp, strategy: strategy(), options: { assignProperty: 'account' } }
    const { app, passport, ask } = await start({ ...parts, before: [login, markSession()] })
    const byCallback: RequestHandler = (req, res, next) =>
      passport.authenticate('key', parts.options, () => next())(req, res, next)
    app.get('/look', byCallback, show)
    expect((await ask('/', ['X-Legacy: good'])).json()).toMatchObject({ method: 'session', user: ALICE })
    expect((await ask('/look', ['X-Legacy: bad'])).json()).toMatchObject({ method: 'session', user: ALICE })
  })

  it('refuses a key at requireSession() on a route that no strategy guards, wherever keys are read', async () => {
    const places: [HeaderAPIKeyConfig, string][] = [
      [{ header: 'X-Place' }, 'X-Place: junk'],
      [{ header: 'X-Place-2', prefix: 'key_' }, 'X-Place-2: without the prefix'],
      [{ header: 'Authorization', prefix: 'Legacy ' }, 'Authorization: legacy junk'],
    ]
    for (const [config] of places) new HeaderAPIKeyStrategy(config, false, verifyBob)
    const { app, ask } = await start({ createApp, strategy: strategy() })
    app.get('/settings', login, markSession(), requireSession(), show)
    expect((await ask('/settings')).status).toBe(200)
    for (const [, line] of places) expect((await ask('/settings', [line])).status, line).toBe(403)
  })
})

describe('beside ApiKeyStrategy', () => {
  it('takes old keys where the new strategy refuses them, in one array', async () => {
    const { keys } = createTestKeys()
    const issued = await issueKey(keys)
    const { app, passport, ask } = await start({
      strategy: new HeaderAPIKeyStrategy(null, false, verifyBob),
    })
    passport.use(new ApiKeyStrategy({ keys, refuseWith: 'fail' }))
    const guard = requireAuth({ accept: ['apikey', 'other'] })
    app.get('/both', passport.authenticate(['apikey', 'key']), guard, show)
    expect((await ask('/both', [`X-Api-Key: ${issued.key}`])).json()).toMatchObject({ method: 'apikey' })
    expect((await ask('/both', ['X-Api-Key: good'])).json()).toMatchObject({ method: 'other', user: BOB })
    expect((await ask('/both', ['X-Api-Key: bad'])).status).toBe(401)
  })

  it('refuses old keys where the route asks for permissions, and says so once', async () => {
    vi.resetModules()
    const fresh = await import('latchkey/passport')
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { keys } = createTestKeys()
    const issued = await issueKey(keys, { permissions: { projects: ['read'] } })
    const { app, passport, ask } = await start({
      strategy: new fresh.HeaderAPIKeyStrategy(null, false, verifyBob),
    })
    passport.use(new ApiKeyStrategy({ keys, refuseWith: 'fail' }))
    const options = { permissions: { projects: ['read'] } }
    app.get('/both', passport.authenticate(['apikey', 'key'], options), show)
    expect((await ask('/both', [`X-Api-Key: ${issued.key}`])).status).toBe(200)
    expect((await ask('/both', ['X-Api-Key: good'])).status).toBe(403)
    expect((await ask('/both', ['X-Api-Key: good'])).status).toBe(403)
    expect(warn).toHaveBeenCalledExactlyOnceWith(expect.stringMatching(/permissions.*use ApiKeyStrategy/), {
      code: 'LATCHKEY_NO_PERMISSIONS',
    })
  })
})

describe('a custom callback that throws', () => {
  it.each([
    ['at once', verifyBob],
    ['later', ((_key, done) => void setImmediate(done, null, BOB)) as HeaderAPIKeyVerify],
    [
      'behind await',
      (async (_key, done) => {
        await null
        done(null, BOB)
      }) as HeaderAPIKeyVerify,
    ],
  ])('is called once, and ends as the application’s error: %s', async (_when, verify) => {
    const unhandled = watchUnhandled()
    const callback = vi.fn(() => {
      throw new Error('mistake of the callback')
    })
    const app = express()
    const passport = new Authenticator()
    passport.use(new HeaderAPIKeyStrategy(null, false, verify))
    app.get('/', passport.authenticate('headerapikey', callback))
    const answer: express.ErrorRequestHandler = (error, _req, res, _next) =>
      void res.status(500).json({ message: error.message })
    app.use(answer)
    const ask = await serve(app)
    expect((await ask('/', ['X-Api-Key: good'])).json()).toEqual({ message: 'mistake of the callback' })
    expect(callback).toHaveBeenCalledTimes(1)
    expect(await unhandled()).toEqual([])
  })
})

describe('Passport handed the strategy itself', () => {
  it('never gives one request the answer of another', async () => {
    const waiting: (() => void)[] = []
    const verify: HeaderAPIKeyVerify = (apiKey, done) => {
      waiting.push(() => done(null, apiKey.startsWith('good') && { apiKey }))
      // The first that came is answered last.
      if (waiting.length === 6) for (const answer of waiting.reverse()) answer()
    }
    const app = express()
    app.get(
      '/',
      new Authenticator().authenticate(new HeaderAPIKeyStrategy(null, false, verify) as never),
      show,
    )
    const ask = await serve(app)
    const given = ['good-1', 'bad-1', 'good-2', 'bad-2', 'good-3', 'bad-3']
    const answers = await Promise.all(given.map((key) => ask('/', [`X-Api-Key: ${key}`])))
    const users = answers.map((answer) => (answer.status === 200 ? answer.json().user : answer.status))
    expect(users).toEqual(given.map((key) => (key.startsWith('good') ? { apiKey: key } : 401)))
  })
})

describe('under Nest', () => {
  /** A controller behind `AuthGuard`, with the strategy that `PassportStrategy` makes of ours. */
  async function startNest(
    constructorArguments: unknown[],
    validate: (...args: unknown[]) => unknown,
    name = `nest-${constructorArguments.length}-${Math.random()}`,
  ): Promise<Ask> {
    await import('reflect-metadata')
    const { Controller, Get, Module, Req, UseGuards } = await import('@nestjs/common')
    const { NestFactory } = await import('@nestjs/core')
    const nest = await import('@nestjs/passport')
    class KeyStrategy extends nest.PassportStrategy(HeaderAPIKeyStrategy, name) {
      constructor() {
        super(...(constructorArguments as [HeaderAPIKeyConfig, boolean]))
      }
      validate(...args: unknown[]): unknown {
        return validate(...args)
      }
    }
    class Things {
      list(req: express.Request): object {
        return { user: req.user, method: getAuth(req).method }
      }
    }
    const list = Object.getOwnPropertyDescriptor(Things.prototype, 'list') as PropertyDescriptor
    Get()(Things.prototype, 'list', list)
    Req()(Things.prototype, 'list', 0)
    UseGuards(nest.AuthGuard(name) as new () => CanActivate)(Things.prototype, 'list', list)
    Controller()(Things)
    class App {}
    Module({ controllers: [Things], providers: [KeyStrategy] })(App)
    const app = await NestFactory.create(App, { logger: false })
    await app.init()
    return serve(app.getHttpAdapter().getInstance())
  }

  const findBob = (apiKey: unknown) => (apiKey === 'good' ? BOB : null)

  it('asks validate for the user', async () => {
    const validate = vi.fn(findBob)
    const ask = await startNest([SCHEME, false], validate)
    expect((await ask('/', ['Authorization: Api-Key good'])).json()).toEqual({ user: BOB, method: 'other' })
    expect((await ask('/', ['Authorization: Api-Key bad'])).status).toBe(401)
    expect((await ask('/')).status).toBe(401)
    expect(validate.mock.calls).toEqual([
      ['good', expect.any(Function)],
      ['bad', expect.any(Function)],
    ])
  })

  it('hands validate the request before done, with doneLast', async () => {
    const validate = vi.fn((apiKey: unknown, req: unknown) => {
      const { method } = req as express.Request
      return apiKey === 'good' && { method }
    })
    const ask = await startNest([{ ...SCHEME, doneLast: true }, true], validate)
    const answer = await ask('/', ['Authorization: Api-Key good'])
    expect(answer.json()).toEqual({ user: { method: 'GET' }, method: 'other' })
    expect((await ask('/', ['Authorization: Api-Key bad'])).status).toBe(401)
  })

  it('answers with an error, without doneLast, where the original hangs', async () => {
    const unhandled = watchUnhandled()
    const ask = await startNest([SCHEME, true], findBob)
    expect((await ask('/', ['Authorization: Api-Key good'])).status).toBe(500)
    expect(await unhandled()).toEqual([])
  })

  it('takes a callback of the application’s own, behind which Nest puts another', async () => {
    const validate = vi.fn()
    const ask = await startNest([SCHEME, true, verifyBob], validate)
    expect((await ask('/', ['Authorization: Api-Key good'])).json()).toMatchObject({ user: BOB })
    expect((await ask('/', ['Authorization: Api-Key bad'])).status).toBe(401)
    expect(validate).not.toHaveBeenCalled()
  })

  it('gives the exception of validate to Nest', async () => {
    const { ForbiddenException } = await import('@nestjs/common')
    const ask = await startNest([SCHEME, false], () => {
      throw new ForbiddenException()
    })
    expect((await ask('/', ['Authorization: Api-Key good'])).status).toBe(403)
  })
})
