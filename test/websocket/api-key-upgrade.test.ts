import { createServer, request as httpRequest, type IncomingMessage, type Server } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { inspect } from 'node:util'
import express from 'express'
import createFastify from 'fastify'
import Koa from 'koa'
import { createTickets, memoryTicketStore } from 'latchkey'
import { type ApiKeyUpgradeOptions, apiKeyUpgrade, getAuth, markSession, settle } from 'latchkey/websocket'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { type ClientOptions, WebSocket, WebSocketServer } from 'ws'
import { BARE, INVALID } from '../support/challenges.ts'
import { settle as tick } from '../support/fake-clock.ts'
import { HANDSHAKE } from '../support/handshake.ts'
import { issueKey } from '../support/issue-key.ts'
import { parse } from '../support/raw-http.ts'
import { rejects } from '../support/recording-store.ts'
import { createTestKeys } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

const ORIGIN = 'https://app.example.com'

interface SetUp {
  options?: ApiKeyUpgradeOptions & { required?: boolean }
  keys?: Parameters<typeof createTestKeys>[0]
  /** Runs before the key is looked at. */
  before?(request: IncomingMessage): Promise<void>
}

/** A WebSocket server that says who has connected. */
async function start({ options = {}, keys: keysOptions, before }: SetUp = {}) {
  const world = createTestKeys(keysOptions)
  const tickets = createTickets({ store: memoryTicketStore({ clock: world.clock }), clock: world.clock })
  const issued = await issueKey(world.keys, { permissions: { chat: ['read'] } })
  const authenticate = apiKeyUpgrade(world.keys, { tickets, ...options })
  const answers: unknown[] = []
  const sockets: Duplex[] = []
  const server = createServer((_req, res) => void res.end('plain'))
  const wss = new WebSocketServer({ noServer: true })
  server.on('upgrade', async (request, socket, head) => {
    sockets.push(socket)
    await before?.(request)
    const auth = await authenticate(request, socket, head)
    answers.push(auth)
    if (!auth) return
    wss.handleUpgrade(request, socket, head, (ws) => wss.emit('connection', ws, request))
  })
  wss.on('connection', (ws: WebSocket, request: IncomingMessage) => {
    const auth = getAuth(request)
    ws.on('message', (data) => ws.send(`echo ${data}`))
    ws.send(JSON.stringify({ ...auth, url: request.url }))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  onTestFinished(() => {
    for (const client of wss.clients) client.terminate()
    for (const socket of sockets) socket.destroy()
    server.closeAllConnections()
    server.close()
  })
  const open = (headers: Record<string, string>, protocols: string[] = [], path = '/') =>
    dial(`ws://127.0.0.1:${port}${path}`, protocols, { headers })
  /** A ticket that a request with the key has got. */
  const newTicket = async (origin: string | null = ORIGIN) => {
    const mock = { headers: { 'x-api-key': issued.key } } as unknown as IncomingMessage
    await apiKeyUpgrade(world.keys, { ip: () => '127.0.0.1' })(mock, connect(port, '127.0.0.1'))
    return (await tickets.issue(mock, { origin })).ticket
  }
  return { ...world, ...issued, tickets, newTicket, server, wss, port, open, answers, sockets }
}

/** Resolves with the first message of an open socket, or with the answer that refused it. */
function dial(url: string, protocols: string[], options: ClientOptions) {
  const ws = new WebSocket(url, protocols, options)
  onTestFinished(() => ws.terminate())
  return new Promise<{
    ws?: WebSocket
    first?: Record<string, unknown>
    status?: number
    body?: Record<string, unknown>
    headers?: IncomingMessage['headers']
  }>((resolve, reject) => {
    ws.once('message', (data) => resolve({ ws, first: JSON.parse(String(data)) }))
    ws.on('unexpected-response', (_request, response) => {
      let text = ''
      response.on('data', (chunk) => (text += chunk))
      response.on('end', () =>
        resolve({ status: response.statusCode as number, headers: response.headers, body: JSON.parse(text) }),
      )
    })
    ws.on('error', reject)
  })
}

/** Sends exactly this, and collects what comes back until the socket closes. */
function raw(port: number, lines: string[], given: { allowHalfOpen?: boolean } = {}) {
  const socket = connect({ port, host: '127.0.0.1', ...given })
  onTestFinished(() => void socket.destroy())
  socket.on('error', () => {})
  socket.write(`${lines.join('\r\n')}\r\n\r\n`)
  return socket
}

async function textOf(socket: Socket): Promise<string> {
  let text = ''
  socket.setEncoding('latin1').on('data', (chunk) => (text += chunk))
  await new Promise((resolve) => socket.once('close', resolve))
  return text
}

describe('an upgrade with a key', () => {
  it.each([
    ['X-Api-Key', (key: string) => ({ 'X-Api-Key': key })],
    ['Authorization: Api-Key', (key: string) => ({ Authorization: `Api-Key ${key}` })],
    ['Authorization: Bearer', (key: string) => ({ Authorization: `Bearer ${key}` })],
  ])('gets in by %s, and works both ways', async (_name, headers) => {
    const { open, key, apiKey } = await start({ options: { permissions: { chat: ['read'] } } })
    const { ws, first } = await open(headers(key))
    expect(first).toMatchObject({ method: 'apikey', user: apiKey.owner, apiKey: { id: apiKey.id } })
    const echo = new Promise((resolve) => ws?.once('message', (data) => resolve(String(data))))
    ws?.send('hello')
    expect(await echo).toBe('echo hello')
  })

  const REFUSALS: [
    string,
    SetUp,
    (key: string) => Record<string, string>,
    number,
    string,
    Record<string, unknown>,
  ][] = [
    ['no key', {}, () => ({}), 401, 'missing_key', { 'www-authenticate': BARE }],
    ['a bad key', {}, () => ({ 'X-Api-Key': 'bad' }), 401, 'invalid_key', { 'www-authenticate': INVALID }],
    [
      'two keys',
      {},
      (key) => ({ 'X-Api-Key': key, Authorization: `Api-Key ${key}` }),
      400,
      'multiple_credentials',
      {},
    ],
    [
      'a key without the permission',
      { options: { permissions: () => ({ chat: ['write'] }) } },
      (key) => ({ 'X-Api-Key': key }),
      403,
      'insufficient_permissions',
      {},
    ],
    [
      'a key of another prefix',
      { options: { prefix: 'other' } },
      (key) => ({ 'X-Api-Key': key }),
      401,
      'invalid_key',
      {},
    ],
    [
      'a function of permissions that throws',
      {
        options: {
          permissions: () => {
            throw new Error('secret detail')
          },
        },
      },
      (key) => ({ 'X-Api-Key': key }),
      503,
      'unavailable',
      {},
    ],
    [
      'an "ip" that throws',
      {
        options: {
          ip: () => {
            throw new Error('secret detail')
          },
        },
      },
      (key) => ({ 'X-Api-Key': key }),
      503,
      'unavailable',
      {},
    ],
    [
      'a key without a user',
      { options: { resolveUser: () => null } },
      (key) => ({ 'X-Api-Key': key }),
      401,
      'invalid_key',
      {},
    ],
  ]
  it.each(REFUSALS)(
    'is refused with a whole answer: %s',
    async (_what, given, headers, status, code, fields) => {
      const { open, key, answers, sockets } = await start(given)
      const refused = await open(headers(key))
      expect(refused).toMatchObject({
        status,
        body: { status, code },
        headers: {
          connection: 'close',
          'cache-control': 'no-store',
          'content-type': 'application/problem+json',
          ...fields,
        },
      })
      expect(JSON.stringify(refused.body)).not.toContain('secret detail')
      expect(answers).toEqual([null])
      await vi.waitFor(() => expect(sockets.every(({ destroyed }) => destroyed)).toBe(true))
    },
  )

  it('spends one unit, and shows the limits when it is refused', async () => {
    const { open, key } = await start({
      keys: { rateLimits: [{ name: 'minute', limit: 1, windowMs: 60_000 }] },
    })
    expect((await open({ 'X-Api-Key': key })).first).toMatchObject({ method: 'apikey' })
    expect(await open({ 'X-Api-Key': key })).toMatchObject({
      status: 429,
      headers: {
        'retry-after': '60',
        ratelimit: '"minute";r=0;t=60',
        'ratelimit-policy': '"minute";q=1;w=60',
      },
    })
  })

  it('is a 503 while the store fails', async () => {
    const world = await start()
    world.store.fail('find', rejects(new Error('connection refused')))
    expect(await world.open({ 'X-Api-Key': world.key })).toMatchObject({
      status: 503,
      body: { code: 'unavailable' },
    })
  })

  it('holds its place until the socket closes, also where it is refused afterwards', async () => {
    const parallel = { name: 'parallel', concurrent: 1 }
    const { open, key, clock } = await start({ keys: { rateLimits: [parallel] } })
    const { ws } = await open({ 'X-Api-Key': key })
    await clock.advance(3_600_000)
    expect(await open({ 'X-Api-Key': key })).toMatchObject({ status: 429 })
    const closed = new Promise((resolve) => ws?.once('close', resolve))
    ws?.terminate()
    await closed
    await vi.waitFor(async () => expect((await open({ 'X-Api-Key': key })).first).toBeDefined())

    let hasUser = false
    const other = await start({
      keys: { rateLimits: [parallel] },
      options: { resolveUser: () => hasUser || null },
    })
    expect(await other.open({ 'X-Api-Key': other.key })).toMatchObject({ status: 401 })
    hasUser = true
    await vi.waitFor(async () => expect((await other.open({ 'X-Api-Key': other.key })).first).toBeDefined())
  })

  it('can be settled later', async () => {
    const { wss, open, key, keys, apiKey } = await start({
      keys: { rateLimits: [{ name: 'minute', limit: 10, windowMs: 60_000 }] },
    })
    const settled = new Promise((resolve) =>
      wss.once('connection', (_ws, request) => resolve(settle(request, 4))),
    )
    await open({ 'X-Api-Key': key })
    expect(await settled).toBe(true)
    expect(await keys.limits(apiKey.id)).toMatchObject([{ remaining: 6 }])
  })

  it('closes when its key ends', async () => {
    const { wss, open, key, keys, apiKey } = await start()
    wss.on('connection', (ws: WebSocket, request) => {
      const auth = getAuth(request)
      if (auth.method !== 'apikey') return
      ws.on(
        'close',
        keys.onEnd(auth.apiKey, (reason) => ws.close(4401, reason)),
      )
    })
    const { ws } = await open({ 'X-Api-Key': key })
    const closed = new Promise((resolve) =>
      ws?.once('close', (code, reason) => resolve([code, String(reason)])),
    )
    await keys.revoke(apiKey.id)
    expect(await closed).toEqual([4401, 'revoked'])
  })
})

describe('an upgrade with a ticket', () => {
  it('gets in once, by a subprotocol, while the server chooses another one', async () => {
    const { open, newTicket, apiKey } = await start()
    const ticket = await newTicket()
    const { ws, first } = await open({ Origin: ORIGIN }, ['chat.v1', `latchkey.ticket.${ticket}`])
    expect(first).toMatchObject({ method: 'apikey', apiKey: { id: apiKey.id } })
    expect(ws?.protocol).toBe('chat.v1')
    expect(await open({ Origin: ORIGIN }, ['chat.v1', `latchkey.ticket.${ticket}`])).toMatchObject({
      status: 401,
    })
  })

  it('is refused from another origin, and beside a key', async () => {
    const { open, newTicket, key } = await start()
    const other = await open({ Origin: 'https://evil.example' }, [
      'a',
      `latchkey.ticket.${await newTicket()}`,
    ])
    expect(other).toMatchObject({ status: 401, body: { code: 'invalid_key' } })
    const both = await open({ Origin: ORIGIN, 'X-Api-Key': key }, [
      'a',
      `latchkey.ticket.${await newTicket()}`,
    ])
    expect(both).toMatchObject({ status: 400 })
  })

  it('shows the ticket to nobody afterwards', async () => {
    const seen: unknown[] = []
    const { open, newTicket, wss } = await start()
    const ticket = await newTicket()
    wss.on('connection', (_ws, request) => seen.push(inspect(request, { depth: 6, showHidden: true })))
    await open({ Origin: ORIGIN }, [`latchkey.ticket.${ticket}`, 'chat.v1'])
    expect(seen).toHaveLength(1)
    expect(String(seen[0])).toContain('chat.v1')
    expect(String(seen[0])).not.toContain(ticket)
  })
})

describe('an upgrade without a key', () => {
  it('gets in where keys are optional: as a session that was marked, or as nobody', async () => {
    const mark = markSession({ user: ({ headers }) => headers.cookie && { id: headers.cookie } })
    const { open } = await start({ options: { required: false }, before: (request) => mark(request) })
    expect((await open({ Cookie: 'u_1' })).first).toMatchObject({ method: 'session', user: { id: 'u_1' } })
    expect((await open({})).first).toMatchObject({ method: 'none' })
  })

  it('does not fall back to a session where it presents a bad key', async () => {
    const mark = markSession({ user: () => ({ id: 'u_1' }) })
    const { open } = await start({ options: { required: false }, before: (request) => mark(request) })
    expect(await open({ 'X-Api-Key': 'bad' })).toMatchObject({ status: 401 })
  })
})

describe('a refused client', () => {
  it('gets a well-formed answer on the wire, with nothing after it', async () => {
    const { port } = await start()
    const answer = parse(await textOf(raw(port, HANDSHAKE)))
    expect(answer.status).toBe(401)
    expect(answer.header('Content-Length')).toBe(String(answer.body.length))
    expect(answer.all('Connection')).toEqual(['close'])
    expect(answer.text).not.toContain('Upgrade')
  })

  it('gets it even if it has sent more than the request', async () => {
    const { port, sockets } = await start()
    const socket = raw(port, HANDSHAKE)
    socket.write(Buffer.alloc(300_000))
    expect(parse(await textOf(socket)).status).toBe(401)
    await vi.waitFor(() => expect(sockets[0]?.destroyed).toBe(true))
  })

  it('gets no line of its own making', async () => {
    const { port } = await start()
    const lines = [...HANDSHAKE, 'X-Api-Key: bad', 'Origin: x', 'Sec-WebSocket-Protocol: latchkey.ticket.a']
    const { text } = parse(await textOf(raw(port, lines)))
    expect(text.split('\r\n\r\n')).toHaveLength(2)
    expect(text).not.toContain('latchkey.ticket')
  })

  it('gets no second answer within the one of an earlier request on its connection', async () => {
    const { server, port } = await start()
    server.removeAllListeners('request')
    server.on('request', (_req, res) => void setTimeout(() => res.end('late'), 50))
    const text = await textOf(raw(port, ['GET /slow HTTP/1.1', 'Host: localhost', '', ...HANDSHAKE]))
    expect(text).not.toContain('problem+json')
  })

  it('is gone within seconds even if it does not read, does not close, or goes on sending', async () => {
    const { port, sockets } = await start()
    raw(port, HANDSHAKE, { allowHalfOpen: true }).pause()
    raw(port, HANDSHAKE, { allowHalfOpen: true }).resume()
    const talker = raw(port, HANDSHAKE, { allowHalfOpen: true })
    const talking = setInterval(() => talker.write('x'), 20)
    talker.on('close', () => clearInterval(talking))
    await vi.waitFor(
      () => expect(sockets.map(({ destroyed }) => destroyed)).toEqual([true, true, true]),
      5_000,
    )
  })

  it('that goes away while its key is verified harms nobody', async () => {
    const unhandled = watchUnhandled()
    const world = await start()
    const find = world.store.hold('find')
    const socket = raw(world.port, [...HANDSHAKE, `X-Api-Key: ${world.key}`])
    await find.reached
    socket.resetAndDestroy()
    world.sockets[0]?.destroy(new Error('ECONNRESET'))
    find.release()
    await vi.waitFor(() => expect(world.answers).toEqual([null]))
    expect(await unhandled()).toEqual([])
  })

  it('that goes away while its session is looked for harms nobody', async () => {
    const unhandled = watchUnhandled()
    let find = () => {}
    const found = new Promise<void>((resolve) => (find = resolve))
    const mark = markSession({ user: () => found })
    const world = await start({ options: { required: false }, before: (request) => mark(request) })
    const socket = raw(world.port, HANDSHAKE)
    await vi.waitFor(() => expect(world.sockets).toHaveLength(1))
    socket.resetAndDestroy()
    await vi.waitFor(() => expect(world.sockets[0]?.destroyed).toBe(true))
    find()
    await vi.waitFor(() => expect(world.answers).toEqual([null]))
    expect(await unhandled()).toEqual([])
  })

  it('is refused hundreds of times without anything left behind', async () => {
    const { port, sockets, server } = await start()
    for (let round = 0; round < 3; round += 1) {
      const clients = Array.from({ length: 100 }, () => raw(port, HANDSHAKE))
      await Promise.all(clients.map(textOf))
    }
    expect(sockets).toHaveLength(300)
    await vi.waitFor(() => expect(sockets.every(({ destroyed }) => destroyed)).toBe(true))
    await tick()
    expect(await new Promise((resolve) => server.getConnections((_error, count) => resolve(count)))).toBe(0)
  })
})

describe('the server', () => {
  const authenticateOn = async (server: Server) => {
    const { keys } = createTestKeys()
    const authenticate = apiKeyUpgrade(keys)
    const wss = new WebSocketServer({ noServer: true })
    server.on('upgrade', async (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      const auth = await authenticate(request, socket, head)
      if (auth) wss.handleUpgrade(request, socket, head, (ws) => ws.send(JSON.stringify(auth.apiKey.id)))
    })
    onTestFinished(() => {
      for (const client of wss.clients) client.terminate()
    })
    return issueKey(keys)
  }

  it.each([
    ['Express', () => express().listen(0, '127.0.0.1')],
    ['Koa', () => new Koa().listen(0, '127.0.0.1')],
    [
      'Fastify',
      async () => {
        const app = createFastify()
        await app.listen({ host: '127.0.0.1', port: 0 })
        return app.server
      },
    ],
  ] as [string, () => Server | Promise<Server>][])('of %s will do', async (_name, listen) => {
    const server = await listen()
    onTestFinished(() => void server.close())
    const { key, apiKey } = await authenticateOn(server)
    await vi.waitFor(() => expect(server.listening).toBe(true))
    const url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`
    expect((await dial(url, [], { headers: { 'X-Api-Key': key } })).first).toBe(apiKey.id)
    expect((await dial(url, [], {})).status).toBe(401)
  })
})

describe('other requests', () => {
  it('of the same server are not touched', async () => {
    const { port } = await start()
    const status = await new Promise((resolve) =>
      httpRequest({ port, host: '127.0.0.1' }, (response) => resolve(response.resume().statusCode)).end(),
    )
    expect(status).toBe(200)
  })
})

describe('apiKeyUpgrade()', () => {
  const { keys } = createTestKeys()
  it.each([
    [{ refuseWith: 'error' }, '"refuseWith" must be left out'],
    [{ permission: {} }, 'did you mean "permissions"'],
    [{ ip: '::1' }, '"ip" must be a function'],
    [{ tickets: {} }, '"tickets" must have a method "redeem"'],
  ])('refuses %j', (options, message) => {
    expect(() => apiKeyUpgrade(keys, options as never)).toThrow(message)
  })
})
