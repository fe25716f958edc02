import { readFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import type { Hono } from 'hono'
import { describe, expect, it } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { type CodeBlock, readCodeBlocks } from '../support/markdown.ts'
import { listen, serve } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { expectShownAnswers } from '../support/shown-answers.ts'
import { createTestKeys } from '../support/test-keys.ts'

const blocks = readCodeBlocks(readFileSync(new URL('../../docs/fetch.md', import.meta.url), 'utf8'))
const blocksOf = (heading: string) => blocks.filter((block) => block.heading === heading)
const FIRST = 'Hono, Next, Bun, Deno: web `Request`'

type Handle = (request: Request, ...rest: unknown[]) => Promise<Response>

/** Runs the code under a heading, without what only a module may say. */
async function run(heading: string, scope: Record<string, unknown>, wanted: string): Promise<unknown> {
  const { text } = blocksOf(heading)[0] as CodeBlock
  return (await runBlock(text.replaceAll(/^export /gm, ''), scope, [wanted]))[wanted]
}

async function setUp() {
  const test = createTestKeys({ rateLimits: [{ name: 'minute', limit: 60, windowMs: 60_000 }] })
  const owner = { type: 'user', id: 'u_1' }
  const { key } = await issueKey(test.keys, { owner, permissions: { projects: ['read'] } })
  const users = { find: (id: string) => ({ id }) }
  const sessions = { userOf: async (cookie: string | null) => (cookie ? { id: cookie } : null) }
  return { ...test, key, scope: { keys: test.keys, users, sessions } }
}

const ask = (path: string, headers: Record<string, string> = {}, init: RequestInit = {}) =>
  new Request(`http://localhost${path}`, { headers, ...init })

describe('the guide to web requests', () => {
  it('answers as it shows', async () => {
    const { key, scope } = await setUp()
    const handle = (await run(FIRST, scope, 'listProjects')) as Handle
    await expectShownAnswers(blocksOf(FIRST), await listen(getRequestListener(handle)), { $KEY: key })
  })

  it('wraps a route handler of Next', async () => {
    const { key, scope } = await setUp()
    const GET = (await run('Wrap a handler', scope, 'GET')) as Handle
    const context = { params: Promise.resolve({ id: 'p1' }) }
    const response = await GET(ask('/', { 'X-Api-Key': key }), context)
    expect(await response.json()).toEqual({ project: 'p1', owner: { type: 'user', id: 'u_1' } })
    expect((await GET(ask('/'), context)).status).toBe(401)
  })

  it('guards a route of Hono, which knows the address', async () => {
    const { keys, key, scope } = await setUp()
    const app = (await run('Hono', scope, 'app')) as Hono
    const request = await serve(getRequestListener(app.fetch))
    expect((await request('/projects', [`X-Api-Key: ${key}`])).json()).toMatchObject({ owner: { id: 'u_1' } })
    expect((await request('/projects')).status).toBe(401)
    const bound = async (range: string) => (await issueKey(keys, { allowedIps: [range] })).key
    expect((await request('/projects', [`X-Api-Key: ${await bound('127.0.0.0/8')}`])).status).toBe(200)
    expect((await request('/projects', [`X-Api-Key: ${await bound('192.0.2.0/24')}`])).status).toBe(403)
  })

  it('serves a handler with Node alone', async () => {
    const { text } = blocksOf('Plain `node:http`')[0] as CodeBlock
    const code = text.replace(/^import .* from '\.\/.*'\n/m, '')
    const { server } = await runBlock(code, { listProjects: async () => new Response('here') }, ['server'])
    const [listener] = (server as NodeJS.EventEmitter).listeners('request') as RequestListener[]
    expect((await (await serve(listener as RequestListener))('/')).body).toBe('here')
  })

  it('reads the address where it is told to', async () => {
    const { keys, scope } = await setUp()
    const authenticate = (await run('The address', scope, 'authenticate')) as Handle
    const { key } = await issueKey(keys, { allowedIps: ['203.0.113.5'] })
    const from = (ip: string) => authenticate(ask('/', { 'X-Api-Key': key, 'X-Real-IP': ip }))
    expect([await from('203.0.113.5'), await from('192.0.2.1')]).toMatchObject([{ ok: true }, { ok: false }])
  })

  it('takes a login alone for what only a person may do', async () => {
    const { key, scope } = await setUp()
    const change = (await run('Sessions', scope, 'changePassword')) as Handle
    const by = await change(ask('/', { Cookie: 'u_1' }))
    expect(await by.json()).toEqual({ by: 'session' })
    expect((await change(ask('/', { Cookie: 'u_1', 'X-Api-Key': key }))).status).toBe(403)
    expect((await change(ask('/'))).status).toBe(401)
  })

  it('lets users manage keys, and nobody else', async () => {
    const { key, scope } = await setUp()
    const listProjects = async () => new Response('projects')
    const handle = (await run('Let users manage keys', { ...scope, listProjects }, 'handle')) as Handle
    const init = { method: 'POST', body: '{"name":"CI","permissions":{"projects":["read"]}}' }
    const json = { 'Content-Type': 'application/json' }
    expect((await handle(ask('/api-keys', { ...json, Cookie: 'u_2' }, init))).status).toBe(201)
    expect((await handle(ask('/api-keys', json, init))).status).toBe(401)
    expect((await handle(ask('/api-keys', { ...json, Cookie: 'u_2', 'X-Api-Key': key }, init))).status).toBe(
      403,
    )
    expect(await (await handle(ask('/projects'))).text()).toBe('projects')
  })
})
