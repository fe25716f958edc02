import type { ErrorCode } from 'latchkey'
import { BARE } from '../../support/challenges.ts'
import {
  BY_KEY,
  BY_SESSION,
  COLD,
  guardRefuses,
  NO_IO,
  NOBODY,
  passes,
  refuses,
  rejected,
  WARM,
} from '../expected.ts'
import { OTHER_USER, SESSION_USER } from '../pipeline.ts'
import type { App, GuardCall, Outcome, Row, Step, Who } from '../row.ts'

const COOKIE = 'Cookie: <session>'
const KEY = 'X-Api-Key: <key>'
const JUNK = 'X-Api-Key: junk'
const READ = { projects: ['read'] }
const WRITE = { projects: ['write'] }

/** Each combination of credentials: who the request is, and what it took to know that. */
const CREDENTIALS: readonly (readonly [lines: readonly string[], who: Who, happened: Partial<Outcome>])[] = [
  [[], NOBODY, NO_IO],
  [[COOKIE], BY_SESSION, NO_IO],
  [[KEY], BY_KEY, COLD],
  [[JUNK], rejected('invalid_key'), { events: ['key.refused invalid_key malformed'] }],
  [[COOKIE, KEY], BY_KEY, WARM],
  [[COOKIE, JUNK], rejected('invalid_key'), { events: ['key.refused invalid_key malformed'] }],
  [[COOKIE, JUNK, KEY], rejected('multiple_credentials'), { events: ['key.refused multiple_credentials'] }],
]

const FORGED = [
  'X-Auth-Method: session',
  'authMethod: session',
  'apiKey: {"id":"1"}',
  'X-User: admin',
  'user: admin',
]

/** Who a request is whose user was replaced by whom the session has logged in: nobody, and `user` shows nobody. */
function behindSession(found: Who): Who {
  return found === BY_KEY ? { method: 'conflict', shows: { key: '<key id>' } } : found
}

/** Where nothing of ours has looked at a request, it has no views either. */
const UNMARKED: Who = { method: 'other', user: SESSION_USER, shows: { authMethod: 'nothing' } }

/** A user was exchanged after a proof. */
const REPLACED = 'warning LATCHKEY_USER_REPLACED'

/** Nobody is there, and a login would do as well as a key. */
const LOGIN_OR_KEY = { fields: { 'WWW-Authenticate': `Session realm="Users", ${BARE}` } }

type Verdict = 'passes' | ErrorCode

function guarded(title: string, guard: GuardCall, verdicts: readonly Verdict[], app: Partial<App> = {}): Row {
  const takesKeys = verdicts !== ONLY_SESSIONS
  return {
    title,
    key: { permissions: READ },
    app: { keys: 'overruled', session: 'before the keys', guard, ...app },
    steps: CREDENTIALS.map(([lines, found, happened], i) => {
      const isReplaced = app.session === 'after the keys' && lines.includes(COOKIE) && found !== BY_SESSION
      const who = isReplaced ? behindSession(found) : found
      const verdict = verdicts[i] as Verdict
      if (verdict === 'passes') return { ask: { lines }, expect: passes(who, happened) }
      return {
        ask: { lines },
        expect: guardRefuses(verdict, who, {
          ...happened,
          ...(verdict === 'insufficient_permissions' && { details: { missing: WRITE } }),
          ...(who.method === 'conflict' && { events: [REPLACED] }),
          ...(verdict === 'authentication_required' && takesKeys && LOGIN_OR_KEY),
        }),
      }
    }),
  }
}

const ONLY_SESSIONS: readonly Verdict[] = [
  'authentication_required',
  'passes',
  'session_required',
  'session_required',
  'session_required',
  'session_required',
  'session_required',
]
const ONLY_KEYS: readonly Verdict[] = [
  'missing_key',
  'api_key_required',
  'passes',
  'invalid_key',
  'passes',
  'invalid_key',
  'multiple_credentials',
]
const EITHER: readonly Verdict[] = [
  'authentication_required',
  'passes',
  'passes',
  'invalid_key',
  'passes',
  'invalid_key',
  'multiple_credentials',
]
const NO_PERMISSION: readonly Verdict[] = ONLY_KEYS.map((verdict) =>
  verdict === 'passes' ? 'insufficient_permissions' : verdict,
)

export const GUARDS: readonly Row[] = [
  guarded('requireSession() lets in only sessions', { name: 'requireSession' }, ONLY_SESSIONS),
  guarded('requireAuth() does the same', { name: 'requireAuth' }, ONLY_SESSIONS),
  guarded('requireApiKey() lets in only keys', { name: 'requireApiKey' }, ONLY_KEYS),
  guarded(
    'requireApiKey({ permissions }) lets in keys that hold them',
    { name: 'requireApiKey', with: { permissions: [WRITE, READ] } },
    ONLY_KEYS,
  ),
  guarded(
    'requireAuth({ accept: [apikey] }) lets in only keys',
    { name: 'requireAuth', with: { accept: ['apikey'] } },
    ONLY_KEYS,
  ),
  guarded(
    'requireAuth({ accept: [session, apikey] }) lets in either; if a key is sent, it decides',
    { name: 'requireAuth', with: { accept: ['session', 'apikey'] } },
    EITHER,
  ),
  guarded(
    'requireAuth({ accept: [other] }) lets in neither',
    { name: 'requireAuth', with: { accept: ['other'] } },
    ['missing_key', ...Array<Verdict>(6).fill('auth_method_not_accepted')],
  ),
  guarded(
    'requirePermissions() lets in keys that hold them',
    { name: 'requirePermissions', permissions: READ },
    ONLY_KEYS,
  ),
  guarded(
    'requirePermissions() says what a key lacks',
    { name: 'requirePermissions', permissions: WRITE },
    NO_PERMISSION,
  ),
  guarded(
    'requirePermissions({ accept: [session] }) lets in sessions as well',
    { name: 'requirePermissions', permissions: READ, with: { accept: ['session'] } },
    EITHER,
  ),
]

const conflicting = (verdicts: readonly Verdict[], verdict: Verdict) => verdicts.with(4, verdict)

export const CONFUSIONS: readonly Row[] = [
  guarded(
    'requireSession() trusts nobody when the session is restored after the key',
    { name: 'requireSession' },
    ONLY_SESSIONS,
    { session: 'after the keys' },
  ),
  guarded(
    'requireApiKey() trusts nobody when the session is restored after the key',
    { name: 'requireApiKey' },
    conflicting(ONLY_KEYS, 'api_key_required'),
    { session: 'after the keys' },
  ),
  guarded(
    'requireAuth({ accept: [session, apikey] }) trusts nobody when the session is restored after the key',
    { name: 'requireAuth', with: { accept: ['session', 'apikey'] } },
    conflicting(EITHER, 'auth_method_not_accepted'),
    { session: 'after the keys' },
  ),
  {
    title: 'refuses a bad key next to a session, and does not end the session',
    app: { keys: 'optional', session: 'before the keys' },
    steps: [
      { ask: { lines: [COOKIE, JUNK] }, expect: refuses('invalid_key', { reason: 'malformed' }) },
      {
        ask: { lines: [COOKIE, 'X-Api-Key: <wrong key>'] },
        expect: refuses('invalid_key', { reason: 'wrong_secret', store: ['find'] }),
      },
      { ask: { lines: [COOKIE] }, expect: passes(BY_SESSION) },
    ],
  },
  {
    title: 'never lets a key begin, change or end a session, and sets no cookie',
    app: { keys: 'optional', session: 'before the keys' },
    steps: [
      { ask: { lines: [KEY] }, expect: passes(BY_KEY, COLD) },
      { ask: { lines: [COOKIE, KEY] }, expect: passes(BY_KEY, WARM) },
      { ask: { lines: [COOKIE] }, expect: passes(BY_SESSION) },
    ],
  },
  {
    title: 'requires a key even if there is a session',
    app: { session: 'before the keys' },
    steps: [
      { ask: { lines: [COOKIE] }, expect: { ...refuses('missing_key'), events: [], who: BY_SESSION } },
      { ask: { lines: [COOKIE, KEY] }, expect: passes(BY_KEY, COLD) },
    ],
  },
  {
    title: 'refuses an unmarked session, with one process warning',
    app: { keys: 'none', session: 'unmarked', guard: { name: 'requireSession' } },
    steps: [['warning LATCHKEY_UNMARKED'], []].map((events) => ({
      ask: { lines: [COOKIE] },
      expect: guardRefuses('session_required', UNMARKED, { events }),
    })),
  },
  {
    title: 'refuses a session that presents a key that no middleware has checked',
    app: { keys: 'none', session: 'before the keys', guard: { name: 'requireSession' } },
    steps: [
      ...[KEY, JUNK, 'authorization: API-KEY x'].map((line) => ({
        ask: { lines: [COOKIE, line] },
        expect: guardRefuses('session_required', BY_SESSION),
      })),
      { ask: { lines: [COOKIE, 'X-Api-Key:', 'Authorization: Basic eDp5'] }, expect: passes(BY_SESSION) },
    ],
  },
  {
    title: 'lets in a session with a gateway’s key if told to, but not with a refused key',
    app: {
      keys: 'overruled',
      session: 'before the keys',
      guard: { name: 'requireSession', with: { ignorePresentedKey: true } },
      reads: { headers: ['X-Partner-Key'] },
    },
    steps: [
      { ask: { lines: [COOKIE, JUNK] }, expect: passes(BY_SESSION) },
      {
        ask: { lines: [COOKIE, 'X-Partner-Key: junk'] },
        expect: guardRefuses('session_required', rejected('invalid_key'), {
          events: ['key.refused invalid_key malformed'],
        }),
      },
    ],
  },
  {
    title: 'trusts no user whose session ends midway',
    app: {
      keys: 'optional',
      session: 'before the keys',
      meanwhile: 'logs out',
      guard: { name: 'requireAuth', with: { accept: ['session', 'apikey'] } },
    },
    steps: [
      { ask: { lines: [COOKIE] }, expect: guardRefuses('authentication_required', NOBODY, LOGIN_OR_KEY) },
    ],
  },
  {
    title: 'trusts no user after a logout removes the user of a key',
    app: {
      keys: 'optional',
      session: 'before the keys',
      meanwhile: 'logs out',
      guard: { name: 'requireAuth', with: { accept: ['session', 'apikey'] } },
    },
    steps: [
      {
        ask: { lines: [KEY] },
        expect: guardRefuses(
          'auth_method_not_accepted',
          { method: 'conflict', shows: { key: '<key id>' } },
          { ...COLD, events: [REPLACED] },
        ),
      },
    ],
  },
  {
    title: 'trusts no user after the user of a key is replaced',
    app: { meanwhile: 'exchanges the user', guard: { name: 'requireApiKey' } },
    steps: [
      {
        ask: { lines: [KEY] },
        expect: guardRefuses(
          'api_key_required',
          { method: 'conflict', shows: { user: OTHER_USER, key: '<key id>' } },
          { ...COLD, events: [REPLACED] },
        ),
      },
    ],
  },
  {
    title: 'lets in a user from another middleware only if told to',
    app: {
      keys: 'optional',
      meanwhile: 'sets a user',
      guard: { name: 'requireAuth', with: { accept: ['other'] } },
    },
    steps: [{ ask: { lines: [] }, expect: passes({ method: 'other', user: OTHER_USER }) }],
  },
  {
    title: 'refuses a user from another middleware otherwise, with a process warning',
    app: {
      keys: 'optional',
      meanwhile: 'sets a user',
      guard: { name: 'requireAuth', with: { accept: ['session', 'apikey'] } },
    },
    steps: [
      {
        ask: { lines: [] },
        expect: guardRefuses(
          'auth_method_not_accepted',
          { method: 'other', user: OTHER_USER },
          { events: ['warning LATCHKEY_UNMARKED'] },
        ),
      },
    ],
  },
  {
    title: 'ignores properties that a middleware assigns',
    app: { keys: 'optional', meanwhile: 'claims a session', guard: { name: 'requireSession' } },
    steps: [
      {
        ask: { lines: [] },
        expect: guardRefuses('authentication_required', { method: 'none', shows: { key: 'claimed' } }),
      },
      {
        ask: { lines: [KEY] },
        expect: guardRefuses('session_required', { ...BY_KEY, shows: { key: 'claimed' } }, COLD),
      },
    ],
  },
  {
    title: 'ignores headers that claim how a request was authenticated',
    app: {
      keys: 'optional',
      session: 'before the keys',
      guard: { name: 'requireAuth', with: { accept: ['session', 'apikey', 'other'] } },
    },
    steps: [
      { ask: { lines: FORGED }, expect: guardRefuses('authentication_required', NOBODY, LOGIN_OR_KEY) },
      { ask: { lines: [...FORGED, KEY] }, expect: passes(BY_KEY, COLD) },
      { ask: { lines: [...FORGED, COOKIE] }, expect: passes(BY_SESSION) },
    ],
  },
  {
    title: 'refuses when the guard runs before the middleware that reads keys, with one process warning',
    app: { guardFirst: true, guard: { name: 'requireApiKey' } },
    steps: [['warning LATCHKEY_UNVERIFIED'], []].map((events) => ({
      ask: { lines: [KEY] },
      expect: guardRefuses('missing_key', NOBODY, {
        events,
        fields: { 'WWW-Authenticate': 'Api-Key realm="Users"' },
      }),
    })),
  },
  ...(
    [
      ['requireApiKey({ keys })', { name: 'requireApiKey' }],
      ['requireAuth({ accept: [apikey], keys })', { name: 'requireAuth', with: { accept: ['apikey'] } }],
      ['requirePermissions({ … }, { keys })', { name: 'requirePermissions', permissions: READ }],
    ] as const
  ).flatMap(([call, guard]): Row[] => [
    {
      title: `${call} lets in a key that those keys verified`,
      key: { permissions: READ },
      app: { guard: { ...guard, keys: 'these' } },
      steps: byKey(passes(BY_KEY, COLD)),
    },
    {
      title: `${call} refuses a key that other keys verified`,
      key: { permissions: READ },
      app: { guard: { ...guard, keys: 'others' } },
      steps: byKey(guardRefuses('api_key_required', BY_KEY, COLD)),
    },
  ]),
]

function byKey(expect: Outcome): Step[] {
  return [{ ask: { lines: [KEY] }, expect }]
}
