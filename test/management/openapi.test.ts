import { Validator } from '@seriousme/openapi-schema-validator'
import { type ApiKey, LatchkeyError } from 'latchkey'
import { describe, expect, it } from 'vitest'
import { codesOf, openApiDocument } from '../../lib/management/openapi.ts'
import { OPERATIONS, type OperationId } from '../../lib/management/operations.ts'
import { NAMED } from '../../lib/management/schemas.ts'
import {
  type ApiAnswer,
  type CallOptions,
  createWorld,
  type World,
  type WorldOptions,
} from '../support/management-world.ts'
import {
  type RecordingStore,
  recordingStore,
  rejects,
  answers as replies,
} from '../support/recording-store.ts'
import { ALICE, createTestKeys, forgeKey, NAME } from '../support/test-keys.ts'

const document = JSON.parse(openApiDocument())
const READ = { projects: ['read'] }
const VERIFIER = { ...NAME, permissions: { 'api-keys': ['verify'] } }

interface Request extends CallOptions {
  readonly method: string
  readonly path: string
}

/** A request for each operation that is right, made by Alice or by `key`. */
function requestFor(id: OperationId, apiKey: ApiKey, key: string): Request {
  const own = { as: 'alice' }
  const path = `/${apiKey.id}`
  switch (id) {
    case 'list':
      return { ...own, method: 'GET', path: '/' }
    case 'issue':
      return { ...own, method: 'POST', path: '/', json: { name: 'new' } }
    case 'read':
      return { ...own, method: 'GET', path }
    case 'limits':
      return { ...own, method: 'GET', path: `${path}/limits` }
    case 'usage':
      return { ...own, method: 'GET', path: `${path}/usage` }
    case 'unused_permissions':
      return { ...own, method: 'GET', path: `${path}/unused-permissions` }
    case 'owner_usage':
      return { ...own, method: 'GET', path: `/usage?ownerType=${ALICE.type}&ownerId=${ALICE.id}` }
    case 'update':
      return { ...own, method: 'PATCH', path, json: { name: 'renamed' } }
    case 'delete':
      return { ...own, method: 'DELETE', path }
    case 'revoke_all':
      return { ...own, method: 'POST', path: '/revoke', json: { owner: ALICE } }
    case 'erase':
      return { as: 'admin', method: 'POST', path: '/erase', json: { owner: ALICE } }
    case 'explain':
      return { as: 'admin', method: 'POST', path: '/explain', json: { id: apiKey.id } }
    case 'self':
      return { key, method: 'GET', path: '/self' }
    case 'self_revoke':
      return { key, method: 'POST', path: '/self/revoke', json: {} }
    case 'verify':
      return { key, method: 'POST', path: '/verify', json: { key } }
    case 'openapi':
      return { method: 'GET', path: '/openapi.json' }
    default:
      return { ...own, method: 'POST', path: `${path}/${id}`, json: {} }
  }
}

/** How one refusal comes about: what the world is like, and how the right request differs. */
interface Scenario {
  readonly options?: (id: OperationId) => WorldOptions
  readonly prepare?: (given: Given) => Promise<Partial<Request> | undefined>
  readonly request?: (id: OperationId) => Partial<Request>
}

interface Given {
  readonly world: World
  readonly id: OperationId
  readonly apiKey: ApiKey
  readonly request: Request
  send(request: Request): Promise<ApiAnswer>
}

const isOfKeys = (id: OperationId) => id === 'self' || id === 'self_revoke' || id === 'verify'
const tellsOfUse = (id: OperationId) => ['usage', 'owner_usage', 'unused_permissions'].includes(id)
const MAX_LIFE = { clientFields: { expiresAt: { maxMs: 86_400_000 } } }

/** A key that holds what any operation asks for, and more that is said. */
const withKey = (more: object) => async (given: Given) => {
  const permissions = { ...READ, 'api-keys': ['verify'] }
  const { key } = await given.world.keys.issue({ ...NAME, permissions, ...more })
  return { key }
}

const onRevoked = async ({ world, apiKey }: Given) => {
  await world.keys.revoke(apiKey.id)
  return undefined
}

/** A new key that was taken back, since the store failed when it was to be counted. */
const onUncounted = async ({ world, send, request }: Given) => {
  const headers = { 'Idempotency-Key': 'a' }
  let reads = 0
  world.store.fail('list', async (work) => {
    reads += 1
    if (reads > 2) throw new Error('down')
    return work()
  })
  await send({ ...request, headers })
  world.store.heal('list')
  return { headers }
}

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  invalid_request: { request: () => ({}) },
  missing_key: { request: () => ({ key: undefined as never }) },
  authentication_required: { request: () => ({ as: 'a stranger' }) },
  session_required: { prepare: withKey({}) },
  multiple_credentials: {
    request: () => ({ headers: { Authorization: 'Api-Key acme_test_a', 'X-Api-Key': 'acme_test_b' } }),
  },
  invalid_key: { request: () => ({ key: 'acme_test_wrong' }) },
  address_not_allowed: { prepare: withKey({ allowedIps: ['192.0.2.1'] }) },
  too_many_failures: {
    async prepare({ world, send, request }) {
      const { key } = await world.keys.issue(NAME)
      // What is no key by its shape is not counted.
      const wrong = { key: forgeKey(key, { secret: 'x'.repeat(43) }) }
      await send({ ...request, ...wrong })
      expect(world.eventsOf('address.blocked')).toHaveLength(1)
      return wrong
    },
  },
  rate_limited: {
    async prepare(given) {
      const asked = await withKey({ rateLimits: [{ name: 'once', limit: 1, windowMs: 60_000 }] })(given)
      await given.world.keys.verify(asked.key)
      return asked
    },
  },
  quota_exceeded: { prepare: withKey({ quota: { remaining: 0 } }) },
  insufficient_permissions: { prepare: withKey({ permissions: {} }) },
  too_many_requests: {
    options: () => ({ requestLimit: { limit: 1, verify: 1 } }),
    async prepare({ id, send, request }) {
      await send(id === 'verify' ? { ...request, json: { key: 'wrong' } } : request)
      return undefined
    },
  },
  cross_site: { request: () => ({ headers: { 'Sec-Fetch-Site': 'cross-site' } }) },
  unsupported_media_type: { request: () => ({ headers: { 'Content-Type': 'text/plain' } }) },
  body_too_large: {
    options: () => ({ maxBodyBytes: 20 }),
    request: () => ({ body: ' '.repeat(21), json: undefined }),
  },
  not_found: {
    async prepare({ world, id }) {
      // It was there when it was verified.
      if (id === 'self_revoke') world.store.fail('update', replies('missing'))
      return undefined
    },
  },
  precondition_failed: { request: () => ({ headers: { 'If-Match': '"99"' } }) },
  not_permitted: { request: () => ({ as: 'nobodys' }) },
  unavailable: {
    async prepare({ world, id }) {
      const { key } = await world.keys.issue(VERIFIER)
      for (const method of ['find', 'list', 'insert', 'update', 'readUsage'] as const) {
        world.store.fail(method, rejects(new Error('down')))
      }
      return isOfKeys(id) ? { key } : undefined
    },
  },
  permissions_exceeded: {
    async prepare({ world, id, apiKey }) {
      await world.keys.update(apiKey.id, { permissions: { projects: ['delete'] } })
      if (id === 'enable' || id === 'rotate') return undefined
      return { json: { name: 'x', permissions: { projects: ['delete'], reports: ['read'] } } }
    },
  },
  field_not_allowed: {
    options: () => ({ clientFields: { expiresAt: false } }),
    request: (id) => ({ json: { ...(id !== 'rotate' && { name: 'x' }), expiresAt: null } }),
  },
  ceiling_exceeded: {
    options: () => MAX_LIFE,
    request: (id) => ({ json: { ...(id !== 'rotate' && { name: 'x' }), expiresAt: '2099-01-01T00:00:00Z' } }),
  },
  too_many_keys: {
    options: () => ({ maxKeysPerOwner: 1 }),
    async prepare({ world, id, apiKey }) {
      if (id === 'issue') return undefined
      if (id === 'rotate') {
        const { apiKey: successor } = await world.keys.rotate(apiKey.id)
        return { path: `/${successor.id}/rotate` }
      }
      const expiresAt = new Date(world.clock.now() + 1_000)
      const { apiKey: ended } = await world.keys.issue({ ...NAME, expiresAt })
      await world.clock.advance(2_000)
      return { path: `/${ended.id}`, json: { expiresAt: null } }
    },
  },
  already_done: {
    async prepare({ send, request }) {
      const headers = { 'Idempotency-Key': 'a' }
      await send({ ...request, headers })
      return { headers }
    },
  },
  conflict: {
    options: () => ({ maxKeysPerOwner: 5 }),
    async prepare(given) {
      if (given.id === 'issue') return onUncounted(given)
      if (given.id === 'erase') {
        // A key that cannot be got rid of.
        given.world.store.fail('purge', replies(0))
        return undefined
      }
      if (!['revoke', 'delete', 'self_revoke', 'revoke_all'].includes(given.id)) return onRevoked(given)
      given.world.store.fail('update', replies('conflict'))
      return undefined
    },
  },
  invalid_cursor: { request: () => ({ path: '/?cursor=nonsense' }) },
  unsupported: {
    async prepare({ world }) {
      for (const method of ['insert', 'update'] as const) {
        world.store.fail(method, rejects(new LatchkeyError('unsupported')))
      }
      return undefined
    },
  },
}

async function produce(id: OperationId, code: string): Promise<ApiAnswer> {
  const scenario = SCENARIOS[code] ?? {}
  const store = recordingStore()
  const failing = code === 'too_many_failures' ? { failedAttempts: { limit: 1 } } : {}
  const uncounted = code === 'unsupported' && tellsOfUse(id) ? { usage: { keepDays: 0 } } : {}
  const tested = createTestKeys({ store, ...failing, ...uncounted })
  const { keys } = tested
  const world = await createWorld(scenario.options?.(id), undefined, tested)
  const { apiKey } = await keys.issue({ ...NAME, permissions: READ })
  const { key } = await keys.issue(VERIFIER)
  const send = ({ method, path, ...options }: Request) => world.call(method, path, options)
  const right = requestFor(id, apiKey, key)
  const given: Given = { world, id, apiKey, request: right, send }
  const prepared = await scenario.prepare?.(given)
  const request = { ...right, ...scenario.request?.(id), ...prepared }
  if (code === 'unsupported' && id === 'erase') request.json = { owner: ALICE }
  if (code === 'invalid_request') request.path += request.path.includes('?') ? '&nonsense=1' : '?nonsense=1'
  if (code === 'not_found') request.path = request.path.replace(apiKey.id, '0000000000000000')
  return send(request)
}

describe('the document', () => {
  it('is a valid one of OpenAPI 3.1', async () => {
    const validator = new Validator()
    expect(await validator.validate(structuredClone(document))).toEqual({ valid: true })
    expect(validator.version).toBe('3.1')
  })

  it('names every reference that it makes', () => {
    const names = [...openApiDocument().matchAll(/"#\/components\/schemas\/(\w+)"/g)].map(([, name]) => name)
    expect(names.length).toBeGreaterThan(20)
    expect(names.filter((name) => !((name as string) in document.components.schemas))).toEqual([])
  })

  it('describes every operation of the interface once', () => {
    const described = Object.entries(
      document.paths as Record<string, Record<string, { operationId: string }>>,
    )
      .flatMap(([path, methods]) =>
        Object.entries(methods).map(([method, { operationId }]) => [method.toUpperCase(), path, operationId]),
      )
      .sort()
    expect(described).toEqual(OPERATIONS.map(({ method, path, id }) => [method, path, id]).sort())
  })
})

describe.each(OPERATIONS.map((operation) => [operation.id, operation] as const))('%s', (id, operation) => {
  const { method, path, success } = operation
  const { responses } = document.paths[path][method.toLowerCase()]

  it.each(codesOf(operation))('is refused with %s, as documented', async (code) => {
    const answer = await produce(id, code)
    expect(answer.body).toMatchObject({ code, status: answer.status })
    expect(answer.headers.get('content-type')).toBe('application/problem+json')
    expect(answer.headers.get('cache-control')).toBe('no-store')
    const { schema } = responses[answer.status].content['application/problem+json']
    expect(schema.properties.code.enum).toContain(code)
    expect(NAMED.Problem.safeParse(answer.body).success).toBe(true)
    const described = { ...document.components.schemas.Problem.properties, ...schema.properties }
    expect(Object.keys(described)).toEqual(expect.arrayContaining(Object.keys(answer.body)))
    if (answer.status === 401) expect(answer.headers.get('www-authenticate')).toMatch(/realm="Users"/)
  })

  it('answers what is documented where all is well', async () => {
    const { keys, call } = await createWorld()
    const { apiKey } = await keys.issue({ ...NAME, permissions: READ })
    const { key } = await keys.issue(VERIFIER)
    if (id === 'enable') await keys.disable(apiKey.id)
    const { method: verb, path: to, ...options } = requestFor(id, apiKey, key)
    const answer = await call(verb, to, options)
    expect(answer.status).toBe(success.status)
    expect(answer.headers.get('content-type')).toBe('application/json; charset=utf-8')
    expect(answer.headers.get('cache-control')).toBe('no-store')
    if (success.schema === null) expect(answer.body).toEqual(document)
    else expect(NAMED[success.schema].parse(answer.body)).toEqual(answer.body)
    const { headers = {} } = responses[success.status]
    if (headers.ETag) expect(answer.headers.get('etag')).toMatch(/^"\d+"$/)
  })

  it.each<[string, (store: RecordingStore) => void]>([
    ['every change loses its race', (store) => store.fail('update', replies('conflict'))],
    ['the key is gone before it is changed', (store) => store.fail('update', replies('missing'))],
    ['no key can be removed', (store) => store.fail('purge', replies(0))],
    ['the store takes no writes', (store) => store.fail('update', rejects(new LatchkeyError('read_only')))],
  ])('answers nothing but what is documented where %s', async (_what, fail) => {
    const store = recordingStore()
    const tested = createTestKeys({ store })
    const world = await createWorld({}, undefined, tested)
    const { apiKey } = await tested.keys.issue({ ...NAME, permissions: READ })
    const { key } = await tested.keys.issue(VERIFIER)
    if (id === 'enable') await tested.keys.disable(apiKey.id)
    fail(store)
    const { method: verb, path: to, ...options } = requestFor(id, apiKey, key)
    const { status, body } = await world.call(verb, to, options)
    if (status !== success.status) expect(codesOf(operation)).toContain((body as { code: string }).code)
  })

  it('documents no status besides', () => {
    const produced = codesOf(operation).map((code) => String(statusOf(code)))
    expect(Object.keys(responses).sort()).toEqual([...new Set([String(success.status), ...produced])].sort())
  })
})

function statusOf(code: string): number {
  const entry = Object.values(document.paths as Record<string, Record<string, { responses: object }>>)
    .flatMap((methods) => Object.values(methods))
    .flatMap(({ responses }) => Object.entries(responses))
    .find(([, { content }]) =>
      content['application/problem+json']?.schema.properties.code.enum.includes(code),
    )
  return Number(entry?.[0])
}
