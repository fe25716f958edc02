import { extractWWWAuthenticateParams } from '@modelcontextprotocol/sdk/client/auth.js'
import express, { type RequestHandler } from 'express'
import type { IssueOptions, ServiceRateLimit } from 'latchkey'
import { apiKeyAuth } from 'latchkey/express'
import { getAuth, type McpOptions, type McpWebGuard, mcpGuard, mcpWebGuard } from 'latchkey/mcp'
import { describe, expect, it, vi } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { listen } from '../support/raw-http.ts'
import { ALICE, createTestKeys, forgeKey } from '../support/test-keys.ts'
import { watchUnhandled } from '../support/unhandled.ts'

const MINUTE: ServiceRateLimit = { name: 'minute', limit: 100, windowMs: 60_000 }
const TOKENS: ServiceRateLimit = { name: 'tokens', limit: 100, windowMs: 60_000, only: 'named' }

const RULES: McpOptions = {
  tools: {
    search: { permissions: { docs: ['read'] }, cost: 3 },
    write: { permissions: [{ docs: ['write'] }, { admin: ['*'] }] },
    open: { permissions: ({ arguments: { id } }) => ({ [`doc:${id}`]: ['read'] }) },
    ask: { cost: { tokens: 20 } },
    sized: { cost: ({ arguments: { units } }) => units as number },
    echo: {},
  },
  prompts: { greet: { permissions: { prompts: ['use'] } } },
  resources: {
    'file:///docs/*': { permissions: { docs: ['read'] }, cost: 2 },
    'file:///docs/secret/*': { permissions: { secrets: ['read'] } },
    'docs://exact': {},
    'https://example.com': {},
  },
}

let nextId = 1

const call = (name: unknown, args?: unknown) => ({
  jsonrpc: '2.0',
  id: nextId++,
  method: 'tools/call',
  params: { name, ...(args !== undefined && { arguments: args }) },
})

const message = (method: string, params?: unknown) => ({ jsonrpc: '2.0', id: nextId++, method, params })

interface SetUp {
  options?: McpOptions
  rateLimits?: readonly ServiceRateLimit[]
  key?: Partial<IssueOptions>
  before?: readonly RequestHandler[]
}

/** A guard in front of a handler that tells what reaches it. */
async function setUp({ options, rateLimits = [MINUTE], key, before = [] }: SetUp = {}) {
  const test = createTestKeys({ rateLimits })
  const issued = await issueKey(test.keys, { permissions: { docs: ['read'] }, ...key })
  const reached: unknown[] = []
  const guard = mcpGuard(test.keys, { ...RULES, ...options })
  const app = express()
  app.all('/mcp', ...before, guard, (req, res) => {
    reached.push(req.body)
    res.json({ session: guard.sessionIdGenerator(req)() })
  })
  const port = await listen(app)
  const send = (method: string, headers: Record<string, string>, body?: string) =>
    fetch(`http://127.0.0.1:${port}/mcp`, { method, headers, ...(body !== undefined && { body }) })
  const post = (body: unknown, headers: Record<string, string> = {}, text = JSON.stringify(body)) =>
    send('POST', { 'content-type': 'application/json', 'x-api-key': issued.key, ...headers }, text)
  const used = async (name = 'minute', id = issued.apiKey.id) => {
    const state = (await test.keys.limits(id))?.find((limit) => limit.name === name)
    return (state?.limit ?? 0) - (state?.remaining ?? 0)
  }
  return { ...test, ...issued, guard, reached, port, send, post, used }
}

const statusAndCode = async (answer: Response) => [
  answer.status,
  ((await answer.json()) as { code: string }).code,
]

/** Sends a body of which most comes only when something has happened. */
async function guardSlowly(
  guard: McpWebGuard,
  key: string,
  body: unknown,
  meanwhile: () => Promise<unknown>,
) {
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>()
  const headers = { 'content-type': 'application/json', 'x-api-key': key }
  const init = { method: 'POST', headers, body: readable, duplex: 'half' } as const
  const outcome = guard(new Request('http://localhost/mcp', init))
  const writer = writable.getWriter()
  const text = new TextEncoder().encode(JSON.stringify(body))
  await writer.write(text.subarray(0, 10))
  await meanwhile()
  await writer.write(text.subarray(10))
  await writer.close()
  return outcome
}

describe('mcpGuard refuses, and spends nothing', () => {
  it.each<[string, unknown, number, string]>([
    ['a tool without a rule', call('drop'), 403, 'operation_not_allowed'],
    ['a tool called __proto__', call('__proto__'), 403, 'operation_not_allowed'],
    ['a tool called constructor', call('constructor'), 403, 'operation_not_allowed'],
    ['a tool that lacks a permission', call('write'), 403, 'insufficient_permissions'],
    ['a tool whose arguments need another', call('open', { id: 2 }), 403, 'insufficient_permissions'],
    ['arguments that name what no key holds', call('open', { id: '*/x y' }), 403, 'insufficient_permissions'],
    ['a cost that is none', call('sized', { units: 'all' }), 503, 'unavailable'],
    ['a negative cost', call('sized', { units: -5 }), 503, 'unavailable'],
    [
      'a prompt that lacks a permission',
      message('prompts/get', { name: 'greet' }),
      403,
      'insufficient_permissions',
    ],
    [
      'a completion of that prompt',
      message('completion/complete', { ref: { type: 'ref/prompt', name: 'greet' } }),
      403,
      'insufficient_permissions',
    ],
    [
      'a completion of an unknown prompt',
      message('completion/complete', { ref: { type: 'ref/prompt', name: 'x' } }),
      403,
      'operation_not_allowed',
    ],
    [
      'a resource without a rule',
      message('resources/read', { uri: 'file:///etc/passwd' }),
      403,
      'operation_not_allowed',
    ],
    [
      'a resource under a longer rule',
      message('resources/read', { uri: 'file:///docs/secret/a' }),
      403,
      'insufficient_permissions',
    ],
    [
      'a resource that leads elsewhere',
      message('resources/read', { uri: 'file:///docs/../etc/passwd' }),
      403,
      'operation_not_allowed',
    ],
    [
      'the same in percents',
      message('resources/read', { uri: 'file:///docs/%2e%2e/etc/passwd' }),
      403,
      'operation_not_allowed',
    ],
    [
      'one that leads under another rule',
      message('resources/read', { uri: 'file:///docs/x/../secret/a' }),
      403,
      'operation_not_allowed',
    ],
    [
      'one that leads there once it is decoded',
      message('resources/read', { uri: 'file:///docs/%73ecret/a' }),
      403,
      'operation_not_allowed',
    ],
    [
      'one that leads there, beside what cannot be decoded',
      message('resources/read', { uri: 'file:///docs/x/..%2f%73ecret/%zz' }),
      403,
      'operation_not_allowed',
    ],
    [
      'one that leads there by encoded slashes',
      message('resources/read', { uri: 'file:///docs/x%2f..%2Fsecret/a' }),
      403,
      'operation_not_allowed',
    ],
    [
      'one with a tab in it',
      message('resources/read', { uri: 'file:///docs/sec\tret/a' }),
      403,
      'operation_not_allowed',
    ],
    [
      'a subscription to a resource',
      message('resources/subscribe', { uri: 'file:///docs/secret/a' }),
      403,
      'insufficient_permissions',
    ],
    [
      'one of the subscriptions of a stream',
      message('subscriptions/listen', {
        notifications: { resourceSubscriptions: ['docs://exact', 'file:///etc'] },
      }),
      403,
      'operation_not_allowed',
    ],
    ['an unknown method', message('tasks/result', { taskId: '1' }), 403, 'operation_not_allowed'],
    ['a method of every object', message('toString'), 403, 'operation_not_allowed'],
    ['an unknown notification', { jsonrpc: '2.0', method: 'notifications/x' }, 403, 'operation_not_allowed'],
    ['a tool called as a notification', { ...call('write'), id: undefined }, 403, 'insufficient_permissions'],
  ])('%s', async (_what, body, status, code) => {
    const { post, used, reached } = await setUp()
    const answer = await post(body)
    expect(answer.headers.get('content-type')).toBe('application/problem+json')
    expect(await statusAndCode(answer)).toEqual([status, code])
    expect(await used()).toBe(0)
    expect(reached).toEqual([])
  })

  it.each<[string, string, number]>([
    ['an empty body', '', -32600],
    ['what is no JSON', '{', -32700],
    ['a text', '"x"', -32600],
    ['null', 'null', -32600],
    ['an empty batch', '[]', -32600],
    ['a batch in a batch', `[[${JSON.stringify(call('echo'))}]]`, -32600],
    ['a batch that is too long', JSON.stringify(Array(101).fill(call('echo'))), -32600],
    ['another protocol', '{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600],
    ['a request that is an answer too', '{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}', -32600],
    ['an id that is none', '{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600],
    ['an answer without id', '{"jsonrpc":"2.0","result":{}}', -32600],
    ['a method that is no text', '{"jsonrpc":"2.0","id":1,"method":["ping"]}', -32600],
    ['parameters that are no object', '{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', -32600],
    ['a tool that is no text', JSON.stringify(call(['echo'])), -32600],
    ['arguments that are no object', JSON.stringify(call('echo', ['x'])), -32600],
    [
      'a hidden prototype',
      '{"jsonrpc":"2.0","id":1,"result":{},"__proto__":{"method":"tools/call"}}',
      -32600,
    ],
    [
      'hidden parameters',
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","__proto__":{"name":"write"}}}',
      -32600,
    ],
    [
      'a hidden member of a parameter',
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"__proto__":{}}}}',
      -32600,
    ],
    ['arrays too deep to be anything', '['.repeat(200_000) + ']'.repeat(200_000), -32600],
  ])('%s, as JSON-RPC', async (_what, text, code) => {
    const { post, used, reached } = await setUp()
    const answer = await post(null, {}, text)
    expect(answer.status).toBe(400)
    expect(answer.headers.get('content-type')).toBe('application/json')
    expect(await answer.json()).toMatchObject({
      jsonrpc: '2.0',
      error: { code, data: { code: 'invalid_request' } },
    })
    expect(await used()).toBe(0)
    expect(reached).toEqual([])
  })

  it('a body that is too large, of another type or encoding, and other methods', async () => {
    const { post, send, key, reached } = await setUp({ options: { maxBodyBytes: 1_000 } })
    expect(await statusAndCode(await post(call('echo', { x: 'x'.repeat(1_000) })))).toEqual([
      413,
      'body_too_large',
    ])
    for (const headers of [{ 'content-type': 'text/plain' }, { 'content-encoding': 'gzip' }] as Record<
      string,
      string
    >[]) {
      expect(await statusAndCode(await post(call('echo'), headers))).toEqual([415, 'unsupported_media_type'])
    }
    const put = await send('PUT', { 'x-api-key': key })
    expect([put.status, put.headers.get('allow')]).toEqual([405, 'GET, POST, DELETE'])
    expect(reached).toEqual([])
  })

  it('strangers before it reads their body', async () => {
    const { keys, key } = await setUp()
    const guard = mcpWebGuard(keys, RULES)
    for (const sent of [undefined, 'junk', forgeKey(key, { secret: 'x'.repeat(43) })]) {
      const request = new Request('http://localhost/mcp', {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...(sent && { 'x-api-key': sent }) },
        body: '{',
      })
      expect(await guard(request)).toMatchObject({ ok: false, error: { status: 401 } })
      expect(request.bodyUsed).toBe(false)
    }
  })

  it('a key that was revoked while its body was under way', async () => {
    const { keys, key, apiKey } = await setUp()
    const guard = mcpWebGuard(keys, { tools: { free: { cost: 0 } } })
    const outcome = await guardSlowly(guard, key, call('free'), () => keys.revoke(apiKey.id))
    expect(outcome).toMatchObject({ ok: false, error: { code: 'invalid_key' } })
  })

  it('the rest of a batch, where a key was given what it lacked while its body was under way', async () => {
    const { keys, key, apiKey, used } = await setUp()
    const guard = mcpWebGuard(keys, RULES)
    const change = (permissions: Record<string, string[]>) => keys.update(apiKey.id, { permissions })
    const lacking = [call('write'), call('open', { id: 9 })]
    const grant = () => change({ docs: ['read', 'write'] })
    expect(await guardSlowly(guard, key, lacking, grant)).toMatchObject({
      ok: false,
      error: { details: { missing: { 'doc:9': ['read'] } } },
    })
    expect(await used()).toBe(0)
    await change({ docs: ['read'] })
    expect(await guardSlowly(guard, key, [call('write'), call('search')], grant)).toMatchObject({ ok: true })
    expect(await used()).toBe(4)
  })

  it('what a middleware in front has charged already', async () => {
    const keyed: RequestHandler[] = []
    const { keys, post, eventsOf, reached } = await setUp({ before: [(...args) => keyed[0]?.(...args)] })
    keyed[0] = apiKeyAuth(keys)
    expect((await post(call('search'))).status).toBe(503)
    expect(eventsOf('fault').map(({ error }) => String(error))).toEqual([
      expect.stringContaining('has charged this request'),
    ])
    keyed[0] = apiKeyAuth(keys, { cost: 0 })
    expect((await post(call('search'))).status).toBe(200)
    expect(reached).toHaveLength(1)
  })
})

describe('mcpGuard charges', () => {
  it('nothing for what a client needs to connect and to list, nor for its answers', async () => {
    const { post, send, key, used, reached } = await setUp()
    const free = [
      message('initialize', { protocolVersion: '2025-06-18' }),
      message('ping'),
      message('server/discover'),
      message('tools/list'),
      message('resources/subscribe', { uri: 'docs://exact' }),
      message('completion/complete', { ref: { type: 'ref/resource', uri: 'docs://exact' } }),
      message('subscriptions/listen', {
        notifications: { toolsListChanged: true, resourceSubscriptions: ['docs://exact'] },
      }),
      { jsonrpc: '2.0', method: 'notifications/initialized' },
      { jsonrpc: '2.0', id: 7, result: {} },
      { jsonrpc: '2.0', id: 'seven', error: { code: -1, message: 'no' } },
    ]
    for (const body of free) expect((await post(body)).status).toBe(200)
    for (const method of ['GET', 'DELETE'])
      expect((await send(method, { 'x-api-key': key })).status).toBe(200)
    expect(await used()).toBe(0)
    expect(reached).toHaveLength(free.length + 2)
  })

  it('each call what its rule says', async () => {
    const { post, used } = await setUp()
    const prices: [unknown, number][] = [
      [call('search'), 3],
      [call('echo'), 1],
      [call('sized', { units: 7 }), 7],
      [message('resources/read', { uri: 'file:///docs/a' }), 2],
      [message('resources/read', { uri: 'docs://exact' }), 1],
      [message('resources/read', { uri: 'https://example.com' }), 1],
      [message('resources/read', { uri: 'https://example.com/' }), 1],
    ]
    let sum = 0
    for (const [body, price] of prices) {
      const answer = await post(body)
      sum += price
      expect(answer.headers.get('ratelimit')).toBe(`"minute";r=${100 - sum};t=60`)
      expect(await used()).toBe(sum)
    }
  })

  it('a method by its rule, and refuses one that is switched off', async () => {
    const methods = {
      'tools/list': { cost: 4 },
      'tasks/get': { permissions: { docs: ['read'] } },
      ping: false,
    } as const
    const { post, used } = await setUp({ options: { methods } })
    expect((await post(message('tools/list'))).status).toBe(200)
    expect((await post(message('tasks/get', { taskId: '1' }))).status).toBe(200)
    expect((await post(message('ping'))).status).toBe(403)
    expect(await used()).toBe(4)
  })

  it('a batch whole: the sum of its costs, in one call to the limiter', async () => {
    const { post, used, limiter, reached } = await setUp()
    const check = vi.spyOn(limiter, 'check')
    const batch = [call('search'), call('echo'), message('ping'), call('sized', { units: 5 })]
    expect((await post(batch)).status).toBe(200)
    expect(await used()).toBe(9)
    expect(reached).toEqual([batch])
    expect(check.mock.calls.filter(([asked]) => asked.cost > 0)).toHaveLength(1)
  })

  it('a batch not at all, if one of its calls is refused or there is no room for all', async () => {
    const { post, used, reached } = await setUp({ rateLimits: [{ ...MINUTE, limit: 10 }] })
    for (const [last, status] of [
      [call('write'), 403],
      [call('drop'), 403],
      [call('sized', { units: 'x' }), 503],
      [call('sized', { units: 5 }), 429],
      [{ jsonrpc: '2.0' }, 400],
    ] as const) {
      expect((await post([call('search'), call('search'), last])).status).toBe(status)
    }
    expect(await used()).toBe(0)
    expect(reached).toEqual([])
    expect((await post([call('search'), call('search'), call('sized', { units: 4 })])).status).toBe(200)
    expect(await used()).toBe(10)
  })

  it('costs by name in a batch: a limit that counts every call counts each, the others only what names them', async () => {
    const { post, used } = await setUp({
      rateLimits: [MINUTE, TOKENS],
      key: { quota: { remaining: 50 } },
    })
    expect(
      (
        await post([
          call('ask'),
          call('ask'),
          call('echo'),
          call('sized', { units: { minute: 4, quota: 0 } }),
        ])
      ).status,
    ).toBe(200)
    expect([await used('minute'), await used('tokens')]).toEqual([1 + 1 + 1 + 4, 40])
    expect((await post([call('ask'), call('ask'), call('ask'), call('ask')])).status).toBe(429)
    expect([await used('minute'), await used('tokens')]).toEqual([7, 40])
    expect((await post([call('ask'), message('ping')])).status).toBe(200)
    expect([await used('minute'), await used('tokens')]).toEqual([8, 60])
  })

  it('nothing on a limit that no call of a batch counts on', async () => {
    const { post, used } = await setUp({ rateLimits: [MINUTE, { ...TOKENS, limit: 20 }] })
    expect((await post(call('ask'))).status).toBe(200)
    const named = call('sized', { units: { minute: 2 } })
    expect((await post([named, named, message('ping')])).status).toBe(200)
    expect([await used('minute'), await used('tokens')]).toEqual([5, 20])
  })

  it('the quota for each call of a batch', async () => {
    const { keys, post, apiKey } = await setUp({ rateLimits: [TOKENS], key: { quota: { remaining: 4 } } })
    expect((await post([call('ask'), call('ask'), call('echo')])).status).toBe(200)
    expect((await post([call('ask'), call('ask')])).status).toBe(429)
    expect((await keys.get(apiKey.id))?.quota?.remaining).toBe(1)
  })

  it('nobody twice at once beyond the limit', async () => {
    const { post, used, reached } = await setUp({ rateLimits: [{ ...MINUTE, limit: 10 }] })
    const answers = await Promise.all(Array.from({ length: 10 }, () => post([call('search'), call('echo')])))
    expect(answers.filter(({ ok }) => ok)).toHaveLength(2)
    expect(await used()).toBe(8)
    expect(reached).toHaveLength(2)
  })
})

describe('a rule of resources that is a function', () => {
  const options: McpOptions = {
    resources: {
      'file:///projects/*': {
        permissions: ({ name }) => ({ [`project:${name?.split('/')[4]}`]: ['read'] }),
        cost: ({ name }) => (name?.endsWith('/big') ? 10 : 1),
      },
    },
  }
  const read = (uri: string) => message('resources/read', { uri })

  it.each([
    'file:///projects/mine/../yours/plan',
    'file:///projects/mine/%2e%2e/yours/plan',
    'file:///projects/yours/../mine/plan',
    'file:///projects/mine\\..\\yours/plan',
    'file:///projects/mine%2F..%2Fyours/plan',
  ])('is asked about the URI as it was sent and as servers read it: %j', async (uri) => {
    const { post, used, reached } = await setUp({
      options,
      key: { permissions: { 'project:mine': ['read'] } },
    })
    expect((await post(read('file:///projects/mine/plan'))).status).toBe(200)
    expect(await statusAndCode(await post(read(uri)))).toEqual([403, 'insufficient_permissions'])
    expect(await used()).toBe(1)
    expect(reached).toHaveLength(1)
  })

  it('finds rules that are written in percents, and lets in what is', async () => {
    const { post } = await setUp({
      options: { resources: { 'docs://a/b%3Ac': {}, 'docs://a/d%3A*': {}, 'docs://e/*': {} } },
    })
    for (const uri of ['docs://a/b%3Ac', 'docs://a/d%3Ax', 'docs://e/%C3%BC%20f%2Fg%3A', 'docs://e/%zz']) {
      expect((await post(read(uri))).status).toBe(200)
    }
  })

  it('charges for what servers read, once', async () => {
    const { post, used } = await setUp({ options, key: { permissions: { 'project:mine': ['read'] } } })
    expect((await post(read('file:///projects/mine/x/../big'))).status).toBe(200)
    expect((await post(read('file:///projects/mine/b\tig'))).status).toBe(200)
    expect((await post(read('file:///projects/mine/x%2F..%2Fbig'))).status).toBe(200)
    expect(await used()).toBe(21)
  })
})

describe('a batch of subscriptions', () => {
  it('is refused where it is about too many resources', async () => {
    const { post } = await setUp()
    const resourceSubscriptions = Array.from({ length: 1_000 }, () => 'docs://exact')
    const listening = (length: number) =>
      Array.from({ length }, () =>
        message('subscriptions/listen', { notifications: { resourceSubscriptions } }),
      )
    expect((await post(listening(3))).status).toBe(200)
    expect(await (await post(listening(4))).json()).toMatchObject({ error: { code: -32600 } })
  })
})

describe('functions of a batch', () => {
  it('that fail, one at once and another later, do not end the process', async () => {
    const unhandled = watchUnhandled()
    const { post, used } = await setUp({
      options: {
        tools: {
          late: { cost: async ({ arguments: { text } }) => (text as string).length },
          soon: { cost: ({ arguments: { text } }) => (text as string).length },
        },
      },
    })
    const answer = await post([call('late'), call('soon')])
    expect(await statusAndCode(answer)).toEqual([503, 'unavailable'])
    expect(await unhandled()).toEqual([])
    expect(await used()).toBe(0)
  })
})

describe('the permissions of a batch', () => {
  it('may be met by different alternatives, and by names from the arguments', async () => {
    const { post } = await setUp({ key: { permissions: { docs: ['read'], admin: ['*'], 'doc:1': ['*'] } } })
    expect((await post([call('search'), call('write'), call('open', { id: 1 })])).status).toBe(200)
    const answer = await post([call('search'), call('open', { id: 1 }), call('open', { id: 2 })])
    expect(await answer.json()).toMatchObject({ missing: { 'doc:2': ['read'] } })
  })

  it('are too many to check at once beyond 256 resources', async () => {
    const { post } = await setUp({
      options: { maxBatchSize: 300 },
      key: { permissions: { '*': ['read'] } },
    })
    const calls = Array.from({ length: 257 }, (_call, id) => call('open', { id }))
    expect((await post(calls)).status).toBe(400)
    expect((await post(calls.slice(1, 90))).status).toBe(200)
  })
})

describe('the header fields', () => {
  const tool = { 'mcp-method': 'tools/call', 'mcp-name': 'search' }
  const uri = { 'mcp-name': 'file:///docs/a' }
  const read = message('resources/read', { uri: 'file:///docs/a' })

  it.each<[Record<string, string>, unknown]>([
    [tool, call('search')],
    [{ 'mcp-method': '  tools/call ' }, call('search')],
    [{ 'mcp-name': '=?base64?c2VhcmNo?=' }, call('search')],
    [{ 'mcp-name': '=?base64?ZmlsZTovLy9kb2NzL8Ok?=' }, message('resources/read', { uri: 'file:///docs/ä' })],
    [uri, read],
    [{ 'mcp-method': 'ping' }, message('ping')],
    [tool, [call('search'), call('search')]],
  ])('let in %j where the body says the same', async (headers, body) => {
    const { post } = await setUp()
    expect((await post(body, headers)).status).toBe(200)
  })

  it.each<[Record<string, string>, unknown]>([
    [{ 'mcp-method': 'tools/list' }, call('search')],
    [{ 'mcp-method': 'TOOLS/CALL' }, call('search')],
    [{ 'mcp-name': 'echo' }, call('search')],
    [{ 'mcp-name': 'Search' }, call('search')],
    [{ 'mcp-name': 'search, search' }, call('search')],
    [{ 'mcp-name': '' }, call('search')],
    [{ 'mcp-name': '=?base64?c2VhcmNo=?=' }, call('search')],
    [{ 'mcp-name': '=?base64?/w==?=' }, call('search')],
    [{ 'mcp-name': '=?base64?c2VhcmNo?=' }, call('=?base64?c2VhcmNo?=')],
    [{ 'mcp-name': 'search' }, message('tools/list')],
    [{ 'mcp-name': 'search' }, message('tools/list', { name: 'search' })],
    [{ 'mcp-method': 'tools/call' }, { jsonrpc: '2.0', id: 1, result: {} }],
    [tool, [call('search'), call('echo')]],
    [{ 'mcp-name': 'file:///docs/' }, read],
  ])('refuse %j where the body does not', async (headers, body) => {
    const { post, used, reached } = await setUp()
    const answer = await post(body, headers)
    expect(answer.status).toBe(400)
    expect(await answer.json()).toMatchObject({
      id: (Array.isArray(body) ? body.at(-1) : (body as { id: number })).id,
      error: { code: -32020, message: expect.stringMatching(/^Header mismatch: Mcp-(Name|Method) differs/) },
    })
    expect(await used()).toBe(0)
    expect(reached).toEqual([])
  })
})

describe('a session', () => {
  async function openSession(options?: McpOptions) {
    const test = await setUp(options && { options })
    const { session } = (await (await test.post(message('initialize'))).json()) as { session: string }
    const ask = async (key: string, id = session) => {
      const headers = { 'x-api-key': key, 'mcp-session-id': id }
      const answers = await Promise.all([
        test.post(call('echo'), headers),
        test.send('GET', headers),
        test.send('DELETE', headers),
      ])
      return answers.map(({ status }) => status)
    }
    return { ...test, session, ask }
  }

  it('belongs to the key that opened it, and no other finds out that it exists', async () => {
    const { keys, key, session, ask, post, used, reached } = await openSession()
    expect(await ask(key)).toEqual([200, 200, 200])
    const other = await issueKey(keys, { permissions: { docs: ['read'] } })
    reached.length = 0
    expect(await ask(other.key)).toEqual([404, 404, 404])
    expect(await used('minute', other.apiKey.id)).toBe(0)
    expect(reached).toEqual([])
    const bodies = await Promise.all(
      [session, `${'A'.repeat(22)}.${'A'.repeat(43)}`].map(async (id) => {
        const answer = await post(call('echo'), { 'x-api-key': other.key, 'mcp-session-id': id })
        return [[...answer.headers].filter(([name]) => name !== 'date'), await answer.text()]
      }),
    )
    expect(bodies[0]).toEqual(bodies[1])
    expect(bodies[0]?.[1]).toContain('"code":"session_not_found"')
  })

  it('goes on with the successor of a rotated key, and ends for a revoked one', async () => {
    const { keys, key, apiKey, ask } = await openSession()
    const next = await keys.rotate(apiKey.id, { graceMs: 60_000 })
    expect(await ask(next.key)).toEqual([200, 200, 200])
    expect(await ask(key)).toEqual([200, 200, 200])
    await keys.revoke(apiKey.id)
    expect(await ask(key)).toEqual([401, 401, 401])
  })

  it('is no other text: forged, cut, joined or made with another secret', async () => {
    const { key, session, ask } = await openSession()
    const other = await openSession()
    for (const id of [
      'x',
      session.slice(0, -1),
      `${session}A`,
      `${session}, ${session}`,
      session.toUpperCase(),
      other.session,
    ]) {
      expect(await ask(key, id)).toEqual([404, 404, 404])
    }
  })

  it('is known to every process that has the secret', async () => {
    const sessionSecret = 'a secret of at least 32 characters'
    const { keys, key, session } = await openSession({ sessionSecret })
    const request = () =>
      new Request('http://localhost/mcp', { headers: { 'x-api-key': key, 'mcp-session-id': session } })
    expect(await mcpWebGuard(keys, { ...RULES, sessionSecret })(request())).toMatchObject({ ok: true })
    expect(await mcpWebGuard(keys, RULES)(request())).toMatchObject({ ok: false, error: { status: 404 } })
    const alone = mcpWebGuard(keys, RULES)
    const caller = await alone(new Request('http://localhost/mcp', { headers: { 'x-api-key': key } }))
    const headers = { 'x-api-key': key, 'mcp-session-id': caller.ok ? caller.sessionIdGenerator() : '' }
    const again = () => new Request('http://localhost/mcp', { headers })
    expect(await alone(again())).toMatchObject({ ok: true })
    expect(await mcpWebGuard(keys, RULES)(again())).toMatchObject({ ok: false, error: { status: 404 } })
  })

  it('with an id of the transport’s own is warned of, once', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { keys } = createTestKeys()
    const issued = await issueKey(keys)
    const app = express()
    const guard = mcpGuard(keys)
    app.all('/', guard, (req, res) => {
      const own = req.headers.own !== undefined
      res.set('mcp-session-id', own ? 'of-its-own' : guard.sessionIdGenerator(req)()).json({})
    })
    const url = `http://127.0.0.1:${await listen(app)}/`
    await fetch(url, { headers: { 'x-api-key': issued.key } })
    expect(warn).not.toHaveBeenCalled()
    for (let i = 0; i < 2; i += 1) await fetch(url, { headers: { 'x-api-key': issued.key, own: '1' } })
    expect(warn.mock.calls).toEqual([
      [expect.stringContaining('sessionIdGenerator'), { code: 'LATCHKEY_MCP_SESSION' }],
    ])
  })
})

describe('a 401', () => {
  const METADATA = 'https://mcp.example.com/.well-known/oauth-protected-resource'

  it('names no Bearer, so that clients do not begin an OAuth flow', async () => {
    const { post } = await setUp()
    for (const [key, challenge] of [
      ['', 'Api-Key realm="Users"'],
      ['junk', 'Api-Key realm="Users", error="invalid_key"'],
    ] as const) {
      const answer = await post(call('echo'), { 'x-api-key': key })
      expect([answer.status, answer.headers.get('www-authenticate')]).toEqual([401, challenge])
      expect(extractWWWAuthenticateParams(answer)).toEqual({})
    }
  })

  it('leads the SDK to the metadata, where there are any', async () => {
    const { post, key } = await setUp({ options: { resourceMetadata: METADATA, realm: 'MCP' } })
    const bare = await post(call('echo'), { 'x-api-key': '' })
    expect(bare.headers.get('www-authenticate')).toBe(
      `Bearer realm="MCP", resource_metadata="${METADATA}", Api-Key realm="MCP"`,
    )
    const invalid = await post(call('echo'), {
      'x-api-key': '',
      authorization: `Bearer ${forgeKey(key, { secret: 'x'.repeat(43) })}`,
    })
    for (const answer of [bare, invalid]) {
      expect(extractWWWAuthenticateParams(answer).resourceMetadataUrl?.href).toBe(METADATA)
    }
    expect(extractWWWAuthenticateParams(invalid).error).toBe('invalid_token')
  })
})

describe('handlers', () => {
  it('get the one object that was parsed and checked', async () => {
    const { post, reached } = await setUp({ before: [express.json()] })
    await post(
      null,
      {},
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"write","name":"echo"}}',
    )
    expect(reached).toEqual([{ jsonrpc: '2.0', id: 1, method: 'tools/call', params: { name: 'echo' } }])
  })

  it.each([express.raw({ type: '*/*' }), express.text({ type: '*/*' })])(
    'get it parsed where a middleware read it: %o',
    async (parser) => {
      const { post, reached } = await setUp({ before: [parser] })
      const body = call('echo')
      expect((await post(body)).status).toBe(200)
      expect(reached).toEqual([body])
      expect((await post(call('write'))).status).toBe(403)
    },
  )

  it('get the key and its user, and never the text of the key', async () => {
    const { keys } = createTestKeys()
    const { key, apiKey } = await issueKey(keys, {
      permissions: { docs: ['read', '*'], odd: ['a:b'] },
      expiresAt: new Date('2026-02-01T00:00:00.500Z'),
    })
    const resolveUser = vi.fn(() => ({ id: 'u_1' }))
    const guard = mcpWebGuard(keys, { ...RULES, resolveUser, resourceMetadata: 'https://mcp.example.com/x' })
    const ask = (name: string) =>
      guard(
        new Request('http://localhost/mcp', {
          method: 'POST',
          headers: { 'content-type': 'application/json', 'x-api-key': key },
          body: JSON.stringify(call(name)),
        }),
      )
    expect(await ask('drop')).toMatchObject({ ok: false, error: { code: 'operation_not_allowed' } })
    expect(resolveUser).not.toHaveBeenCalled()
    const caller = await ask('search')
    if (!caller.ok) throw caller.error
    expect(resolveUser).toHaveBeenCalledOnce()
    expect(caller.authInfo).toEqual({
      token: apiKey.id,
      clientId: apiKey.lineageId,
      scopes: ['docs:read', 'docs:*'],
      expiresAt: Date.parse('2026-02-01') / 1000,
      resourceMetadataUrl: 'https://mcp.example.com/x',
      extra: { apiKey: expect.objectContaining({ id: apiKey.id }), user: { id: 'u_1' } },
    })
    expect(getAuth(caller.authInfo)).toEqual({
      method: 'apikey',
      user: { id: 'u_1' },
      apiKey: caller.authInfo.extra.apiKey,
    })
    expect(JSON.stringify(caller)).not.toContain(key.slice(-49))
  })

  it.each([undefined, {}, { extra: {} }, { extra: { apiKey: { id: 'x' }, user: {} } }])(
    'cannot take %j for a key',
    (made) => {
      expect(() => getAuth(made)).toThrow('found no API key')
    },
  )

  it('that a guard did not let in make no session ids', async () => {
    const { guard } = await setUp()
    expect(() => guard.sessionIdGenerator({} as never)).toThrow(TypeError)
  })

  it('keep a place of a concurrent limit until the response ends', async () => {
    const { keys } = createTestKeys({ rateLimits: [{ name: 'running', concurrent: 1 }, TOKENS] })
    const { key } = await issueKey(keys)
    const guard = mcpWebGuard(keys, RULES)
    const ask = (body: unknown) =>
      guard(
        new Request('http://localhost/mcp', {
          method: 'POST',
          headers: { 'content-type': 'application/json', 'x-api-key': key },
          body: JSON.stringify(body),
        }),
      )
    const first = await ask([call('ask'), call('echo')])
    expect(await ask(call('echo'))).toMatchObject({ ok: false, error: { code: 'rate_limited' } })
    expect(await ask(message('ping'))).toMatchObject({ ok: true })
    if (!first.ok) throw first.error
    await first.finish(new Response('done')).text()
    expect(await ask(call('echo'))).toMatchObject({ ok: true })
  })
})

describe('mcpGuard checks', () => {
  it.each<[string, object, string]>([
    ['an unknown option', { tool: {} }, 'did you mean "tools"'],
    ['an option of other doors', { permissions: {} }, 'no option "permissions"'],
    ['tools that are a list', { tools: ['search'] }, '"tools" must be an object of rules by name'],
    ['a rule that is true', { tools: { search: true } }, '"tools.search" must be an object'],
    ['a rule that is false', { tools: { search: false } }, '"tools.search" must be an object'],
    ['a misspelt rule', { tools: { search: { permission: {} } } }, 'did you mean "permissions"'],
    [
      'permissions that require nothing',
      { tools: { search: { permissions: {} } } },
      '"tools.search.permissions" must name at least one',
    ],
    ['a negative cost', { prompts: { greet: { cost: -1 } } }, '"prompts.greet.cost" must be'],
    [
      'a star in the middle',
      { resources: { 'docs://*/x': {} } },
      '"resources" must have a "*" only at the end',
    ],
    ['a method that has rules of its own', { methods: { 'tools/call': {} } }, 'see "tools"'],
    ['a short secret', { sessionSecret: 'short' }, '"sessionSecret" must be at least 32'],
    ['metadata that are no URL', { resourceMetadata: '/x' }, '"resourceMetadata" must be the URL'],
    ['an address that is no function', { ip: '::1' }, '"ip" must be a function'],
    ['a batch of none', { maxBatchSize: 0 }, '"maxBatchSize" must be a positive'],
    ['a body of none', { maxBodyBytes: 0 }, '"maxBodyBytes" must be a positive'],
  ])('its options: %s', (_what, options, message) => {
    const { keys } = createTestKeys()
    expect(() => mcpGuard(keys, options)).toThrow(message)
    expect(() => mcpWebGuard(keys, options)).toThrow(message)
  })

  it('the address', async () => {
    const { post, keys } = await setUp({ key: { allowedIps: ['127.0.0.1'] } })
    expect((await post(call('echo'))).status).toBe(200)
    const other = await issueKey(keys, { owner: ALICE, allowedIps: ['10.0.0.1'] })
    expect(await statusAndCode(await post(call('echo'), { 'x-api-key': other.key }))).toEqual([
      403,
      'address_not_allowed',
    ])
    const plain = mcpGuard(keys)
    const port = await listen((req, res) => plain(req, res, () => res.end()))
    for (const [key, status] of [
      [other.key, 403],
      [(await issueKey(keys, { allowedIps: ['127.0.0.1'] })).key, 200],
    ] as const) {
      expect((await fetch(`http://127.0.0.1:${port}`, { headers: { 'x-api-key': key } })).status).toBe(status)
    }
    const guard = mcpWebGuard(keys, RULES)
    const request = () => new Request('http://localhost/mcp', { headers: { 'x-api-key': other.key } })
    expect(await guard(request())).toMatchObject({ ok: false, error: { code: 'address_not_allowed' } })
    expect(await guard(request(), { ip: '10.0.0.1' })).toMatchObject({ ok: true })
  })

  it('that the store answers', async () => {
    const { keys, store } = createTestKeys()
    const { key } = await issueKey(keys)
    vi.spyOn(store, 'find').mockRejectedValue(new Error('down'))
    const request = new Request('http://localhost/mcp', { headers: { 'x-api-key': key } })
    expect(await mcpWebGuard(createTestKeys({ store }).keys)(request)).toMatchObject({
      ok: false,
      error: { code: 'unavailable' },
      response: { status: 503 },
    })
  })
})
