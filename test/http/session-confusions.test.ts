import { describe, expect, it, vi } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { type Ask, serve } from '../support/raw-http.ts'
import {
  SESSION_DOORS,
  type SessionDoor,
  type SessionParts,
  TOKEN_LINE,
  TOKEN_USER,
} from '../support/session-doors.ts'
import { BOB, createTestKeys, forgeKey } from '../support/test-keys.ts'

const ALICE = { name: 'Alice' }

/** What a request may carry: Alice's cookie, Bob's key, and others. */
type Carried = 'login' | 'key' | 'junk' | 'forged' | 'token' | 'logout'

interface Confusion {
  /** The only kind of login that it can happen to. */
  login?: SessionDoor['login']
  carries: readonly Carried[]
  parts?: Omit<SessionParts, 'keys'>
  /** Who is asking. */
  is: object
  /** What is answered where a session, a key, either, or something else is asked for. */
  session: string
  key: string
  either: string
  other?: string
}

const REJECTED = {
  is: { method: 'rejected', code: 'invalid_key' },
  session: '403 session_required',
  key: '401 invalid_key',
  either: '401 invalid_key',
}
const BY_KEY = {
  is: { method: 'apikey', user: BOB, view: 'apikey' },
  session: '403 session_required',
  key: 'apikey',
  either: 'apikey',
}
const BY_SESSION = {
  is: { method: 'session', user: ALICE, view: 'session' },
  session: 'session',
  key: '403 api_key_required',
  either: 'session',
}
const NOBODY = {
  is: { method: 'none' },
  session: '401 authentication_required',
  key: '401 missing_key',
  either: '401 authentication_required',
  other: '401 missing_key',
}
const CONFLICT = {
  is: { method: 'conflict' },
  session: '403 session_required',
  key: '403 api_key_required',
  either: '403 auth_method_not_accepted',
}
const UNPROVEN = { ...CONFLICT, is: { method: 'other', user: ALICE, view: 'other' }, other: 'other' }

const keysFirst = { keysFirst: true }

const CONFUSIONS: Record<string, Confusion> = {
  nothing: { carries: [], ...NOBODY },
  'a login': { carries: ['login'], ...BY_SESSION },
  'a key': { carries: ['key'], ...BY_KEY },
  'a login and a key of somebody else': { carries: ['login', 'key'], ...BY_KEY },
  'a login and junk for a key': { carries: ['login', 'junk'], ...REJECTED },
  'a login and a key with a wrong secret': { carries: ['login', 'forged'], ...REJECTED },
  'a login and two keys': {
    carries: ['login', 'junk', 'key'],
    ...REJECTED,
    is: { method: 'rejected', code: 'multiple_credentials' },
    key: '400 multiple_credentials',
    either: '400 multiple_credentials',
  },
  'a login that is restored behind nothing': { carries: ['login'], parts: keysFirst, ...BY_SESSION },
  // Passport exchanges the user, and nobody is trusted; `markSession({ user })` leaves the key's.
  'a login that Passport restores behind the key': {
    login: 'passport',
    carries: ['login', 'key'],
    parts: keysFirst,
    ...CONFLICT,
  },
  'a login that is marked behind the key': {
    login: 'own',
    carries: ['login', 'key'],
    parts: keysFirst,
    ...BY_KEY,
  },
  'a login that is restored behind junk': { carries: ['login', 'junk'], parts: keysFirst, ...REJECTED },
  'a token': {
    carries: ['token'],
    ...UNPROVEN,
    is: { method: 'other', user: TOKEN_USER, view: 'other' },
  },
  'a login and a token': { carries: ['login', 'token'], ...CONFLICT },
  'a token and a key': { carries: ['token', 'key'], ...BY_KEY },
  'a token behind the key': { carries: ['token', 'key'], parts: keysFirst, ...CONFLICT },
  'a token behind junk': { carries: ['token', 'junk'], parts: keysFirst, ...REJECTED },
  'a login, a token and junk': { carries: ['login', 'token', 'junk'], ...REJECTED },
  'a login that nothing has marked': { carries: ['login'], parts: { isUnmarked: true }, ...UNPROVEN },
  'a login that nothing has marked, and a key': {
    carries: ['login', 'key'],
    parts: { isUnmarked: true },
    ...BY_KEY,
  },
  'a login that nothing has marked, and a token': {
    carries: ['login', 'token'],
    parts: { isUnmarked: true },
    ...UNPROVEN,
    is: { method: 'other', user: TOKEN_USER, view: 'other' },
  },
  'a login that ends midway': { carries: ['login', 'logout'], ...NOBODY },
  'a login that ends midway, and a key': { carries: ['login', 'key', 'logout'], ...CONFLICT },
  'a login that ends midway, and junk': { carries: ['login', 'junk', 'logout'], ...REJECTED },
}

// 0 and an empty string may be somebody's id. False is nobody, in Passport's way.
for (const [title, id] of [
  ['0', 0],
  ['an empty string', ''],
] as const) {
  CONFUSIONS[`a login of ${title}`] = {
    login: 'own',
    carries: ['login'],
    parts: { member: id },
    ...BY_SESSION,
    is: { method: 'session', user: id },
  }
  CONFUSIONS[`a key of ${title}`] = {
    carries: ['key'],
    parts: { keyUser: () => id },
    ...BY_KEY,
    is: { method: 'apikey', user: id },
  }
  CONFUSIONS[`a login of somebody, and a key of ${title}`] = {
    carries: ['login', 'key'],
    parts: { keyUser: () => id },
    ...BY_KEY,
    is: { method: 'apikey', user: id },
  }
  CONFUSIONS[`a login of ${title}, and junk`] = {
    login: 'own',
    carries: ['login', 'junk'],
    parts: { member: id },
    ...REJECTED,
  }
}
CONFUSIONS['a login with the id 0'] = {
  carries: ['login'],
  parts: { member: { id: 0 } },
  ...BY_SESSION,
  is: { method: 'session', user: { id: 0 } },
}
CONFUSIONS['a login of false'] = { carries: ['login'], parts: { member: false }, ...NOBODY }
CONFUSIONS['a login of false that nothing has marked'] = {
  carries: ['login'],
  parts: { member: false, isUnmarked: true },
  ...NOBODY,
}
for (const nobody of [false, null, undefined]) {
  CONFUSIONS[`a login, and a key of ${nobody}`] = {
    carries: ['login', 'key'],
    parts: { keyUser: () => nobody },
    ...REJECTED,
  }
}

describe.each(SESSION_DOORS.map((door) => [door.name, door] as const))('%s, given', (_name, door) => {
  const confusions = Object.entries(CONFUSIONS).filter(([, { login }]) =>
    [undefined, door.login].includes(login),
  )

  it.each(confusions)('%s, trusts whom it should', async (_what, confusion) => {
    vi.spyOn(process, 'emitWarning').mockReturnValue()
    const { carries, parts, is, session, key, either, other = '403 auth_method_not_accepted' } = confusion
    const { ask, lineOf } = await start(door, parts)
    const lines = carries.map((name) => lineOf[name])
    expect((await ask('/show', lines)).json()).toMatchObject(is)
    for (const [path, expected] of Object.entries({ session, key, either, other })) {
      expect(await outcomeOf(ask, `/${path}`, lines), path).toBe(expected)
    }
  })

  it('a login and a key, leaves the session as it was and sets no cookie', async () => {
    const { ask, lineOf } = await start(door)
    const { login, key, junk } = lineOf
    for (const path of ['/show', '/session', '/key', '/either']) {
      for (const lines of [[key], [junk], [login, key], [login, junk], [login, junk, key]]) {
        expect((await ask(path, lines)).all('Set-Cookie'), path).toEqual([])
      }
    }
    expect((await ask('/show', [login])).json()).toMatchObject({ method: 'session', user: ALICE })
    expect((await ask('/show')).json()).toEqual({ method: 'none' })
  })

  it('many requests at once, gives each its own', async () => {
    const { ask, lineOf } = await start(door)
    const kinds: [string, string[]][] = [
      ['session', [lineOf.login]],
      ['apikey', [lineOf.login, lineOf.key]],
      ['rejected', [lineOf.login, lineOf.junk]],
      ['none', []],
    ]
    const asked = Array.from({ length: 40 }, (_, i) => kinds[i % kinds.length] as (typeof kinds)[0])
    const methods = await Promise.all(
      asked.map(async ([, lines]) => (await ask('/show', lines)).json().method),
    )
    expect(methods).toEqual(asked.map(([method]) => method))
  })
})

async function start(door: SessionDoor, parts: Omit<SessionParts, 'keys'> = {}) {
  const { keys } = createTestKeys()
  const ask = await serve(door.createListener({ keys, ...parts }))
  const { key } = await issueKey(keys, { owner: BOB })
  const login = await ask('/login', [], { method: 'POST' })
  expect(login.status).toBe(200)
  const cookies = login.all('Set-Cookie').map((line) => line.split(';')[0])
  const lineOf: Record<Carried, string> = {
    login: `Cookie: ${cookies.join('; ')}`,
    key: `X-Api-Key: ${key}`,
    junk: 'X-Api-Key: junk',
    forged: `X-Api-Key: ${forgeKey(key, { secret: '0'.repeat(43) })}`,
    token: TOKEN_LINE,
    logout: 'X-Log-Out: 1',
  }
  return { ask, lineOf }
}

/** What a guard answers: the method that it let pass, or status and code. */
async function outcomeOf(ask: Ask, path: string, lines: readonly string[]): Promise<string> {
  const answer = await ask(path, lines)
  return answer.status === 200 ? String(answer.json().method) : `${answer.status} ${answer.json().code}`
}
