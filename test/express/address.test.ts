import type { Express, Request, RequestHandler, Response } from 'express'
import { type ApiKeyAuthOptions, apiKeyAuth } from 'latchkey/express'
import { describe, expect, it, vi } from 'vitest'
import { EXPRESSES } from '../support/expresses.ts'
import { issueKey } from '../support/issue-key.ts'
import { serve } from '../support/raw-http.ts'
import { createTestKeys } from '../support/test-keys.ts'

const FORWARDED = 'X-Forwarded-For: 203.0.113.7, 198.51.100.2'

describe.each(EXPRESSES)('the address of a client on %s', (_name, createApp) => {
  /** The address that `keys` is told, and what `req.ip` is. */
  async function addressesOf(
    configure: (app: Express) => void,
    mount?: (inner: Express) => Express,
    options: ApiKeyAuthOptions = {},
  ) {
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys)
    const verify = vi.fn(keys.verifyEager)
    const app = createApp()
    configure(app)
    app.use(apiKeyAuth({ ...keys, verifyEager: verify }, options))
    app.use((req, res) => void res.json(req.ip ?? null))
    const ask = await serve(mount ? mount(app) : app)
    const { body } = await ask('/', [`X-Api-Key: ${key}`, FORWARDED])
    const [, asked] = verify.mock.lastCall ?? []
    return { told: asked?.ip, shown: JSON.parse(body) }
  }

  const defineIp: RequestHandler = (req, _res, next) => {
    Object.defineProperty(req, 'ip', { value: '192.0.2.1' })
    next()
  }

  it.each<[string, string, (app: Express) => void]>([
    ['where the request has an address of its own', '192.0.2.1', (app) => app.use(defineIp)],
    [
      'where the application reads another header',
      '203.0.113.7',
      (app) =>
        Object.defineProperty(app.request, 'ip', {
          get() {
            return this.headers['x-forwarded-for'].split(',')[0]
          },
        }),
    ],
    ['where one proxy is trusted', '198.51.100.2', (app) => app.set('trust proxy', 1)],
    ['where all proxies are trusted', '203.0.113.7', (app) => app.set('trust proxy', true)],
    ['where a function trusts', '203.0.113.7', (app) => app.set('trust proxy', () => true)],
    ['where nobody is trusted', '127.0.0.1', () => {}],
    [
      'where nobody is trusted any more',
      '127.0.0.1',
      (app) => app.enable('trust proxy').disable('trust proxy'),
    ],
  ])('is that of req.ip %s', async (_where, address, configure) => {
    const { told, shown } = await addressesOf(configure)
    expect([told, shown]).toEqual([address, address])
  })

  it('is that of req.ip in an application that is mounted on one which trusts a proxy', async () => {
    const mount = (inner: Express) => createApp().set('trust proxy', 1).use(inner)
    const { told, shown } = await addressesOf(() => {}, mount)
    expect([told, shown]).toEqual(['198.51.100.2', '198.51.100.2'])
  })

  it.each<[string, unknown, string | undefined]>([
    ['a number', 7, undefined],
    ['empty', '', undefined],
    ['longer than any address', 'a'.repeat(256), undefined],
    ['as long as an address may be', 'a'.repeat(255), 'a'.repeat(255)],
  ])('is what the option `ip` answers, or missing if that is %s', async (_what, answer, told) => {
    const ip = () => answer as string
    expect((await addressesOf(() => {}, undefined, { ip })).told).toBe(told)
  })

  it('need not be known: a request without an application authenticates too', async () => {
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys)
    const authenticate = apiKeyAuth(keys)
    const ask = await serve((req, res) => authenticate(req as Request, res as Response, () => res.end('in')))
    expect(await ask('/', [`X-Api-Key: ${key}`])).toMatchObject({ status: 200, body: 'in' })
  })

  it('is read from the socket, without asking Express, where nobody is trusted', async () => {
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys)
    const app = createApp()
    app.use(apiKeyAuth(keys), (_req, res) => void res.end())
    const ask = await serve(app)
    const settings = vi.spyOn(app, 'get')
    await ask('/', [`X-Api-Key: ${key}`])
    expect(settings.mock.calls).not.toContainEqual(['trust proxy fn'])
  })
})
