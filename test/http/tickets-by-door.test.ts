import { connect, type OutgoingHttpHeaders } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { Controller, Get, Module, Post, Req } from '@nestjs/common'
import createFastify from 'fastify'
import { Hono } from 'hono'
import Koa from 'koa'
import { type ApiKey, createTickets, memoryTicketStore } from 'latchkey'
import * as expressDoor from 'latchkey/express'
import * as fastifyDoor from 'latchkey/fastify'
import * as fetchDoor from 'latchkey/fetch'
import * as koaDoor from 'latchkey/koa'
import { CurrentApiKey, type HttpRequest, LatchkeyModule, RequireKey } from 'latchkey/nest'
import { ApiKeyStrategy } from 'latchkey/passport'
import { Passport } from 'passport'
import { describe, expect, it, onTestFinished } from 'vitest'
import { PLATFORMS, serveNest } from '../nest/serve-nest.ts'
import { EXPRESSES } from '../support/expresses.ts'
import { issueKey } from '../support/issue-key.ts'
import { type Ask, serve } from '../support/raw-http.ts'
import { createTestKeys, type TestKeys } from '../support/test-keys.ts'

const ORIGIN = 'Origin: https://app.example.com'

type Doors = Record<
  string,
  (keys: TestKeys['keys'], tickets: ReturnType<typeof createTickets>) => Promise<Ask>
>

/** Answers with who is calling, and every text in which a handler could find the ticket. */
const DOORS: Doors = {
  ...Object.fromEntries(
    EXPRESSES.map(([name, express]) => [
      name,
      async (keys: TestKeys['keys'], tickets: ReturnType<typeof createTickets>) => {
        const app = express()
        app.use((req, _res, next) => {
          // Somebody has parsed the query before.
          void req.query.ticket
          next()
        })
        app.post('/tickets', expressDoor.apiKeyAuth(keys), async (req, res) => {
          res.json(await tickets.issue(req))
        })
        app.use(
          '/a',
          express.Router().get('/events', expressDoor.apiKeyAuth(keys, { tickets }), (req, res) => {
            const { url, originalUrl, query, baseUrl } = req
            const parsed = JSON.stringify((req as { _parsedUrl?: unknown })._parsedUrl)
            res.json({ id: req.apiKey?.id, seen: [url, baseUrl + url, originalUrl, query, parsed] })
          }),
        )
        return serve(app)
      },
    ]),
  ),
  async Passport(keys, tickets) {
    const [, express] = EXPRESSES[0] as (typeof EXPRESSES)[0]
    const passport = new Passport()
    passport.use(new ApiKeyStrategy({ keys, tickets }))
    const app = express()
    app.use(passport.authenticate('apikey'))
    app.post('/tickets', async (req, res) => {
      res.json(await tickets.issue(req))
    })
    app.get('/a/events', (req, res) => void res.json({ id: req.apiKey?.id, seen: [req.url, req.query] }))
    return serve(app)
  },
  async Koa(keys, tickets) {
    const app = new Koa()
    app.use((ctx, next) => {
      // Somebody has parsed the URL before.
      void ctx.URL
      return next()
    })
    app.use(koaDoor.apiKeyAuth(keys, { tickets }))
    app.use(async (ctx) => {
      const { url, originalUrl, href, URL, query, search, request } = ctx
      ctx.body =
        ctx.method === 'POST'
          ? await tickets.issue(ctx)
          : {
              id: ctx.state.apiKey?.id,
              seen: [url, originalUrl, href, URL, query, search, request.originalUrl, ctx.req.url],
            }
    })
    return serve(app.callback())
  },
  async Fastify(keys, tickets) {
    const app = createFastify()
    onTestFinished(() => app.close())
    await app.register(fastifyDoor.apiKeyPlugin, { keys, tickets })
    app.post('/tickets', { config: { apiKey: true } }, (request) => tickets.issue(request))
    app.get('/a/events', { config: { apiKey: true } }, (request) => {
      const { url, originalUrl, query, raw } = request
      return { id: request.apiKey?.id, seen: [url, originalUrl, query, raw.url] }
    })
    await app.ready()
    return serve((req, res) => void app.routing(req, res))
  },
  ...Object.fromEntries(
    PLATFORMS.map((platform) => [
      `Nest on ${platform}`,
      (keys: TestKeys['keys'], tickets: ReturnType<typeof createTickets>) => {
        @Controller()
        class Events {
          @Post('tickets')
          issue(@Req() req: object) {
            return tickets.issue(req)
          }
          @Get('a/events')
          @RequireKey()
          events(
            @Req() req: HttpRequest & { originalUrl: string; raw?: object },
            @CurrentApiKey() apiKey: ApiKey,
          ) {
            const { url, originalUrl, query, raw = {} } = req
            return { id: apiKey.id, seen: [url, originalUrl, query, (raw as { url?: string }).url] }
          }
        }
        class AppModule {}
        Module({ imports: [LatchkeyModule.forRoot({ keys, tickets })], controllers: [Events] })(AppModule)
        return serveNest(platform, AppModule)
      },
    ]),
  ),
  async 'Hono over fetch'(keys, tickets) {
    const authenticate = fetchDoor.apiKeyAuth(keys, { tickets })
    const app = new Hono()
    app.all('*', async (c) => {
      const caller = await authenticate(c.req.raw)
      if (!caller.ok) return caller.response
      if (c.req.method === 'POST') return c.json(await tickets.issue(c.req))
      return c.json({ id: caller.auth.apiKey.id, seen: [c.req.header('sec-websocket-protocol')] })
    })
    const { getRequestListener } = await import('@hono/node-server')
    return serve(getRequestListener(app.fetch))
  },
}

describe.each(Object.entries(DOORS))('%s', (name, open) => {
  async function start() {
    const { keys } = createTestKeys()
    const tickets = createTickets({ store: memoryTicketStore() })
    const { key, apiKey } = await issueKey(keys)
    const ask = await open(keys, tickets)
    const newTicket = async () => {
      const answer = await ask('/tickets', [`X-Api-Key: ${key}`, ORIGIN], { method: 'POST' })
      return answer.json().ticket as string
    }
    return { ask, newTicket, apiKey }
  }

  it('gives out tickets, takes them once, and hides them from what follows', async () => {
    const { ask, newTicket, apiKey } = await start()
    const ticket = await newTicket()
    const answer = await ask(`/a/events?x=1&ticket=${ticket}`, [ORIGIN])
    expect(answer.json()).toMatchObject({ id: apiKey.id })
    expect(answer.text).not.toContain(ticket)
    if (name !== 'Hono over fetch') expect(answer.text).toContain('/events?x=1')
    expect((await ask(`/a/events?x=1&ticket=${ticket}`, [ORIGIN])).status).toBe(401)
  })

  it('takes them from a list of subprotocols', async () => {
    const { ask, newTicket, apiKey } = await start()
    const ticket = await newTicket()
    const answer = await ask('/a/events', [ORIGIN, `Sec-WebSocket-Protocol: latchkey.ticket.${ticket}, chat`])
    expect(answer.json()).toMatchObject({ id: apiKey.id })
    expect(answer.text).not.toContain(ticket)
  })
})

describe('Fastify over HTTP/2', () => {
  it('hides tickets in the lines of the request too', async () => {
    const { keys } = createTestKeys()
    const tickets = createTickets({ store: memoryTicketStore() })
    const { key } = await issueKey(keys)
    const app = createFastify({ http2: true })
    onTestFinished(() => app.close())
    app.addHook('onRequest', fastifyDoor.apiKeyAuth(keys, { tickets }))
    app.post('/tickets', (request) => tickets.issue(request, { origin: null }))
    app.get('/events', ({ url, originalUrl, headers, raw }) => ({
      url,
      originalUrl,
      headers,
      lines: raw.rawHeaders,
    }))
    await app.listen({ host: '127.0.0.1', port: 0 })
    const session = connect(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}`)
    onTestFinished(() => session.close())
    const ask = async (fields: OutgoingHttpHeaders) => {
      let text = ''
      for await (const chunk of session.request(fields).setEncoding('utf8')) text += chunk
      return text
    }
    const issued = await ask({ ':method': 'POST', ':path': '/tickets', 'x-api-key': key })
    const { ticket } = JSON.parse(issued)
    const text = await ask({ ':path': `/events?ticket=${ticket}&x=1` })
    expect(JSON.parse(text)).toMatchObject({ url: '/events?x=1', headers: { ':path': '/events?x=1' } })
    expect(text).not.toContain(ticket)
  })
})
