import { readFileSync } from 'node:fs'
import type { Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import express from 'express'
import { createTickets, memoryTicketStore, type Tickets } from 'latchkey'
import { apiKeyErrorHandler } from 'latchkey/express'
import type { Upgrade } from 'latchkey/websocket'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { type ClientOptions, WebSocket } from 'ws'
import { HANDSHAKE } from '../support/handshake.ts'
import { issueKey } from '../support/issue-key.ts'
import { type CodeBlock, readCodeBlocks } from '../support/markdown.ts'
import { serve } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { createTestKeys } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

const page = readFileSync(new URL('../../docs/websockets-and-sse.md', import.meta.url), 'utf8')
const blocks = readCodeBlocks(page)
const blockOf = (heading: string, language = 'ts', n = 0) =>
  blocks.filter((block) => block.heading === heading && block.language === language)[n] as CodeBlock
const onAnyPort = ({ text }: CodeBlock) => text.replace('listen(3000)', "listen(0, '127.0.0.1')")

/** What a WebSocket meets first: a message, or a refusal. */
function dial(port: number, protocols: string[], options: ClientOptions = {}) {
  const ws = new WebSocket(`ws://127.0.0.1:${port}`, protocols, options)
  onTestFinished(() => ws.terminate())
  ws.on('error', () => {})
  return new Promise<{ ws: WebSocket; said: unknown }>((resolve) => {
    ws.once('message', (data) => resolve({ ws, said: String(data) }))
    ws.once('unexpected-response', (_request, response) => {
      response.setEncoding('utf8').once('data', (text) => {
        const { statusCode, headers } = response
        resolve({ ws, said: { status: statusCode, headers, body: JSON.parse(text) } })
      })
    })
    ws.once('close', () => resolve({ ws, said: 'closed' }))
  })
}

async function start() {
  const world = createTestKeys()
  const issued = await issueKey(world.keys, { permissions: { chat: ['read'] } })
  const app = express()
  const tickets = createTickets({ store: memoryTicketStore() })
  const sessions = { userOf: async (cookie: string | null) => cookie && { id: cookie } }
  const scope = { keys: world.keys, app, tickets, sessions }
  /** Runs a block of the page and serves what it makes. */
  const serveBlock = async (heading: string) => {
    const { server } = (await runBlock(onAnyPort(blockOf(heading)), scope, ['server'])) as { server: Server }
    if (!server.listening) server.listen(0, '127.0.0.1')
    await vi.waitFor(() => expect(server.address()).not.toBeNull())
    onTestFinished(() => {
      server.closeAllConnections()
      server.close()
    })
    return { server, port: (server.address() as AddressInfo).port }
  }
  const listen = async (heading: string) => (await serveBlock(heading)).port
  return { ...world, ...issued, app, tickets, scope, serveBlock, listen }
}

describe('the guide to WebSockets and event streams', () => {
  it('opens a WebSocket, refuses as it shows, and closes it when the key is revoked', async () => {
    const { listen, key, keys, apiKey } = await start()
    const port = await listen('WebSockets and event streams')
    const { ws, said } = await dial(port, [], { headers: { 'X-Api-Key': key } })
    expect(said).toBe('Hello CI')
    const [, , shown] = blocks
    const refused = (await dial(port, [])).said as { status: number; headers: object; body: object }
    const lines = blockOf('WebSockets and event streams', 'http').text.trim().split('\n')
    const body = lines.pop() as string
    expect(lines.shift()).toBe('HTTP/1.1 401 Unauthorized')
    expect(refused.status).toBe(401)
    expect(refused.body).toEqual(JSON.parse(body))
    for (const line of lines.filter((text) => text !== '')) {
      const [name = '', value] = line.split(/: (.*)/)
      expect(refused.headers).toMatchObject({ [name.toLowerCase()]: value })
    }
    expect(shown?.language).toBe('http')
    const closed = new Promise((resolve) =>
      ws.once('close', (code, reason) => resolve([code, String(reason)])),
    )
    await keys.revoke(apiKey.id)
    expect(await closed).toEqual([4401, 'revoked'])
  })

  it.each(['WebSockets and event streams', 'Sessions'])(
    'survives a client that sends a broken frame: %s',
    async (heading) => {
      const unhandled = watchUnhandled()
      const { listen, key } = await start()
      const socket = connect(await listen(heading), '127.0.0.1')
      onTestFinished(() => void socket.destroy())
      socket.on('error', () => {})
      socket.write([...HANDSHAKE, `X-Api-Key: ${key}`, '', ''].join('\r\n'))
      const said = await new Promise((resolve) => socket.once('data', (data) => resolve(String(data))))
      expect(said).toContain('HTTP/1.1 101')
      const closed = new Promise((resolve) => socket.once('close', resolve))
      socket.write(Buffer.alloc(9, 0xff))
      socket.resume()
      await closed
      expect(await unhandled()).toEqual([])
    },
  )

  it('survives a store of sessions that fails', async () => {
    const unhandled = watchUnhandled()
    const { listen, scope } = await start()
    scope.sessions.userOf = () => Promise.reject(new Error('down'))
    const socket = connect(await listen('Sessions'), '127.0.0.1')
    onTestFinished(() => void socket.destroy())
    const closed = new Promise((resolve) => socket.on('error', () => {}).once('close', resolve))
    socket.write([...HANDSHAKE, 'Origin: https://app.example.com', '', ''].join('\r\n'))
    socket.resume()
    await closed
    expect(await unhandled()).toEqual([])
  })

  it('keeps no socket of a stranger that never closes its side', async () => {
    const { serveBlock } = await start()
    const { server, port } = await serveBlock('Sessions')
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    onTestFinished(() => void socket.destroy())
    socket.on('error', () => {})
    socket.write([...HANDSHAKE, '', ''].join('\r\n'))
    const said = await new Promise((resolve) => socket.once('data', (data) => resolve(String(data))))
    expect(said).toContain('HTTP/1.1 401')
    const count = () =>
      new Promise((resolve) => server.getConnections((_error, connections) => resolve(connections)))
    await vi.waitFor(async () => expect(await count()).toBe(0))
  })

  it('shows how a client sends its key', async () => {
    const { listen, key } = await start()
    const port = await listen('WebSockets and event streams')
    const text = blockOf('WebSockets and event streams', 'ts', 1).text.replace(
      'localhost:3000',
      `127.0.0.1:${port}`,
    )
    const { ws } = (await runBlock(text, { key }, ['ws'])) as { ws: WebSocket }
    onTestFinished(() => ws.terminate())
    expect(await new Promise((resolve) => ws.once('message', (data) => resolve(String(data))))).toBe(
      'Hello CI',
    )
  })

  it('streams events to a key and to a ticket, until the key ends', async () => {
    const { app, scope, key, apiKey, keys, tickets } = await start()
    const onEnd = vi.fn(keys.onEnd)
    await runBlock(blockOf('Event streams').text, { ...scope, keys: { ...keys, onEnd } })
    const { apiKeyAuth } = await import('latchkey/express')
    app.post('/tickets', apiKeyAuth(keys), async (req, res) => void res.json(await tickets.issue(req)))
    app.use(apiKeyErrorHandler())
    const ask = await serve(app)
    const { ticket } = (await ask('/tickets', [`X-Api-Key: ${key}`], { method: 'POST' })).json()
    const streams = [ask('/events', [`X-Api-Key: ${key}`]), ask(`/events?ticket=${ticket}`)]
    await vi.waitFor(() => expect(onEnd).toHaveBeenCalledTimes(2))
    await keys.revoke(apiKey.id)
    for (const answer of await Promise.all(streams)) expect(answer.body).toBe('data: hello\n\n')
  })

  it('gives tickets to keys, and takes each once', async () => {
    const { app, keys, key } = await start()
    const { authenticate } = (await runBlock(blockOf('Tickets for browsers').text, { app, keys }, [
      'authenticate',
    ])) as {
      authenticate: Upgrade<unknown>
    }
    app.use(apiKeyErrorHandler())
    const ask = await serve(app)
    const post = (lines: string[]) => ask('/tickets', lines, { method: 'POST' })
    expect((await post([])).status).toBe(401)
    const { ticket, expiresAt } = (await post([`X-Api-Key: ${key}`])).json()
    expect(new Date(String(expiresAt)).getTime()).toBeGreaterThan(Date.now())
    const request = () => ({
      headers: { 'sec-websocket-protocol': `chat.v1, latchkey.ticket.${ticket}` },
      socket: {},
    })
    const { PassThrough } = await import('node:stream')
    expect(await authenticate(request() as never, new PassThrough())).toMatchObject({ method: 'apikey' })
    expect(await authenticate(request() as never, new PassThrough())).toBeNull()
  })

  it('binds tickets to the origins that it names', async () => {
    const { app, scope, key, tickets } = await start()
    await runBlock(blockOf('Origin').text, scope)
    const ask = await serve(app)
    const get = async (path: string) =>
      String(
        (await ask(path, [`X-Api-Key: ${key}`, 'Origin: https://x.example'], { method: 'POST' })).json()
          .ticket,
      )
    expect(await tickets.redeem(await get('/tickets/app'), 'https://app.example.com')).toMatchObject({ key })
    expect(await tickets.redeem(await get('/tickets/events'), null)).toMatchObject({ key })
  })

  it('keeps tickets in Redis', async () => {
    const redis = { eval: async () => null, evalsha: async () => null }
    const { tickets } = (await runBlock(blockOf('Several processes').text, { redis }, ['tickets'])) as {
      tickets: Tickets
    }
    expect(await tickets.redeem('A'.repeat(43), null)).toBeNull()
  })

  it('lets in sessions of its own pages only', async () => {
    const { listen, key } = await start()
    const port = await listen('Sessions')
    const own = { Origin: 'https://app.example.com', Cookie: 'u_1' }
    expect((await dial(port, [], { headers: own })).said).toBe('Hello by session')
    expect((await dial(port, [], { headers: { 'X-Api-Key': key } })).said).toBe('Hello by apikey')
    expect((await dial(port, [], { headers: { ...own, 'X-Api-Key': 'bad' } })).said).toMatchObject({
      status: 401,
    })
    const foreign = new WebSocket(`ws://127.0.0.1:${port}`, {
      headers: { ...own, Origin: 'https://evil.example' },
    })
    foreign.on('error', () => {})
    expect(
      await new Promise((resolve) => foreign.once('unexpected-response', (_q, r) => resolve(r.statusCode))),
    ).toBe(401)
  })

  it('reads the address that a proxy writes', async () => {
    const { scope, keys } = await start()
    const { key } = await issueKey(keys, { allowedIps: ['203.0.113.7'] })
    const { authenticate } = (await runBlock(blockOf('Behind a proxy').text, scope, ['authenticate'])) as {
      authenticate: Upgrade<unknown>
    }
    const { PassThrough } = await import('node:stream')
    const from = (ip: string) =>
      authenticate({ headers: { 'x-api-key': key, 'x-real-ip': ip } } as never, new PassThrough())
    expect(await from('203.0.113.7')).toMatchObject({ method: 'apikey' })
    expect(await from('203.0.113.8')).toBeNull()
  })
})
