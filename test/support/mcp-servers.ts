import type { IncomingMessage, ServerResponse } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import {
  Client as Client2,
  StreamableHTTPClientTransport as ClientTransport2,
} from '@modelcontextprotocol/client'
import { NodeStreamableHTTPServerTransport } from '@modelcontextprotocol/node'
import { Client as Client1 } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport as ClientTransport1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { McpServer as McpServer1 } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js'
import { createMcpHandler, McpServer as McpServer2 } from '@modelcontextprotocol/server'
import express from 'express'
import type { ApiKeys } from 'latchkey'
import { getAuth, type McpGuard, type McpOptions, mcpGuard, mcpWebGuard } from 'latchkey/mcp'
import { onTestFinished } from 'vitest'
import { z } from 'zod'
import { listen } from './raw-http.ts'

/** What the servers of the tests let in, and at what cost. */
export const RULES: McpOptions = {
  tools: {
    search: { permissions: { docs: ['read'] }, cost: 3 },
    whoami: {},
    open: { permissions: ({ arguments: { id } }) => ({ [`doc:${id}`]: ['read'] }), cost: 1 },
  },
  prompts: { greet: {} },
  resources: { 'docs://public/*': { permissions: { docs: ['read'] } } },
}

const text = (value: string) => ({ content: [{ type: 'text' as const, text: value }] })

/** An MCP server of SDK 1.x. `calls` gets the name of each tool that runs. */
function server1(calls: string[]): McpServer1 {
  const server = new McpServer1({ name: 'test', version: '1.0.0' })
  server.registerTool('search', { inputSchema: { q: z.string() } }, ({ q }) => {
    calls.push('search')
    return text(`found ${q}`)
  })
  server.registerTool('open', { inputSchema: { id: z.string() } }, ({ id }) => {
    calls.push('open')
    return text(id)
  })
  server.registerTool('whoami', {}, (extra) => {
    calls.push('whoami')
    const { apiKey } = getAuth(extra.authInfo)
    return text(JSON.stringify({ name: apiKey.name, ...extra.authInfo }))
  })
  server.registerTool('secret', {}, () => {
    calls.push('secret')
    return text('secret')
  })
  server.registerResource('public', 'docs://public/a', {}, (uri) => ({
    contents: [{ uri: uri.href, text: 'public' }],
  }))
  server.registerResource('secret', 'docs://secret', {}, (uri) => ({
    contents: [{ uri: uri.href, text: 'secret' }],
  }))
  return server
}

/** The same of SDK 2.x. */
function server2(calls: string[]): McpServer2 {
  const server = new McpServer2({ name: 'test', version: '1.0.0' })
  server.registerTool('search', { inputSchema: z.object({ q: z.string() }) }, ({ q }) => {
    calls.push('search')
    return text(`found ${q}`)
  })
  server.registerTool('open', { inputSchema: z.object({ id: z.string() }) }, ({ id }) => {
    calls.push('open')
    return text(id)
  })
  server.registerTool('whoami', {}, (ctx) => {
    calls.push('whoami')
    const { apiKey } = getAuth(ctx.http?.authInfo)
    return text(JSON.stringify({ name: apiKey.name, ...ctx.http?.authInfo }))
  })
  server.registerTool('secret', {}, () => {
    calls.push('secret')
    return text('secret')
  })
  server.registerResource('public', 'docs://public/a', {}, (uri) => ({
    contents: [{ uri: uri.href, text: 'public' }],
  }))
  server.registerResource('secret', 'docs://secret', {}, (uri) => ({
    contents: [{ uri: uri.href, text: 'secret' }],
  }))
  return server
}

/** A running server, and what of it the tests look at. */
export interface RunningServer {
  readonly port: number
  /** The tools that ran, in order. */
  readonly calls: string[]
}

/** What both SDKs have in common of a transport with sessions. */
interface SessionTransport {
  handleRequest(req: IncomingMessage, res: ServerResponse, body?: unknown): Promise<void>
}

/** One transport for each session, as the guides of both SDKs show it. */
function sessionsOf(
  guard: McpGuard,
  open: (
    generate: () => string,
    remember: (id: string, transport: SessionTransport) => void,
  ) => Promise<SessionTransport>,
) {
  const sessions = new Map<string, SessionTransport>()
  return async (req: IncomingMessage & { body?: unknown }, res: ServerResponse) => {
    const id = String(req.headers['mcp-session-id'])
    const transport =
      sessions.get(id) ??
      (await open(guard.sessionIdGenerator(req), (created, one) => sessions.set(created, one)))
    await transport.handleRequest(req, res, req.body)
  }
}

/** Every way to put a guard in front of a server of the SDKs. */
export const SERVERS: Readonly<
  Record<string, (keys: ApiKeys, options: McpOptions) => Promise<RunningServer>>
> = {
  'SDK 1 on Express with sessions': async (keys, options) => {
    const calls: string[] = []
    const guard = mcpGuard(keys, options)
    const serve = sessionsOf(guard, async (sessionIdGenerator, remember) => {
      const transport: StreamableHTTPServerTransport = new StreamableHTTPServerTransport({
        sessionIdGenerator,
        onsessioninitialized: (id) => remember(id, transport),
      })
      await server1(calls).connect(transport as never)
      return transport
    })
    const app = express()
    app.all('/mcp', express.json(), guard, serve)
    return { port: await listen(app), calls }
  },
  'SDK 1 on node:http without sessions': async (keys, options) => {
    const calls: string[] = []
    const guard = mcpGuard(keys, options)
    const port = await listen((req: IncomingMessage & { body?: unknown }, res) =>
      guard(req, res, async (error) => {
        if (error) return void res.writeHead(500).end()
        const transport = new StreamableHTTPServerTransport()
        await server1(calls).connect(transport as never)
        await transport.handleRequest(req, res, req.body)
      }),
    )
    return { port, calls }
  },
  'SDK 2 on Express with sessions': async (keys, options) => {
    const calls: string[] = []
    const guard = mcpGuard(keys, options)
    const serve = sessionsOf(guard, async (sessionIdGenerator, remember) => {
      const transport: NodeStreamableHTTPServerTransport = new NodeStreamableHTTPServerTransport({
        sessionIdGenerator,
        onsessioninitialized: (id) => void remember(id, transport),
      })
      await server2(calls).connect(transport)
      return transport
    })
    const app = express()
    app.all('/mcp', guard, serve)
    return { port: await listen(app), calls }
  },
  'SDK 2 as a handler of web requests': async (keys, options) => {
    const calls: string[] = []
    const guard = mcpWebGuard(keys, options)
    const handler = createMcpHandler(() => server2(calls))
    const port = await listen(
      getRequestListener(async (request) => {
        const caller = await guard(request)
        if (!caller.ok) return caller.response
        return caller.finish(await handler.fetch(request, caller))
      }),
    )
    return { port, calls }
  },
}

/** What the tests need of a client, of either SDK. */
export interface TestClient {
  callTool(name: string, args?: Record<string, unknown>): Promise<string>
  readResource(uri: string): Promise<unknown>
  listTools(): Promise<string[]>
  readonly sessionId: string | undefined
  /** The revision of the protocol that it speaks with the server. */
  readonly protocolVersion: string | undefined
}

const url = (port: number) => new URL(`http://127.0.0.1:${port}/mcp`)

const textOf = (result: unknown) => (result as { content: [{ text: string }] }).content[0].text

type Connect = (port: number, headers: Record<string, string>) => Promise<TestClient>

const connect1: Connect = async (port, headers) => {
  const client = new Client1({ name: 'test', version: '1.0.0' })
  const transport = new ClientTransport1(url(port), { requestInit: { headers } })
  // Its `sessionId` may be undefined, which its own interface does not say.
  await client.connect(transport as Parameters<typeof client.connect>[0])
  onTestFinished(() => client.close())
  return toTestClient(client, transport)
}

const connect2 =
  (mode: 'legacy' | 'auto'): Connect =>
  async (port, headers) => {
    const client = new Client2({ name: 'test', version: '1.0.0' }, { versionNegotiation: { mode } })
    const transport = new ClientTransport2(url(port), { requestInit: { headers } })
    await client.connect(transport)
    onTestFinished(() => client.close())
    return toTestClient(client, transport)
  }

function toTestClient(client: Client1 | Client2, transport: ClientTransport1 | ClientTransport2): TestClient {
  return {
    callTool: async (name, args = {}) => textOf(await client.callTool({ name, arguments: args })),
    readResource: (uri) => client.readResource({ uri }),
    listTools: async () => (await client.listTools()).tools.map(({ name }) => name),
    sessionId: transport.sessionId,
    protocolVersion: transport.protocolVersion,
  }
}

/** Clients of both SDKs over their own HTTP transports. */
export const CLIENTS: Readonly<Record<string, Connect>> = {
  'SDK 1': connect1,
  'SDK 2, as before 2026': connect2('legacy'),
  'SDK 2, of 2026-07-28 if the server knows it': connect2('auto'),
}
