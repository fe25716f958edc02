import express, { type Express, type RequestHandler } from 'express'
import type { ApiKeys } from 'latchkey'
import { apiKeyAuth, apiKeyErrorHandler, getAuth } from 'latchkey/express'
import { ApiKeyStrategy } from 'latchkey/passport'
import { Authenticator } from 'passport'
import { Strategy as PassportStrategy } from 'passport-strategy'
import { describe, expect, it } from 'vitest'
import { EXPRESSES } from '../support/expresses.ts'
import { issueKey, issueWarmKey } from '../support/issue-key.ts'
import { type Ask, serve } from '../support/raw-http.ts'
import { createTestKeys, forgeKey } from '../support/test-keys.ts'

const LIMIT = 3
const JUNK = 'X-Api-Key: junk'

function keyLine({ key }: { key: string }): string {
  return `X-Api-Key: ${key}`
}

/** Stands for a strategy that would let everybody in. */
class EverybodyStrategy extends PassportStrategy {
  override authenticate(): void {
    this.success({ name: 'Everybody' })
  }
}

function passportOf(keys: ApiKeys, names: string | string[] = 'apikey'): RequestHandler {
  const passport = new Authenticator()
  passport.use(new ApiKeyStrategy({ keys, refuseWith: 'fail' }))
  passport.use('everybody', new EverybodyStrategy())
  return passport.authenticate(names, { session: false })
}

/** Every way by which requests are authenticated. */
const WAYS = EXPRESSES.flatMap(([name, createApp]) => [
  [`apiKeyAuth on ${name}`, createApp, (keys: ApiKeys) => apiKeyAuth(keys)] as const,
  [`Passport on ${name}`, createApp, (keys: ApiKeys) => passportOf(keys)] as const,
])

interface Parts {
  createApp?: typeof express
  authenticate?: (keys: ApiKeys) => RequestHandler
  set?: (app: Express) => void
}

/** An application whose keys block an address after the third invalid key. */
async function start({ createApp = express, authenticate = apiKeyAuth, set }: Parts = {}) {
  const test = createTestKeys({ failedAttempts: { limit: LIMIT } })
  const app = createApp()
  set?.(app)
  app.use(authenticate(test.keys))
  app.use((req, res) => {
    res.json(getAuth(req))
  })
  app.use(apiKeyErrorHandler())
  const ask = await serve(app)
  const cold = keyLine(await issueKey(test.keys))
  const blockedAddresses = () => test.eventsOf('address.blocked').map(({ address }) => address)
  return { ...test, ask, cold, blockedAddresses }
}

async function fail(ask: Ask, lines: (i: number) => string[] = () => [JUNK], times = LIMIT): Promise<void> {
  for (let i = 0; i < times; i++) expect((await ask('/', lines(i))).status).toBe(401)
}

const from = (addresses: string) => `X-Forwarded-For: ${addresses}`

describe.each(WAYS)(
  'an address that has sent too many invalid keys to %s',
  (_way, createApp, authenticate) => {
    it('is answered with 429 and how long to wait', async () => {
      const { ask, cold, clock } = await start({ createApp, authenticate })
      await fail(ask)
      await clock.advance(30_500)
      const answer = await ask('/', [cold])
      expect(answer.status).toBe(429)
      expect(answer.header('Retry-After')).toBe('30')
      expect(answer.header('Cache-Control')).toBe('no-store')
      expect(answer.header('Content-Type')).toBe('application/problem+json')
      expect(answer.json()).toEqual({
        type: 'urn:problem-type:latchkey:too_many_failures',
        title: 'Too many invalid API keys from this address',
        status: 429,
        code: 'too_many_failures',
      })
      for (const name of ['WWW-Authenticate', 'RateLimit', 'RateLimit-Policy', 'Set-Cookie']) {
        expect(answer.header(name), name).toBeUndefined()
      }
    })

    it('is answered alike for a good key, a wrong secret and an unknown key', async () => {
      const { ask, cold, keys } = await start({ createApp, authenticate })
      const { key } = await issueWarmKey(keys)
      await fail(ask)
      const answers = []
      for (const line of [
        cold,
        keyLine({ key: forgeKey(key, { secret: 'x'.repeat(43) }) }),
        keyLine({ key: forgeKey(key, { keyId: 'A'.repeat(16) }) }),
      ]) {
        const { lines, body } = await ask('/', [line])
        answers.push({ lines: lines.filter((line) => !line.startsWith('Date: ')), body })
      }
      expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1)
    })

    it('is told of a malformed key what it always was', async () => {
      const { ask } = await start({ createApp, authenticate })
      const before = await ask('/', [JUNK])
      await fail(ask, undefined, 2 * LIMIT)
      const after = await ask('/', [JUNK])
      expect(after.status).toBe(401)
      const dateless = (lines: readonly string[]) => lines.filter((line) => !line.startsWith('Date: '))
      expect(dateless(after.lines)).toEqual(dateless(before.lines))
      expect(after.body).toBe(before.body)
    })

    it('has its good keys pass that were verified here lately', async () => {
      const { ask, keys } = await start({ createApp, authenticate })
      const issued = await issueWarmKey(keys)
      await fail(ask)
      const answer = await ask('/', [keyLine(issued)])
      expect(answer.status).toBe(200)
      expect(answer.json()).toMatchObject({ method: 'apikey', apiKey: { id: issued.apiKey.id } })
    })

    it('has every key looked at again once the window has ended', async () => {
      const { ask, cold, clock } = await start({ createApp, authenticate })
      await fail(ask)
      await clock.advance(60_000)
      expect((await ask('/', [cold])).status).toBe(200)
    })

    it('is blocked neither by requests without a key nor by those with two', async () => {
      const { ask, cold } = await start({ createApp, authenticate })
      await fail(ask, () => [], 2 * LIMIT)
      for (let i = 0; i < 2 * LIMIT; i++) expect((await ask('/', [JUNK, JUNK])).status).toBe(400)
      expect((await ask('/', [cold])).status).toBe(200)
    })

    it('cannot pass for another by a header that nobody vouches for', async () => {
      const { ask, cold, blockedAddresses } = await start({ createApp, authenticate })
      await fail(ask, (i) => [JUNK, from(`203.0.113.${i}`), `X-Real-IP: 203.0.113.${i}`])
      expect(blockedAddresses()).toEqual(['127.0.0.1'])
      expect((await ask('/', [cold, from('203.0.113.9')])).status).toBe(429)
    })

    it('is the address that a trusted proxy names', async () => {
      const set = (app: Express) => app.set('trust proxy', 'loopback')
      const { ask, cold, blockedAddresses } = await start({ createApp, authenticate, set })
      // What the client itself puts in front changes nothing.
      await fail(ask, (i) => [JUNK, from(`198.51.100.${i}, 203.0.113.7`)])
      expect(blockedAddresses()).toEqual(['203.0.113.7'])
      expect((await ask('/', [cold, from('198.51.100.9, 203.0.113.7')])).status).toBe(429)
      expect((await ask('/', [cold, from('::ffff:203.0.113.7')])).status).toBe(429)
      expect((await ask('/', [cold, from('203.0.113.8')])).status).toBe(200)
      expect((await ask('/', [cold])).status).toBe(200)
    })

    it('is a network of 64 bits under IPv6', async () => {
      const set = (app: Express) => app.set('trust proxy', 'loopback')
      const { ask, cold, blockedAddresses } = await start({ createApp, authenticate, set })
      await fail(ask, (i) => [JUNK, from(`2001:db8:0:1::${i}`)])
      expect(blockedAddresses()).toEqual(['2001:db8:0:1::/64'])
      expect((await ask('/', [cold, from('2001:db8:0:1:a:b:c:d')])).status).toBe(429)
      expect((await ask('/', [cold, from('2001:db8:0:2::1')])).status).toBe(200)
    })

    it('is the same from every port', async () => {
      const set = (app: Express) => app.set('trust proxy', 1)
      const { ask, cold, blockedAddresses } = await start({ createApp, authenticate, set })
      await fail(ask, (i) => [JUNK, from(`203.0.113.7:${40_000 + i}`)])
      expect(blockedAddresses()).toEqual(['203.0.113.7'])
      expect((await ask('/', [cold, from('203.0.113.7:50000')])).status).toBe(429)
      expect((await ask('/', [cold, from('203.0.113.8:40000')])).status).toBe(200)
    })

    it.each([
      ['junk', 'junk'],
      ['an address with what is no port', '203.0.113.7:https'],
      ['what is far too long', '9'.repeat(5_000)],
    ])('is none where a proxy that is trusted too far names %s', async (_what, address) => {
      const set = (app: Express) => app.set('trust proxy', true)
      const { ask, cold, blockedAddresses } = await start({ createApp, authenticate, set })
      await fail(ask, () => [JUNK, from(address)], 2 * LIMIT)
      expect(blockedAddresses()).toEqual([])
      expect((await ask('/', [cold, from(address)])).status).toBe(200)
    })
  },
)

describe('a request from a blocked address', () => {
  it('is refused also where a key is not required', async () => {
    const authenticate = (keys: ApiKeys) => apiKeyAuth(keys, { required: false })
    const { ask, cold } = await start({ authenticate })
    await fail(ask)
    expect((await ask('/', [cold])).status).toBe(429)
    expect((await ask('/')).status).toBe(200)
  })

  it('is not let in by a later strategy', async () => {
    const authenticate = (keys: ApiKeys) => passportOf(keys, ['apikey', 'everybody'])
    const { ask, cold } = await start({ authenticate })
    for (let i = 0; i < LIMIT; i++) {
      // Passport lets it in, and the mark says what it is all the same.
      expect((await ask('/', [JUNK])).json()).toEqual({ method: 'rejected', code: 'invalid_key' })
    }
    expect((await ask('/', [cold])).status).toBe(429)
  })

  it('is marked as rejected for what it is, where the application renders refusals', async () => {
    const { keys } = createTestKeys({ failedAttempts: { limit: 1 } })
    const app = express()
    app.use(apiKeyAuth(keys, { refuseWith: 'error' }))
    const render: express.ErrorRequestHandler = (error, req, res, _next) => {
      res.status(error.status).set(error.headers).json(getAuth(req))
    }
    app.use(render)
    const ask = await serve(app)
    await ask('/', [JUNK])
    const answer = await ask('/', [keyLine(await issueKey(keys))])
    expect(answer.status).toBe(429)
    expect(answer.header('Retry-After')).toBe('60')
    expect(answer.json()).toEqual({ method: 'rejected', code: 'too_many_failures' })
  })

  it('is known by the address that the application reads', async () => {
    const authenticate = (keys: ApiKeys) => apiKeyAuth(keys, { ip: (req) => req.get('X-Client') })
    const { ask, cold, blockedAddresses } = await start({ authenticate })
    await fail(ask, () => [JUNK, 'X-Client: 203.0.113.7'])
    expect(blockedAddresses()).toEqual(['203.0.113.7'])
    expect((await ask('/', [cold, 'X-Client: 203.0.113.7'])).status).toBe(429)
    expect((await ask('/', [cold, 'X-Client: 203.0.113.8'])).status).toBe(200)
  })
})
