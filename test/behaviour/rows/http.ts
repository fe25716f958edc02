import {
  BY_BOBS_KEY,
  BY_KEY,
  COLD,
  guardRefuses,
  NO_IO,
  NOBODY,
  ofHead,
  passes,
  problem,
  refuses,
  renderedByFramework,
  WARM,
} from '../expected.ts'
import { CORS_ORIGIN } from '../pipeline.ts'
import type { Outcome, Row } from '../row.ts'

const KEY = 'X-Api-Key: <key>'
const JUNK = 'X-Api-Key: junk'
const ORIGIN = `Origin: ${CORS_ORIGIN}`
const PREFLIGHT = [ORIGIN, 'Access-Control-Request-Method: GET', 'Access-Control-Request-Headers: x-api-key']
const ALLOWED = { 'Access-Control-Allow-Origin': CORS_ORIGIN }

export const METHODS: readonly Row[] = [
  {
    title: 'answers HEAD with the header fields of GET and without a body',
    steps: [
      { ask: { method: 'HEAD', lines: [KEY] }, expect: ofHead(passes(BY_KEY, COLD)) },
      { ask: { method: 'HEAD', lines: [] }, expect: ofHead(problem('missing_key')) },
      {
        ask: { method: 'HEAD', lines: [JUNK] },
        expect: ofHead(refuses('invalid_key', { reason: 'malformed' })),
      },
      { ask: { method: 'HEAD', lines: [KEY, KEY] }, expect: ofHead(refuses('multiple_credentials')) },
    ],
  },
  {
    title: 'requires a key for OPTIONS, as for every method',
    steps: [
      { ask: { method: 'OPTIONS', lines: [] }, expect: problem('missing_key') },
      { ask: { method: 'OPTIONS', lines: [KEY] }, expect: passes(BY_KEY, COLD) },
    ],
  },
  {
    title: 'refuses a preflight, which never has a key, unless something answers it first',
    steps: [{ ask: { method: 'OPTIONS', lines: PREFLIGHT }, expect: problem('missing_key') }],
  },
  {
    title: 'leaves a preflight to the CORS middleware before it, and requires no key',
    app: { cors: true },
    steps: [
      {
        ask: { method: 'OPTIONS', lines: PREFLIGHT },
        expect: { status: 204, fields: ALLOWED, body: '', events: [], ...NO_IO, who: NOBODY },
      },
    ],
  },
  {
    title: 'lets a page of the allowed origin read responses and refusals',
    app: { cors: true },
    steps: [
      { ask: { lines: [ORIGIN, KEY] }, expect: passes(BY_KEY, { ...COLD, fields: ALLOWED }) },
      { ask: { lines: [ORIGIN] }, expect: problem('missing_key', { fields: ALLOWED }) },
      {
        ask: { lines: [ORIGIN, JUNK] },
        expect: refuses('invalid_key', { reason: 'malformed', fields: ALLOWED }),
      },
    ],
  },
]

export const CONNECTIONS: readonly Row[] = [
  {
    title: 'carries nothing over to the next request on the same connection',
    steps: [
      { ask: { lines: [KEY] }, expect: passes(BY_KEY, COLD) },
      {
        ask: { lines: [JUNK], onSameConnection: true },
        expect: refuses('invalid_key', { reason: 'malformed' }),
      },
      {
        ask: { lines: ['X-Api-Key: <Bob’s key>'], onSameConnection: true },
        expect: passes(BY_BOBS_KEY, COLD),
      },
      { ask: { lines: [], onSameConnection: true }, expect: problem('missing_key') },
      { ask: { lines: [KEY], onSameConnection: true }, expect: passes(BY_KEY, WARM) },
    ],
  },
  {
    title: 'gives each of 200 concurrent requests its own answer when no key is cached',
    steps: atOnce({
      events: ['key.refused invalid_key wrong_secret ×100'],
      store: ['find ×100'],
      limiter: ['check 1: admitted ×100'],
    }),
  },
  {
    title: 'gives each of 200 concurrent requests its own answer when every key is cached',
    given: ['the key is cached'],
    steps: atOnce({
      events: ['key.refused invalid_key wrong_secret ×100'],
      store: [],
      limiter: ['check 1: admitted ×100'],
    }),
  },
]

/** A hundred good keys and a hundred bad ones, in turn; each good one answers with its own id. */
function atOnce(happened: Partial<Outcome>): Row['steps'] {
  return [
    { times: 100, ask: { lines: [KEY] }, expect: passes(BY_KEY, happened) },
    {
      times: 100,
      ask: { lines: ['X-Api-Key: <wrong key>'] },
      expect: refuses('invalid_key', { events: [] }),
    },
  ]
}

const MINUTE = { name: 'minute', limit: 1, windowMs: 60_000 }

/** Applications that hand refusals on as errors and have no handler for them. */
export const RENDERING: readonly Row[] = [
  {
    title: 'keeps status and header fields of a refusal that the framework renders',
    app: { rendering: 'the framework’s', asks: { permissions: { projects: ['read'] } } },
    steps: [
      { ask: { lines: [] }, expect: problem('missing_key') },
      { ask: { lines: [JUNK] }, expect: refuses('invalid_key', { reason: 'malformed' }) },
      { ask: { lines: [KEY, KEY] }, expect: refuses('multiple_credentials') },
      { ask: { lines: [KEY] }, expect: refuses('insufficient_permissions', { store: ['find'] }) },
    ].map(({ ask, expect }) => ({ ask, expect: renderedByFramework(expect) })),
  },
  {
    title: 'keeps Retry-After and the limits of a refusal that the framework renders',
    app: { rendering: 'the framework’s' },
    key: { rateLimits: [MINUTE] },
    given: ['the key has been used once'],
    steps: [
      {
        ask: { lines: [KEY] },
        expect: renderedByFramework(
          refuses('rate_limited', {
            limiter: ['check 1: limited'],
            fields: {
              'Retry-After': '60',
              RateLimit: '"minute";r=0;t=60',
              'RateLimit-Policy': '"minute";q=1;w=60',
            },
          }),
        ),
      },
    ],
  },
  {
    title: 'keeps a fault that the framework renders out of caches',
    app: { rendering: 'the framework’s' },
    given: ['the store is down'],
    steps: [
      {
        ask: { lines: [KEY] },
        expect: renderedByFramework(refuses('unavailable', { events: ['fault store'], store: ['find'] })),
      },
    ],
  },
  {
    title: 'keeps status and header fields of a guard’s refusal that the framework renders',
    app: { rendering: 'the framework’s', keys: 'optional', guard: { name: 'requireSession' } },
    steps: [
      { ask: { lines: [] }, expect: renderedByFramework(guardRefuses('authentication_required', NOBODY)) },
      { ask: { lines: [KEY] }, expect: renderedByFramework(guardRefuses('session_required', BY_KEY, COLD)) },
    ],
  },
]

/** 127.0.0.1, from which the requests come, is the proxy. */
const BOUND = { key: { allowedIps: ['203.0.113.0/24'] } }

function forwarded(address: string, expect: Outcome) {
  return { ask: { lines: [KEY, `X-Forwarded-For: ${address}`] }, expect }
}

function notFrom(from: string, happened: Partial<Outcome> = {}): Outcome {
  const event = ['key.refused address_not_allowed', from && `from ${from}`].filter(Boolean).join(' ')
  return refuses('address_not_allowed', { ...happened, events: [event] })
}

/** The same where the address that a proxy names cannot be read. */
function unknownFrom(warnings: readonly string[] = [], happened: Partial<Outcome> = {}): Outcome {
  const refused = notFrom('', happened)
  return { ...refused, events: [...refused.events, 'address.missing', ...warnings] }
}

export const PROXIES: readonly Row[] = [
  {
    title: 'ignores X-Forwarded-For when no proxy is trusted',
    ...BOUND,
    steps: [
      forwarded('203.0.113.5', notFrom('', { store: ['find'] })),
      { ask: { lines: [KEY, 'X-Real-IP: 203.0.113.5', 'Forwarded: for=203.0.113.5'] }, expect: notFrom('') },
    ],
  },
  {
    title: 'believes the trusted proxy, and not what the client wrote before it',
    ...BOUND,
    app: { proxies: 1 },
    steps: [
      forwarded('203.0.113.5', passes(BY_KEY, COLD)),
      forwarded('198.51.100.1, 203.0.113.5', passes(BY_KEY, WARM)),
      forwarded('203.0.113.5, 198.51.100.1', notFrom('198.51.100.1')),
      { ask: { lines: [KEY] }, expect: notFrom('') },
    ],
  },
  {
    title: 'recognises an IPv4 address in IPv6 form',
    ...BOUND,
    app: { proxies: 1 },
    steps: [
      forwarded('::ffff:203.0.113.5', passes(BY_KEY, COLD)),
      forwarded('::ffff:198.51.100.1', notFrom('198.51.100.1')),
    ],
  },
  {
    title: 'ignores text that cannot be an address',
    ...BOUND,
    app: { proxies: 1 },
    steps: [
      forwarded('2'.repeat(300), unknownFrom(['warning LATCHKEY_NO_ADDRESS'], { store: ['find'] })),
      forwarded('203.0.113.5.evil.example', unknownFrom()),
    ],
  },
  {
    title: 'reads an address with a port and in brackets, as some proxies write it',
    ...BOUND,
    app: { proxies: 1 },
    steps: [
      forwarded('203.0.113.5:51234', passes(BY_KEY, COLD)),
      forwarded('[::ffff:203.0.113.5]:51234', passes(BY_KEY, WARM)),
      forwarded('[2001:db8::5]:51234', notFrom('2001:db8::5')),
    ],
  },
]
