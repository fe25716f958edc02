import { describe, expect, it } from 'vitest'
import { openApiDocument } from '../../lib/management/openapi.ts'
import { times } from '../support/long-run.ts'
import {
  type ApiAnswer,
  type CallOptions,
  createWorld,
  ROUTERS,
  type World,
} from '../support/management-world.ts'
import { ALICE, NAME } from '../support/test-keys.ts'

/**
 * Sends to every operation of the document, in every field that it describes, what nobody should send. Whatever comes back has to be
 * an answer that is documented; nothing hangs, nothing breaks, and no secret is in it.
 */

const SEED = Number(process.env.FUZZ_SEED ?? 20_260_115)
const RUNS = Number(process.env.FUZZ_RUNS ?? times({ short: 25, soak: 250 }))

type Schema = { readonly [member: string]: unknown }
type Path = readonly (string | number)[]

const document = JSON.parse(openApiDocument())

interface Described {
  readonly operationId: string
  readonly method: string
  readonly path: string
  readonly parameters: readonly { readonly name: string; readonly in: string }[]
  readonly body: Schema | null
  readonly statuses: readonly string[]
}

const OPERATIONS: readonly Described[] = Object.entries(
  document.paths as Record<string, Record<string, Schema>>,
).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, { operationId, parameters, requestBody, responses }]) => ({
    operationId: operationId as string,
    method: method.toUpperCase(),
    path,
    parameters: (parameters ?? []) as Described['parameters'],
    body: requestBody
      ? ((requestBody as { content: Record<string, { schema: Schema }> }).content['application/json']
          ?.schema ?? null)
      : null,
    statuses: Object.keys(responses as object),
  })),
)

const HOSTILE: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  0.5,
  1e308,
  Number.MAX_SAFE_INTEGER,
  '',
  ' ',
  '0',
  'x'.repeat(10_000),
  '\u0000',
  '\ud800',
  '\u202e\u200b🔑',
  "' OR 1=1 --",
  '../../etc/passwd',
  '__proto__',
  'constructor',
  '9999-12-31T23:59:59Z',
  '0000-00-00T00:00:00Z',
  [],
  [null],
  Array.from({ length: 300 }, () => 'x'),
  {},
  { $gt: '' },
  { toString: 1, valueOf: 2, hasOwnProperty: 3, length: -1 },
  JSON.parse('{"__proto__":{"admin":true}}'),
  { constructor: { prototype: { admin: true } } },
  { '*': ['*'] },
  Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`r${i}`, ['a']])),
]

const NAMES = [
  '__proto__',
  'constructor',
  'prototype',
  'toString',
  'hasOwnProperty',
  'then',
  '',
  'admin',
  'é\u0000',
  '$where',
]

const RAW_BODIES: readonly (string | Uint8Array)[] = [
  '',
  '{',
  'null',
  '[]',
  '"x"',
  '1e999',
  '{"a":1}{"b":2}',
  '\ufeff{}',
  '['.repeat(60_000),
  `${'{"metadata":'.repeat(5_000)}1${'}'.repeat(5_000)}`,
  `{"name":"x","metadata":${'{"a":'.repeat(69)}1${'}'.repeat(69)}}`,
  '{"name":"a","name":{"b":1}}',
  new Uint8Array([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d]),
  new Uint8Array([0, 1, 2, 3]),
  'x'.repeat(70_000),
]

const IDS = [
  '%00',
  '__proto__',
  'constructor',
  'x'.repeat(5_000),
  '%F0%9F%94%91',

  '..%2f..',
  '*',
  '%',
  "'",
  '%ED%A0%80',
]

const HEADER_VALUES = [
  '',
  'x'.repeat(2_000),
  '"1"',
  'W/"1"',
  '"',
  '*',
  '"a", "b"',
  '-1',
  '\u00e9',
  '__proto__',
  '{}',
]

interface Attack extends CallOptions {
  readonly operation: Described
  readonly path: string
}

/** Everything that one operation is to bear, `id` being that of a key of Alice's. */
function* attacksOn(operation: Described, id: string): Generator<Attack> {
  const path = operation.path.replace('{id}', id)
  const base = { operation, path }
  if (operation.path !== path) {
    for (const other of IDS) yield { ...base, path: operation.path.replace('{id}', other) }
  }
  for (const { name, in: place } of operation.parameters) {
    for (const value of HEADER_VALUES) {
      if (place === 'header') yield { ...base, headers: { [name]: value } }
      if (place === 'query') yield { ...base, path: `${path}?${name}=${encodeURIComponent(value)}` }
    }
    for (const value of HOSTILE) {
      if (place !== 'query' || typeof value !== 'string' || value === '\ud800') continue
      yield { ...base, path: `${path}?${name}=${encodeURIComponent(value)}` }
    }
    if (place === 'query') yield { ...base, path: `${path}?${name}=a&${name}=b&${name}[x]=c` }
  }
  for (const name of NAMES) yield { ...base, path: `${path}?${encodeURIComponent(name)}=1` }
  yield { ...base, path: `${path}?${'a=1&'.repeat(2_000)}` }
  for (const value of HEADER_VALUES) {
    yield { ...base, headers: { 'X-Api-Key': value } }
    yield { ...base, headers: { Authorization: `Api-Key ${value}` } }
  }
  if (!operation.body) return
  for (const body of RAW_BODIES) yield { ...base, body }
  for (const type of HEADER_VALUES) yield { ...base, body: '{}', headers: { 'Content-Type': type } }
  const right = sampleOf(operation.body)
  for (const member of pathsOf(operation.body)) {
    for (const value of HOSTILE) yield { ...base, json: withValue(right, member, value) }
  }
  for (const member of [[], ...pathsOf(operation.body)]) {
    for (const name of NAMES) yield { ...base, json: withMember(right, member, name) }
  }
}

describe.each(ROUTERS)('%s', (framework, build) => {
  const isFirst = framework === ROUTERS[0]?.[0]

  it.each(OPERATIONS.map((operation) => [operation.operationId, operation] as const))(
    `bears whatever is sent to %s (FUZZ_SEED=${SEED})`,
    { timeout: 600_000 },
    async (_id, operation) => {
      const world = await createWorld(
        {
          requestLimit: false,
          clientFields: {
            rateLimits: [{ name: 'minute', limit: 1_000, windowMs: 60_000 }],
            quota: { maxRemaining: 1_000, maxRefillAmount: 10 },
            prefix: ['acme_test'],
          },
        },
        build,
      )
      const random = randomFrom(SEED)
      const all = [...attacksOn(operation, '{key}')]
      // In a longer run one framework meets all of it, the others a part.
      const attacks = isFirst && RUNS >= 250 ? all : all.filter(() => random() < RUNS / all.length)
      expect(attacks.length).toBeGreaterThan(10)
      for (const attack of attacks) await expectBorne(world, attack)
      expect(world.eventsOf('fault')).toEqual([])
      expect(Object.keys(Object.prototype)).toEqual([])
      expect(({} as { admin?: unknown }).admin).toBeUndefined()
    },
  )
})

it('meets every field that the document describes', () => {
  const counted = OPERATIONS.flatMap(({ body }) => (body ? pathsOf(body) : []))
  expect(counted.map((path) => path.join('.'))).toEqual(
    expect.arrayContaining([
      'owner.id',
      'rateLimits.0.limit',
      'quota.refill.amount',
      'permissions',
      'charge',
      'graceMs',
    ]),
  )
})

async function expectBorne(world: World, { operation, path, ...options }: Attack): Promise<void> {
  const { keys, store, call } = world
  const own = await keys.issue({ ...NAME, permissions: { projects: ['read'] } })
  const caller = await keys.issue({ owner: ALICE, name: 'caller', permissions: { 'api-keys': ['verify'] } })
  const isOfKeys = ['self', 'self_revoke', 'verify'].includes(operation.operationId)
  const hasKey = options.headers && ('X-Api-Key' in options.headers || 'Authorization' in options.headers)
  const who = isOfKeys ? (hasKey ? {} : { key: caller.key }) : { as: 'alice' }
  const answer = await Promise.race([
    call(operation.method, path.replace('{key}', own.apiKey.id), { ...who, ...options }),
    timeout(10_000),
  ])
  const attack = JSON.stringify({ path, ...options }).slice(0, 500)
  if (answer === null) throw new Error(`no answer: ${operation.operationId} ${attack}`)
  const known = [...operation.statuses, '404', '405']
  expect(known, `${operation.operationId} ${attack} → ${answer.text}`).toContain(String(answer.status))
  expect(answer.status, attack).toBeLessThan(500)
  expectNoSecret(answer, [own.key, caller.key], attack)
  const digests = (await store.list({}, { limit: 1_000 })).map(({ digest }) => digest)
  for (const digest of digests) expect(answer.text.includes(digest), attack).toBe(false)
  expect(answer.text).not.toMatch(/node_modules|\.ts:|\$sha256\$/)
  // What was there is out of the way of the next one.
  for (const { id } of (await keys.list({ limit: 1_000 })).apiKeys) await keys.revoke(id)
  world.clock.set(world.clock.now() + 1)
  await keys.purge({ endedBefore: new Date(world.clock.now()) })
}

function expectNoSecret(answer: ApiAnswer, secrets: readonly string[], attack: string): void {
  for (const secret of secrets) expect(answer.text.includes(secret.slice(-49)), attack).toBe(false)
}

function timeout(ms: number): Promise<null> {
  return new Promise((resolve) => {
    setTimeout(() => resolve(null), ms).unref()
  })
}

function resolve(schema: Schema): Schema {
  const { $ref } = schema as { $ref?: string }
  const name = $ref?.split('/').at(-1)
  if (name !== undefined) return resolve(document.components.schemas[name])
  const { anyOf } = schema as { anyOf?: readonly Schema[] }
  return anyOf ? resolve(anyOf[0] as Schema) : schema
}

/** A value of this shape, with every member. */
function sampleOf(given: Schema): unknown {
  const schema = resolve(given)
  const {
    type,
    properties,
    additionalProperties,
    items,
    enum: values,
    format,
    minimum,
  } = schema as {
    type?: string
    properties?: Record<string, Schema>
    additionalProperties?: Schema | boolean
    items?: Schema
    enum?: readonly unknown[]
    format?: string
    minimum?: number
  }
  if (values) return values[0]
  if (type === 'object' && properties) {
    return Object.fromEntries(Object.entries(properties).map(([name, member]) => [name, sampleOf(member)]))
  }
  if (type === 'object') {
    return typeof additionalProperties === 'object' && Object.keys(additionalProperties).length > 0
      ? { projects: sampleOf(additionalProperties) }
      : {}
  }
  if (type === 'array') return items ? [sampleOf(items)] : []
  if (type === 'integer' || type === 'number') return Math.max(1, minimum ?? 1)
  if (type === 'boolean') return true
  return format === 'date-time' ? '2030-01-01T00:00:00Z' : 'read'
}

/** Where there is something to put something else in the place of. */
function pathsOf(given: Schema, at: Path = []): Path[] {
  const { properties, items } = resolve(given) as { properties?: Record<string, Schema>; items?: Schema }
  const members = properties
    ? Object.entries(properties).flatMap(([name, member]) => pathsOf(member, [...at, name]))
    : items
      ? pathsOf(items, [...at, 0])
      : []
  return at.length === 0 ? members : [at, ...members]
}

function withValue(body: unknown, path: Path, value: unknown): unknown {
  const copy = structuredClone(body) as Record<string | number, unknown>
  let target = copy
  for (const part of path.slice(0, -1)) target = target[part] as typeof copy
  target[path.at(-1) as string] = value
  return copy
}

/** A member of its own, whatever its name. */
function withMember(body: unknown, path: Path, name: string): unknown {
  const copy = structuredClone(body)
  let target = copy as Record<string | number, unknown>
  for (const part of path) target = target[part] as typeof target
  if (typeof target === 'object' && target !== null) {
    Object.defineProperty(target, name, { value: { a: 1 }, enumerable: true, configurable: true })
  }
  return copy
}

/** Mulberry32. */
function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}
