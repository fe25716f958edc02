import { inspect } from 'node:util'
import express from 'express'
import {
  type ApiKeyEvent,
  createTickets,
  isLatchkeyError,
  memoryTicketStore,
  type TicketStore,
  type TicketsOptions,
} from 'latchkey'
import {
  type ApiKeyAuthOptions,
  apiKeyAuth,
  apiKeyErrorHandler,
  getAuth,
  markSession,
} from 'latchkey/express'
import { remoteApiKeys } from 'latchkey/remote'
import { describe, expect, it, vi } from 'vitest'
import { INVALID } from '../support/challenges.ts'
import { fakeClock, settle } from '../support/fake-clock.ts'
import { issueKey } from '../support/issue-key.ts'
import { serve } from '../support/raw-http.ts'
import { createTestKeys } from '../support/test-keys.ts'

const ORIGIN = 'https://app.example.com'

interface SetUp {
  tickets?: Partial<TicketsOptions>
  keys?: Parameters<typeof createTestKeys>[0]
  guard?: ApiKeyAuthOptions
}

/** An application that gives out tickets and takes them, and what a later middleware could have logged. */
async function start(given: SetUp = {}) {
  const clock = fakeClock()
  const world = createTestKeys({ clock, ...given.keys })
  const kept = new Map<string, string>()
  const memory = memoryTicketStore({ clock })
  const store: TicketStore = {
    put(id, sealed, ttlMs) {
      kept.set(id, sealed)
      return memory.put(id, sealed, ttlMs)
    },
    take: (id) => memory.take(id),
  }
  const tickets = createTickets({ store, clock, ...given.tickets })
  const { key, apiKey } = await issueKey(world.keys, { permissions: { chat: ['read'] } })
  const logged: unknown[] = []
  const app = express()
  app.set('trust proxy', true)
  app.post('/tickets', apiKeyAuth(world.keys, { tickets, required: false }), async (req, res) => {
    res.json(await tickets.issue(req))
  })
  app.get('/events', apiKeyAuth(world.keys, { tickets, ...given.guard }), async (req, res) => {
    logged.push(inspect({ url: req.url, original: req.originalUrl, query: req.query, raw: req.rawHeaders }))
    const again = req.query.again ? await tickets.issue(req) : null
    res.json({ method: getAuth(req).method, id: req.apiKey?.id, url: req.originalUrl, again })
  })
  app.get('/without', apiKeyAuth(world.keys), (_req, res) => void res.json('in'))
  app.use(apiKeyErrorHandler())
  const ask = await serve(app)
  const issue = async (lines = [`X-Api-Key: ${key}`, `Origin: ${ORIGIN}`]) =>
    ask('/tickets', lines, { method: 'POST' })
  const redeem = (ticket: unknown, lines = [`Origin: ${ORIGIN}`]) => ask(`/events?ticket=${ticket}`, lines)
  const newTicket = async () => (await issue()).json().ticket as string
  return { ...world, tickets, store, memory, kept, key, apiKey, ask, issue, redeem, newTicket, logged }
}

const codeOf = async (answer: Promise<{ status: number; json(): Record<string, unknown> }>) => {
  const { status, json } = await answer
  return [status, json().code]
}

describe('a ticket', () => {
  it('lets its bearer in once, as the key that asked for it', async () => {
    const { issue, redeem, apiKey, clock } = await start()
    const { ticket, expiresAt } = (await issue()).json()
    expect(ticket).toMatch(/^[A-Za-z0-9_-]{43}$/)
    expect(expiresAt).toBe(new Date(clock.now() + 30_000).toISOString())
    const first = await redeem(ticket)
    expect(first.json()).toMatchObject({ method: 'apikey', id: apiKey.id, url: '/events' })
    const second = await redeem(ticket)
    expect([second.status, second.json().code]).toEqual([401, 'invalid_key'])
    expect(second.header('WWW-Authenticate')).toBe(INVALID)
  })

  it('lets in one of a hundred at once', async () => {
    const { newTicket, redeem } = await start()
    const ticket = await newTicket()
    const answers = await Promise.all(Array.from({ length: 100 }, () => redeem(ticket)))
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1)
    expect(answers.filter(({ status }) => status === 401)).toHaveLength(99)
  })

  it('expires', async () => {
    const { newTicket, redeem, clock } = await start()
    const [first, second] = [await newTicket(), await newTicket()]
    await clock.advance(29_999)
    expect((await redeem(first)).status).toBe(200)
    await clock.advance(1)
    expect((await redeem(second)).status).toBe(401)
  })

  it('expires even in a store that keeps it', async () => {
    const { newTicket, redeem, clock, kept, memory } = await start({ tickets: { ttlMs: 1_000 } })
    const ticket = await newTicket()
    await clock.advance(1_000)
    for (const [id, sealed] of kept) await memory.put(id, sealed, 60_000)
    expect((await redeem(ticket)).status).toBe(401)
  })

  it.each([
    ['another origin', ['Origin: https://evil.example']],
    ['an opaque origin', ['Origin: null']],
    ['no origin', []],
    ['two origins', [`Origin: ${ORIGIN}`, `Origin: ${ORIGIN}`]],
    ['the origin in other letters', ['Origin: https://APP.example.com']],
  ])('is of no use to %s, and is used up by the attempt', async (_whose, lines) => {
    const { newTicket, redeem } = await start()
    const ticket = await newTicket()
    expect(await codeOf(redeem(ticket, lines))).toEqual([401, 'invalid_key'])
    expect((await redeem(ticket)).status).toBe(401)
  })

  it('of a request without an origin is for requests without one', async () => {
    const { issue, redeem, key } = await start()
    const ticket = async () => (await issue([`X-Api-Key: ${key}`])).json().ticket
    expect((await redeem(await ticket(), ['Origin: null'])).status).toBe(401)
    expect((await redeem(await ticket(), [])).status).toBe(200)
  })

  it('takes the origin that the application names', async () => {
    const { tickets, keys, key, redeem } = await start()
    const app = express()
    app.post('/for/:where', apiKeyAuth(keys), async (req, res) => {
      const origin = req.params.where === 'same' ? null : ORIGIN
      res.json(await tickets.issue(req, { origin }))
    })
    const ask = await serve(app)
    const get = async (path: string) =>
      (await ask(path, [`X-Api-Key: ${key}`, 'Origin: https://backend.example'], { method: 'POST' })).json()
        .ticket
    expect((await redeem(await get('/for/page'))).status).toBe(200)
    expect((await redeem(await get('/for/same'), [])).status).toBe(200)
  })

  const CHANGES: [string, (world: Awaited<ReturnType<typeof start>>) => Promise<unknown>, number][] = [
    ['was revoked', ({ keys, apiKey }) => keys.revoke(apiKey.id), 401],
    ['was narrowed', ({ keys, apiKey }) => keys.update(apiKey.id, { permissions: {} }), 401],
    ['was changed in any other way', ({ keys, apiKey }) => keys.update(apiKey.id, { name: 'other' }), 401],
    ['was rotated, and still works', ({ keys, apiKey }) => keys.rotate(apiKey.id), 401],
  ]
  it.each(CHANGES)('is invalid once its key %s', async (_what, change, status) => {
    const world = await start()
    const ticket = await world.newTicket()
    await change(world)
    expect(await codeOf(world.redeem(ticket))).toEqual([status, 'invalid_key'])
  })

  it('spends what the key would spend, once, and nothing when it is refused', async () => {
    const minute = { name: 'minute', limit: 10, windowMs: 60_000 }
    const { newTicket, redeem, keys, apiKey } = await start({ keys: { rateLimits: [minute] } })
    const left = async () => (await keys.limits(apiKey.id))?.[0]?.remaining
    const [good, stale] = [await newTicket(), await newTicket()]
    expect(await left()).toBe(8)
    expect((await redeem(good)).header('RateLimit')).toBe('"minute";r=7;t=60')
    await keys.update(apiKey.id, { name: 'other' })
    expect((await redeem(stale)).status).toBe(401)
    expect(await left()).toBe(7)
  })

  it('shows the limits also where it spends nothing', async () => {
    const minute = { name: 'minute', limit: 10, windowMs: 60_000 }
    const { newTicket, redeem } = await start({ keys: { rateLimits: [minute] }, guard: { cost: 0 } })
    expect((await redeem(await newTicket())).header('RateLimit')).toBe('"minute";r=9;t=60')
  })

  it('is refused where the key would be: permissions, addresses, limits', async () => {
    const limited = await start({ guard: { permissions: { chat: ['write'] } } })
    expect(await codeOf(limited.redeem(await limited.newTicket()))).toEqual([403, 'insufficient_permissions'])
    const spent = await start({ keys: { rateLimits: [{ name: 'minute', limit: 1, windowMs: 60_000 }] } })
    expect(await codeOf(spent.redeem(await spent.newTicket()))).toEqual([429, 'rate_limited'])
  })

  it.each([
    ['beside a key', (ticket: string, key: string) => [`/events?ticket=${ticket}`, [`X-Api-Key: ${key}`]]],
    ['twice', (ticket: string) => [`/events?ticket=${ticket}&ticket=${ticket}`, []]],
    [
      'in two places',
      (ticket: string) => [
        `/events?ticket=${ticket}`,
        [`Sec-WebSocket-Protocol: chat, latchkey.ticket.${ticket}`],
      ],
    ],
  ] as [string, (ticket: string, key: string) => [string, string[]]][])(
    'is one credential too many %s',
    async (_how, request) => {
      const { newTicket, key, ask } = await start()
      const [path, lines] = request(await newTicket(), key)
      expect(await codeOf(ask(path, [...lines, `Origin: ${ORIGIN}`]))).toEqual([400, 'multiple_credentials'])
    },
  )

  it('is nothing where tickets are not taken, and in other methods than GET', async () => {
    const { newTicket, ask } = await start()
    const ticket = await newTicket()
    expect(await codeOf(ask(`/without?ticket=${ticket}`))).toEqual([401, 'missing_key'])
    expect(await codeOf(ask(`/tickets?ticket=${ticket}`, [], { method: 'POST' }))).toEqual([
      401,
      'missing_key',
    ])
  })

  it.each(['', 'x', 'A'.repeat(43), 'A'.repeat(44), '../../etc', '%00', 'a%2Cb'])(
    'that nobody issued is refused: %j',
    async (text) => {
      const { redeem, eventsOf } = await start()
      expect(await codeOf(redeem(text))).toEqual([401, 'invalid_key'])
      expect(eventsOf('key.refused')).toMatchObject([
        { code: 'invalid_key', reason: 'invalid_ticket', keyId: null },
      ])
    },
  )

  it('begets no tickets', async () => {
    const { newTicket, ask, kept } = await start()
    const ticket = await newTicket()
    const answer = await ask(`/events?again=1&ticket=${ticket}`, [`Origin: ${ORIGIN}`])
    expect([answer.status, answer.json().code]).toEqual([403, 'api_key_required'])
    expect(kept.size).toBe(1)
  })

  it('is redeemed once by several guards of a request', async () => {
    const { tickets, keys, newTicket, apiKey, eventsOf } = await start()
    const app = express()
    app.use(apiKeyAuth(keys, { tickets, required: false }), apiKeyAuth(keys, { tickets }))
    app.get('/', apiKeyAuth(keys, { tickets, permissions: { chat: ['read'] } }), (req, res) => {
      res.json(req.apiKey?.id)
    })
    const ask = await serve(app)
    const answer = await ask(`/?ticket=${await newTicket()}`, [`Origin: ${ORIGIN}`])
    expect(answer.body).toBe(JSON.stringify(apiKey.id))
    expect(eventsOf('key.refused')).toEqual([])
  })

  it('is refused by a later guard that takes none, also where keys are optional', async () => {
    const { tickets, keys, newTicket } = await start()
    const app = express()
    app.use(apiKeyAuth(keys, { tickets, required: false }))
    const admin = { admin: ['write'] }
    app.get(
      '/',
      apiKeyAuth(keys, { required: false, permissions: admin }),
      (_req, res) => void res.json('in'),
    )
    app.get('/key', apiKeyAuth(keys), (_req, res) => void res.json('in'))
    const ask = await serve(app)
    expect((await ask('/')).body).toBe('"in"')
    for (const path of ['/', '/key']) {
      const answer = await ask(`${path}?ticket=${await newTicket()}`, [`Origin: ${ORIGIN}`])
      expect([answer.status, answer.json().code]).toEqual([401, 'missing_key'])
    }
  })

  it('decides beside a session: a bad one does not fall back to it', async () => {
    const { tickets, keys } = await start()
    const app = express()
    app.use(markSession({ user: () => ({ id: 'u_1' }) }), apiKeyAuth(keys, { tickets, required: false }))
    app.get('/', (req, res) => void res.json(getAuth(req).method))
    const ask = await serve(app)
    expect((await ask('/')).body).toBe('"session"')
    expect((await ask(`/?ticket=${'A'.repeat(43)}`)).status).toBe(401)
  })

  it('that nobody issued is no failed attempt: any website could block the addresses of its visitors', async () => {
    const { redeem, key, ask, eventsOf } = await start({ keys: { failedAttempts: { limit: 3 } } })
    for (let i = 0; i < 3; i += 1) await redeem('A'.repeat(43), ['Origin: https://evil.example'])
    await settle()
    expect(eventsOf('address.blocked')).toEqual([])
    expect((await ask('/without', [`X-Api-Key: ${key}`])).status).toBe(200)
  })
})

describe('keys that another service verifies', () => {
  it('take tickets, and tell of wrong ones', async () => {
    const { tickets, keys, newTicket, apiKey } = await start()
    const app = express()
    app.use(apiKeyAuth({ verify: keys.verify }, { tickets }), (req, res) => void res.json(req.apiKey?.id))
    const ask = await serve(app)
    const ticket = await newTicket()
    expect((await ask(`/?ticket=${ticket}`, [`Origin: ${ORIGIN}`])).body).toBe(JSON.stringify(apiKey.id))
    expect((await ask(`/?ticket=${ticket}`, [`Origin: ${ORIGIN}`])).status).toBe(401)

    const seen: string[] = []
    const onEvent = ({ type }: ApiKeyEvent) => void seen.push(type)
    const remote = remoteApiKeys({ verify: vi.fn() }, { failedAttempts: { limit: 1 }, onEvent })
    const guarded = await serve(express().use(apiKeyAuth(remote, { tickets, bearer: false })))
    for (let i = 0; i < 2; i += 1) await guarded(`/?ticket=${'A'.repeat(43)}`)
    await settle()
    expect(seen).toEqual(['key.refused', 'key.refused'])
  })
})

describe('who gets a ticket', () => {
  it.each([
    ['nobody', [], 401, 'missing_key'],
    ['whoever has a bad key', ['X-Api-Key: bad'], 401, 'invalid_key'],
    ['a request with an endless origin', [`Origin: ${'x'.repeat(513)}`], 400, 'invalid_request'],
  ])('is not: %s', async (_who, lines, status, code) => {
    const { issue, key, kept } = await start()
    const sent = status === 400 ? [...lines, `X-Api-Key: ${key}`] : lines
    expect(await codeOf(issue(sent))).toEqual([status, code])
    expect(kept.size).toBe(0)
  })

  it('is not a session, nor a request that nobody has looked at, nor one whose user was exchanged', async () => {
    const { tickets, keys, key } = await start()
    const app = express()
    app.use('/session', markSession({ user: () => ({ id: 'u_1' }) }))
    app.use('/replaced', apiKeyAuth(keys), (req, _res, next) => {
      req.user = { id: 'other' }
      next()
    })
    app.use(async (req, res) => {
      const error: unknown = await tickets.issue(req).catch((reason: unknown) => reason)
      res.json(isLatchkeyError(error) ? error.code : 'issued')
    })
    const ask = await serve(app)
    expect((await ask('/session')).body).toBe('"api_key_required"')
    expect((await ask('/', [`X-Api-Key: ${key}`])).body).toBe('"missing_key"')
    expect((await ask('/replaced', [`X-Api-Key: ${key}`])).body).toBe('"api_key_required"')
  })
})

describe('a store of tickets that fails', () => {
  const FAULT = new Error('connection refused')
  const FAULTS: [string, () => never | Promise<never>][] = [
    [
      'throws',
      () => {
        throw FAULT
      },
    ],
    ['rejects', () => Promise.reject(FAULT)],
  ]
  it.each(FAULTS)('is a 503 where it %s', async (_how, fault) => {
    const { issue, redeem, newTicket, store, eventsOf } = await start()
    const ticket = await newTicket()
    vi.spyOn(store, 'take').mockImplementation(fault)
    vi.spyOn(store, 'put').mockImplementation(fault)
    expect(await codeOf(redeem(ticket))).toEqual([503, 'unavailable'])
    expect(await codeOf(issue())).toEqual([503, 'unavailable'])
    const faults = eventsOf('fault').map(({ operation, error }) => [operation, error])
    expect(faults).toEqual([
      ['tickets', FAULT],
      ['tickets', FAULT],
    ])
  })

  it('is a 503 after timeoutMs where it hangs', async () => {
    const { redeem, newTicket, store, clock } = await start({ keys: { timeoutMs: 500 } })
    const ticket = await newTicket()
    const take = vi.spyOn(store, 'take').mockReturnValue(new Promise(() => {}))
    const asked = codeOf(redeem(ticket))
    await vi.waitFor(() => expect(take).toHaveBeenCalled())
    await clock.advance(500)
    expect(await asked).toEqual([503, 'unavailable'])
  })
})

describe('what is kept and shown of a ticket', () => {
  it('is no key and no ticket in the store', async () => {
    const { newTicket, kept, key, apiKey } = await start()
    const ticket = await newTicket()
    const all = JSON.stringify([...kept])
    const decoded = [...kept.values()].map((text) => Buffer.from(text, 'base64url').toString('latin1')).join()
    for (const secret of [ticket, key, apiKey.id, ORIGIN]) {
      expect(all).not.toContain(secret)
      expect(decoded).not.toContain(secret)
    }
  })

  it('opens with that ticket alone: whoever writes to the store makes none', async () => {
    const { newTicket, redeem, kept, memory } = await start()
    const [one, other] = [await newTicket(), await newTicket()]
    const [[idOfOne], [, sealedOther]] = [...kept] as [[string, string], [string, string]]
    const cases = [
      sealedOther,
      '',
      'AAAA',
      'A'.repeat(400),
      JSON.stringify({ key: 'x' }),
      sealedOther.slice(0, -2),
    ]
    for (const forged of cases) {
      await memory.put(idOfOne, forged, 30_000)
      expect((await redeem(one)).status).toBe(401)
    }
    expect((await redeem(other)).status).toBe(200)
  })

  it('is nothing in the request that handlers see, in events, or in errors', async () => {
    const { newTicket, redeem, ask, logged, events } = await start()
    const tickets = [await newTicket(), await newTicket(), await newTicket()]
    await redeem(tickets[0])
    await redeem(tickets[0])
    await ask(`/events?a=1&ticket=${tickets[1]}&b=%20`, [`Origin: ${ORIGIN}`])
    const protocol = [`Origin: ${ORIGIN}`, `sec-websocket-protocol: chat,latchkey.ticket.${tickets[2]}`]
    expect((await ask('/events', protocol)).status).toBe(200)
    const seen = inspect([logged, events], { depth: 9 })
    for (const ticket of tickets) expect(seen).not.toContain(ticket)
    expect(logged[1]).toContain("url: '/events?a=1&b=%20'")
    expect(logged[2]).toContain("'chat'")
  })

  it('is nothing of the key in what inspecting the request shows', async () => {
    const { tickets, keys, key, newTicket } = await start()
    let shown = ''
    const app = express()
    app.get('/', apiKeyAuth(keys, { tickets }), (req, res) => {
      shown = inspect(req, { depth: 9, showHidden: true })
      res.end()
    })
    const ask = await serve(app)
    const ticket = await newTicket()
    await ask(`/?ticket=${ticket}`, [`Origin: ${ORIGIN}`])
    expect(shown).toContain('IncomingMessage')
    expect(shown).not.toContain(key)
  })
})

describe('createTickets()', () => {
  it.each([
    ['no store', {}, '"store" must have a method "put"'],
    ['a store that only gives', { store: { take() {} } }, '"store" must have a method "put"'],
    ['a misspelt option', { store: memoryTicketStore(), ttl: 5 }, 'did you mean "ttlMs"'],
    ['a life of more than five minutes', { store: memoryTicketStore(), ttlMs: 300_001 }, '"ttlMs" must be'],
  ])('refuses %s', (_what, options, message) => {
    expect(() => createTickets(options as never)).toThrow(message)
  })

  it('refuses to issue with options that are wrong', async () => {
    const { tickets, keys, key } = await start()
    const app = express()
    const errors: unknown[] = []
    app.use(apiKeyAuth(keys), async (req, res) => {
      for (const options of [{ origins: 'x' }, { origin: 5 }, { origin: '' }]) {
        await tickets.issue(req, options as never).catch((error: unknown) => errors.push(String(error)))
      }
      res.end()
    })
    await (await serve(app))('/', [`X-Api-Key: ${key}`])
    expect(errors).toEqual([
      expect.stringContaining('did you mean "origin"'),
      expect.stringContaining('"origin" must be a non-empty string'),
      expect.stringContaining('"origin" must be a non-empty string'),
    ])
  })

  it('must be what the option "tickets" of a guard gets', () => {
    const { keys } = createTestKeys()
    expect(() => apiKeyAuth(keys, { tickets: {} as never })).toThrow('"tickets" must have a method "redeem"')
  })
})

describe('memoryTicketStore()', () => {
  it('drops the oldest beyond maxEntries', async () => {
    const store = memoryTicketStore({ maxEntries: 2 })
    for (const id of ['a', 'b', 'c']) await store.put(id, id, 1_000)
    expect([await store.take('a'), await store.take('b'), await store.take('c')]).toEqual([null, 'b', 'c'])
    expect(await store.take('c')).toBeNull()
  })

  it.each([
    [{ maxEntries: 0 }, '"maxEntries" must be a positive integer'],
    [{ maxentries: 1 }, 'did you mean "maxEntries"'],
  ])('refuses %j', (options, message) => {
    expect(() => memoryTicketStore(options as never)).toThrow(message)
  })
})

describe('an event of a ticket', () => {
  it('names the key where that has changed', async () => {
    const { newTicket, redeem, keys, apiKey, eventsOf } = await start()
    const ticket = await newTicket()
    await keys.update(apiKey.id, { name: 'other' })
    await redeem(ticket)
    const [refused] = eventsOf('key.refused') as Extract<ApiKeyEvent, { type: 'key.refused' }>[]
    expect(refused).toMatchObject({ reason: 'invalid_ticket', keyId: apiKey.id })
  })
})
