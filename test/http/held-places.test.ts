import { createServer, type IncomingMessage, type RequestListener, ServerResponse } from 'node:http'
import { connect as connectHttp2, constants, createServer as createHttp2Server } from 'node:http2'
import { type AddressInfo, connect, type Socket } from 'node:net'
import type express from 'express'
import type { Request } from 'express'
import type { Middleware } from 'koa'
import type { ApiKeys, ApiKeyVerifier } from 'latchkey'
import * as onExpress from 'latchkey/express'
import * as onKoa from 'latchkey/koa'
import { ApiKeyStrategy } from 'latchkey/passport'
import { Authenticator } from 'passport'
import { describe, expect, it, onTestFinished } from 'vitest'
import { EXPRESSES } from '../support/expresses.ts'
import { issueKey } from '../support/issue-key.ts'
import { KOAS } from '../support/koas.ts'
import { createTestKeys } from '../support/test-keys.ts'

const PARALLEL = { name: 'parallel', concurrent: 1, maxHeldMs: 10_000 } as const

/** What a route does with its response; it may never end it. */
type Handle = (res: ServerResponse) => void
type Door = (keys: ApiKeys, handle: Handle) => RequestListener

function expressDoor(
  createApp: typeof express,
  auth: (keys: ApiKeyVerifier) => express.RequestHandler,
): Door {
  return (keys, handle) => {
    const app = createApp()
    app.use(auth(keys), (_req, res) => handle(res))
    app.use(onExpress.apiKeyErrorHandler())
    app.use(((_error, _req, res, _next) => res.status(500).end()) as express.ErrorRequestHandler)
    return app
  }
}

function byPassport(keys: ApiKeyVerifier): express.RequestHandler {
  const passport = new Authenticator()
  passport.use(new ApiKeyStrategy({ keys }))
  return passport.authenticate('apikey', { session: false }) as (req: Request) => void
}

const DOORS: [string, Door][] = [
  ...EXPRESSES.flatMap(([name, createApp]): [string, Door][] => [
    [`apiKeyAuth on ${name}`, expressDoor(createApp, (keys) => onExpress.apiKeyAuth(keys))],
    [`Passport on ${name}`, expressDoor(createApp, byPassport)],
  ]),
  ...KOAS.map(([name, Koa]): [string, Door] => [
    `apiKeyAuth on ${name}`,
    (keys, handle) => {
      const app = new Koa()
      app.silent = true
      app.use(onKoa.apiKeyErrorHandler() as Middleware)
      app.use(onKoa.apiKeyAuth(keys) as Middleware)
      app.use((ctx) => {
        ctx.respond = false
        handle(ctx.res)
      })
      return app.callback()
    },
  ]),
]

async function serveFor(listener: RequestListener) {
  const server = createServer(listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return { server, port }
}

/** A connection; `sent` is all that the server has sent. */
function open(port: number): { socket: Socket; sent: () => string } {
  let text = ''
  const socket = connect(port, '127.0.0.1')
  socket.on('data', (chunk) => {
    text += chunk
  })
  socket.on('error', () => {})
  onTestFinished(() => void socket.destroy())
  return { socket, sent: () => text }
}

describe.each(DOORS)('a place of a request with %s', (name, door) => {
  async function start(handle: Handle) {
    const test = createTestKeys({ rateLimits: [PARALLEL] })
    const { key, apiKey } = await issueKey(test.keys)
    const { port } = await serveFor(door(test.keys, handle))
    const request = `GET / HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: ${key}\r\n\r\n`
    const free = async () => (await test.keys.limits(apiKey.id))?.[0]?.remaining
    return { ...test, key, port, request, free }
  }

  it('is taken while it is under way, and given back when it is sent', async () => {
    const responses: ServerResponse[] = []
    const { port, request, free } = await start((res) => void responses.push(res))
    const first = open(port)
    first.socket.write(request)
    await expect.poll(free).toBe(0)
    const second = open(port)
    second.socket.write(request)
    await expect.poll(second.sent).toContain('429')
    expect(second.sent()).toMatch(/\r\nRetry-After: 1\r\n/)
    expect(second.sent()).toContain('RateLimit: "parallel";r=0\r\n')
    expect(second.sent()).toContain('RateLimit-Policy: "parallel";q=1;qu="concurrent-requests"\r\n')
    expect(second.sent()).toContain('"rate_limited"')
    responses[0]?.end('ok')
    await expect.poll(free).toBe(1)
    // On the same connection, which stays open.
    first.socket.write(request)
    await expect.poll(free).toBe(0)
    responses[1]?.end('ok')
    await expect.poll(free).toBe(1)
  })

  it('is given back when the client goes away', async () => {
    const { port, request, free } = await start((res) => void res.write('some'))
    const { socket } = open(port)
    socket.write(request)
    await expect.poll(free).toBe(0)
    socket.destroy()
    await expect.poll(free).toBe(1)
  })

  it('is given back when the server ends the connection', async () => {
    const { port, request, free } = await start((res) => void res.destroy())
    open(port).socket.write(request)
    await expect.poll(free).toBe(1)
    const broken = open(port)
    broken.socket.write(request)
    await new Promise((resolve) => broken.socket.on('close', resolve))
    await expect.poll(free).toBe(1)
  })

  it('is given back when the route throws', async () => {
    const { port, request, free } = await start(() => {
      throw new Error('broken')
    })
    const { socket, sent } = open(port)
    socket.write(request)
    if (!name.includes('Koa')) await expect.poll(sent).toContain('500')
    else socket.end()
    await expect.poll(free).toBe(1)
  })

  it('is given back when a request waits behind another on a connection that closes', async () => {
    const responses: ServerResponse[] = []
    const test = createTestKeys({ rateLimits: [{ ...PARALLEL, concurrent: 5 }] })
    const { key, apiKey } = await issueKey(test.keys)
    const { port } = await serveFor(door(test.keys, (res) => void responses.push(res)))
    const free = async () => (await test.keys.limits(apiKey.id))?.[0]?.remaining
    const request = `GET / HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: ${key}\r\n\r\n`
    const { socket } = open(port)
    socket.write(request.repeat(4))
    await expect.poll(free).toBe(1)
    socket.destroy()
    await expect.poll(free).toBe(5)
  })

  it('is kept by a response that takes longer than maxHeldMs', async () => {
    const { clock, port, request, free } = await start((res) => void res.write('some'))
    const { socket } = open(port)
    socket.write(request)
    await expect.poll(free).toBe(0)
    for (let i = 0; i < 10; i++) await clock.advance(5_000)
    expect(await free()).toBe(0)
    socket.destroy()
    await expect.poll(free).toBe(1)
  })
})

describe('a place of a request', () => {
  it.each<[string, (req: IncomingMessage, socket: Socket) => object]>([
    ['a response', (req) => new ServerResponse(req)],
    [
      'an object in its place that tells nothing',
      (_req, socket) => ({ setHeader() {}, removeHeader() {}, end: () => socket.destroy() }),
    ],
  ])(
    'that becomes another protocol, with %s, is given back when the connection closes',
    async (_what, make) => {
      const { keys, clock } = createTestKeys({ rateLimits: [PARALLEL] })
      const { key, apiKey } = await issueKey(keys)
      const { server, port } = await serveFor((_req, res) => void res.end())
      const auth = onExpress.apiKeyAuth(keys)
      server.on('upgrade', (req: IncomingMessage, socket: Socket) => {
        auth(req as Request, make(req, socket) as express.Response, () => {
          socket.on('end', () => socket.end()).resume()
          socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n')
        })
      })
      const { socket, sent } = open(port)
      const fields = `Connection: Upgrade\r\nUpgrade: echo\r\nX-Api-Key: ${key}`
      socket.write(`GET / HTTP/1.1\r\nHost: localhost\r\n${fields}\r\n\r\n`)
      await expect.poll(sent).toContain('101')
      const free = async () => (await keys.limits(apiKey.id))?.[0]?.remaining
      for (let i = 0; i < 10; i++) await clock.advance(5_000)
      expect(await free()).toBe(0)
      socket.destroy()
      await expect.poll(free).toBe(1)
    },
  )

  it('that ended while its key was verified is given back at once', async () => {
    const { keys } = createTestKeys({ rateLimits: [PARALLEL] })
    const { key, apiKey } = await issueKey(keys)
    const { port } = await serveFor((req, res) => {
      res.end('elsewhere')
      res.on('close', () => {
        onExpress.apiKeyAuth(keys)(req as Request, res as express.Response, () => {})
      })
    })
    const { socket, sent } = open(port)
    socket.write(`GET / HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: ${key}\r\n\r\n`)
    await expect.poll(sent).toContain('elsewhere')
    await expect.poll(async () => (await keys.limits(apiKey.id))?.[0]?.remaining).toBe(1)
  })
})

describe.each(KOAS)('places of requests over one HTTP/2 connection, with %s', (_name, Koa) => {
  async function start() {
    const test = createTestKeys({ rateLimits: [{ ...PARALLEL, concurrent: 3 }] })
    const { key, apiKey } = await issueKey(test.keys)
    const app = new Koa()
    const waiting: (() => void)[] = []
    app.use((ctx, next) => {
      if (ctx.path !== '/late') return next()
      return new Promise<void>((resolve) => waiting.push(resolve)).then(next)
    })
    app.use(onKoa.apiKeyAuth(test.keys) as Middleware)
    app.use((ctx) => {
      ctx.respond = false
      if (ctx.path === '/sent') ctx.res.end('ok')
      else ctx.res.write('some')
    })
    const server = createHttp2Server(app.callback())
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const session = connectHttp2(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    onTestFinished(() => {
      session.destroy()
      server.close()
    })
    const ask = (path: string) => session.request({ ':path': path, 'x-api-key': key }).on('error', () => {})
    const free = async () => (await test.keys.limits(apiKey.id))?.[0]?.remaining
    return { session, ask, waiting, free }
  }

  it('are given back one by one, as each ends', async () => {
    const { session, ask, free } = await start()
    ask('/sent').resume()
    const [first] = [ask('/'), ask('/')]
    await expect.poll(free).toBe(1)
    first.close(constants.NGHTTP2_CANCEL)
    await expect.poll(free).toBe(2)
    session.destroy()
    await expect.poll(free).toBe(3)
  })

  it('are given back if their clients break off before the key is verified', async () => {
    const { ask, waiting, free } = await start()
    const gone = ask('/late')
    const other = ask('/late')
    await expect.poll(() => waiting.length).toBe(2)
    gone.close(constants.NGHTTP2_CANCEL)
    // Over one connection, an answer to this one shows that the server knows.
    await new Promise((resolve) => ask('/sent').on('end', resolve).resume())
    for (const goOn of waiting) goOn()
    await new Promise((resolve) => other.on('response', resolve))
    await expect.poll(free).toBe(2)
  })
})
