import type { IncomingMessage, RequestListener } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import type { ApiKeys } from 'latchkey'
import type { Actor, KeyManagementApiOptions } from 'latchkey/management'
import { apiKeyRouter as expressRouter } from 'latchkey/management/express'
import { apiKeyRouter as fetchRouter } from 'latchkey/management/fetch'
import { apiKeyRouter as koaRouter } from 'latchkey/management/koa'
import { EXPRESSES } from './expresses.ts'
import { KOAS } from './koas.ts'
import { listen } from './raw-http.ts'
import { ALICE, BOB, createTestKeys, type TestKeys } from './test-keys.ts'

/** What a test says of the interface; `actor` is chosen by the header `X-Actor` unless it is given. */
export type WorldOptions = Partial<Omit<KeyManagementApiOptions<object>, 'ip'>>

/** Builds an application that has the interface at `/api-keys` and answers `elsewhere` to all other requests. */
export type BuildApp = (keys: ApiKeys, options: KeyManagementApiOptions<never>) => RequestListener

export const ROUTERS: readonly (readonly [string, BuildApp])[] = [
  ...EXPRESSES.map(([name, express]): readonly [string, BuildApp] => [
    name,
    (keys, options) => {
      const app = express()
      app.use('/api-keys', expressRouter(keys, options as never))
      app.use((_req, res) => void res.send('elsewhere'))
      return app
    },
  ]),
  ...KOAS.slice(0, 1).map(([name, Koa]): readonly [string, BuildApp] => [
    name,
    (keys, options) => {
      const app = new Koa({})
      app.use(koaRouter(keys, options as never))
      app.use((ctx) => {
        ctx.body = 'elsewhere'
      })
      return app.callback()
    },
  ]),
  [
    'fetch',
    (keys, options) => {
      const manage = fetchRouter(keys, options as never)
      return getRequestListener(async (request, env) => {
        const { socket } = (env as { incoming: IncomingMessage }).incoming
        const response = await manage(request, { ip: socket.remoteAddress })
        return response.status === 404 && !response.body ? new Response('elsewhere') : response
      })
    },
  ],
]

/** Who `X-Actor` may name. */
export const ACTORS: Readonly<Record<string, Actor>> = {
  alice: { id: 'u_alice', owners: [ALICE], grantable: { projects: ['read', 'write'] } },
  bob: { id: 'u_bob', owners: [BOB] },
  reader: { id: 'u_reader', owners: [{ ...ALICE, can: ['read'] }] },
  nobodys: { id: 'u_none', owners: [{ ...ALICE, can: [] }] },
  admin: { id: 'u_admin', admin: true },
}

/** An answer of the interface. */
export interface ApiAnswer {
  readonly status: number
  readonly headers: Headers
  /** Everything that came, for looking for what must not be there. */
  readonly text: string
  readonly body: Readonly<Record<string, unknown>>
}

export interface CallOptions {
  readonly as?: string
  readonly key?: string
  readonly headers?: Readonly<Record<string, string>>
  /** Sent as JSON. */
  readonly json?: unknown
  /** Sent as it is. */
  readonly body?: string | Uint8Array
}

export interface World extends TestKeys {
  /** `call('POST', '/verify', { key, json })`: paths are relative to the interface. */
  call(method: string, path: string, options?: CallOptions): Promise<ApiAnswer>
  readonly port: number
}

/** Serves the interface over real HTTP until the test has ended. */
export async function createWorld(
  options: WorldOptions = {},
  build: BuildApp = ROUTERS[0]?.[1] as BuildApp,
  testKeys: TestKeys = createTestKeys(),
): Promise<World> {
  const { keys } = testKeys
  const actor = ({ headers }: { headers: IncomingMessage['headers'] | Headers }) =>
    ACTORS[String(headers instanceof Headers ? headers.get('X-Actor') : headers['x-actor'])] ?? null
  const app = build(keys, { actor, ...options } as KeyManagementApiOptions<never>)
  const port = await listen(app)
  return { ...testKeys, port, call: (...args) => callApi(port, ...args) }
}

async function callApi(
  port: number,
  method: string,
  path: string,
  { as, key, headers, json, body }: CallOptions = {},
): Promise<ApiAnswer> {
  const isChange = method !== 'GET' && method !== 'HEAD'
  const sent = json === undefined ? body : JSON.stringify(json)
  const response = await fetch(`http://127.0.0.1:${port}/api-keys${path}`, {
    method,
    redirect: 'manual',
    headers: {
      ...(as !== undefined && { 'X-Actor': as }),
      ...(key !== undefined && { 'X-Api-Key': key }),
      ...(isChange && { 'Content-Type': 'application/json' }),
      ...headers,
    },
    // A stream can only be sent so.
    ...(sent !== undefined && { body: sent as string, duplex: 'half' }),
  })
  const text = await response.text()
  return {
    status: response.status,
    headers: response.headers,
    text: `${[...response.headers].join('\n')}\n\n${text}`,
    body: text === '' ? {} : JSON.parse(text),
  }
}
