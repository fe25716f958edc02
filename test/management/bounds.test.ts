import { describe, expect, it } from 'vitest'
import { openApiDocument } from '../../lib/management/openapi.ts'
import { type ApiAnswer, createWorld, type World } from '../support/management-world.ts'
import { ALICE, NAME } from '../support/test-keys.ts'

/** As much of JSON Schema as the document uses. */
interface Schema {
  readonly $ref?: string
  readonly type?: string
  readonly anyOf?: readonly Schema[]
  readonly enum?: readonly string[]
  readonly const?: unknown
  readonly format?: string
  readonly pattern?: string
  readonly not?: Schema
  readonly minLength?: number
  readonly maxLength?: number
  readonly minimum?: number
  readonly maximum?: number
  readonly minItems?: number
  readonly maxItems?: number
  readonly items?: Schema
  readonly properties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
  readonly propertyNames?: Schema
  readonly additionalProperties?: Schema | boolean
  readonly minProperties?: number
  readonly maxProperties?: number
}

interface Parameter {
  readonly name: string
  readonly in: string
  readonly required: boolean
  readonly schema: Schema
}

interface Described {
  readonly operationId: string
  readonly parameters?: readonly Parameter[]
  readonly requestBody?: {
    readonly required: boolean
    readonly content: { readonly 'application/json': { readonly schema: Schema } }
  }
}

const document: {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Described>>>>
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> }
} = JSON.parse(openApiDocument())

const OPERATIONS = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, described]) => ({
    path,
    method: method.toUpperCase(),
    ...described,
  })),
)

function resolve(schema: Schema): Schema {
  return schema.$ref ? (document.components.schemas[schema.$ref.replace(/^.*\//, '')] as Schema) : schema
}

/** One value of one field, all others being right, and whether the document takes it. */
interface Trial {
  readonly field: string
  readonly value: unknown
  readonly isAllowed: boolean
}

/** Texts that only something can be, from the shortest to the longest: what the document says of them is no more than a frame. */
const SHORTEST_AND_LONGEST: Readonly<Record<string, readonly [string, string]>> = {
  ip: ['::', `fe80::1%${'z'.repeat(56)}`],
  'allowedIps[]': ['::', 'ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255/128'],
}

/** Texts without a bound of their own: a key is any text, and there are only so many time zones. */
const UNBOUNDED = /(?:^key|timeZone|^cursor|expiresAt)$/

/** Every edge of a schema, on both sides of it. */
function* trialsOf(field: string, given: Schema): Generator<Trial> {
  const schema = resolve(given)
  if (schema.anyOf) {
    for (const one of schema.anyOf) yield* trialsOf(field, one)
    return
  }
  const trial = (value: unknown, isAllowed: boolean) => ({ field, value, isAllowed })
  switch (schema.type) {
    case 'integer': {
      const { minimum, maximum } = schema as Required<Schema>
      yield trial(minimum, true)
      yield trial(minimum - 1, false)
      yield trial(maximum, true)
      yield trial(maximum + 1, false)
      yield trial(minimum + 0.5, false)
      yield trial(String(minimum), false)
      return
    }
    case 'string':
      yield* stringTrials(field, schema)
      return
    case 'array': {
      const { minItems = 0, maxItems, items } = schema as Required<Schema>
      const list = (length: number) => Array.from({ length }, (_, i) => exampleOf(items, i, field))
      yield trial(list(minItems), true)
      if (minItems > 0) yield trial(list(minItems - 1), false)
      yield trial(list(maxItems), true)
      yield trial(list(maxItems + 1), false)
      yield trial({}, false)
      for (const { value, isAllowed } of trialsOf(`${field}[]`, items)) {
        yield trial([value, ...list(Math.max(0, minItems - 1))], isAllowed)
      }
      return
    }
    case 'object':
      yield* objectTrials(field, schema)
      return
    default:
      return
  }
}

function* stringTrials(field: string, schema: Schema): Generator<Trial> {
  const trial = (value: unknown, isAllowed: boolean) => ({ field, value, isAllowed })
  if (schema.enum) {
    for (const value of schema.enum) yield trial(value, true)
    yield trial(`${schema.enum[0]}s`, false)
    return
  }
  const own = SHORTEST_AND_LONGEST[field.replace(/^.*\.(?=allowedIps)/, '')]
  if (own) {
    expect([schema.minLength, schema.maxLength], field).toEqual(own.map((text) => text.length))
    for (const text of own) yield trial(text, true)
    yield trial(own[0].slice(1), false)
    yield trial(`${own[1]}0`, false)
    return
  }
  if (schema.pattern && !schema.format) {
    const pattern = new RegExp(schema.pattern)
    const texts = ['a', '*', 'quota', '-', '_a', 'a_', 'a.b:c/d-e', '', 'é', 'a b', '9']
    for (const length of [32, 33, 64, 65]) texts.push('a'.repeat(length))
    for (const text of texts) yield trial(text, pattern.test(text) && schema.not?.const !== text)
    return
  }
  if (schema.maxLength !== undefined && !UNBOUNDED.test(field)) {
    const { minLength = 0, maxLength } = schema
    yield trial('n'.repeat(minLength), true)
    yield trial('n'.repeat(minLength - 1), false)
    for (const character of ['n', 'é', '\u{1f511}']) {
      yield trial(character.repeat(maxLength), true)
      yield trial(character.repeat(maxLength + 1), false)
    }
    return
  }
  yield trial(7, false)
}

function* objectTrials(field: string, schema: Schema): Generator<Trial> {
  const { properties = {}, required = [], additionalProperties, minProperties = 0, maxProperties } = schema
  const trial = (value: unknown, isAllowed: boolean) => ({ field, value, isAllowed })
  if (typeof additionalProperties === 'object' && maxProperties !== undefined) {
    const named = (count: number) =>
      Object.fromEntries(
        Array.from({ length: count }, (_, i) => [`r${i}`, exampleOf(additionalProperties, i, field)]),
      )
    yield trial(named(minProperties), true)
    if (minProperties > 0) yield trial(named(minProperties - 1), false)
    // More would be longer than a body may be.
    yield trial(named(maxProperties), true)
    yield trial(named(maxProperties + 1), false)
    for (const { value, isAllowed } of trialsOf(`${field}.r`, additionalProperties)) {
      yield trial({ r: value }, isAllowed)
    }
    for (const { value, isAllowed } of trialsOf(`${field} name`, schema.propertyNames as Schema)) {
      yield trial({ [String(value)]: exampleOf(additionalProperties, 0, field) }, isAllowed)
    }
    return
  }
  const least = Object.fromEntries(
    required.map((name) => [name, exampleOf(properties[name] as Schema, 0, name)]),
  )
  for (const name of required) {
    const { [name]: _missing, ...others } = least
    yield trial(others, false)
  }
  if (additionalProperties === false) yield trial({ ...least, unknown: 1 }, false)
  for (const [name, member] of Object.entries(properties)) {
    for (const { value, isAllowed } of trialsOf(`${field}.${name}`, member)) {
      yield trial({ ...least, [name]: value }, isAllowed)
    }
  }
}

/** A value that is right; `i` tells those apart that must differ. */
function exampleOf(given: Schema, i: number, field: string): unknown {
  const schema = resolve(given)
  if (schema.anyOf) return exampleOf(schema.anyOf[0] as Schema, i, field)
  switch (schema.type) {
    case 'integer':
      return schema.minimum
    case 'array':
      return Array.from({ length: schema.minItems ?? 0 }, (_, n) =>
        exampleOf(schema.items as Schema, n, field),
      )
    case 'object': {
      const { properties = {}, required = [], minProperties = 0, additionalProperties } = schema
      if (typeof additionalProperties === 'object') {
        return Object.fromEntries(
          Array.from({ length: minProperties }, (_, n) => [
            `r${n}`,
            exampleOf(additionalProperties, n, field),
          ]),
        )
      }
      return Object.fromEntries(
        required.map((name) => [name, exampleOf(properties[name] as Schema, i, name)]),
      )
    }
    default:
      if (schema.enum) return schema.enum[0]
      return /allowedIps/.test(field) ? `192.0.2.${i % 256}` : `n${i}`
  }
}

/** Sends a request of an operation by somebody who may do it. */
async function send(
  world: World,
  { path, method, operationId }: (typeof OPERATIONS)[number],
  { json, query = '' }: { json?: unknown; query?: string },
): Promise<ApiAnswer> {
  const { key, apiKey } = await world.keys.issue({ ...NAME, permissions: { 'api-keys': ['verify'] } })
  if (operationId === 'enable') await world.keys.disable(apiKey.id)
  const isOfKey = ['self', 'self_revoke', 'verify'].includes(operationId)
  return world.call(method, path.replace('{id}', apiKey.id) + query, {
    ...(isOfKey ? { key } : { as: 'admin' }),
    ...(json !== undefined && { json }),
  })
}

/** Whether a parameter is half of an owner, and `other` the rest. */
const isPart = (name: string, other: string) => /^owner/.test(name) && /^owner/.test(other)

const codeOf = (answer: ApiAnswer) => (answer.status < 300 ? 'taken' : String(answer.body.code))

describe('the document says of every body and parameter what the interface takes', () => {
  const bodies = OPERATIONS.flatMap((operation) => {
    const schema = operation.requestBody?.content['application/json'].schema
    return schema ? [[operation.operationId, operation, resolve(schema)] as const] : []
  })

  it.each(bodies)('in the body of %s', async (operationId, operation, schema) => {
    // What identifies the owner and the key has to be right, whatever else is tried.
    const least: Record<string, unknown> = operationId === 'verify' ? { key: 'k' } : {}
    if (operationId === 'issue') Object.assign(least, { name: 'n', owner: ALICE })
    if (operationId === 'update') Object.assign(least, { name: 'n' })
    if (['revoke_all', 'erase'].includes(operationId))
      Object.assign(least, { owner: { type: 'user', id: 'nobody' } })
    const world = await createWorld({ maxBodyBytes: 1_000_000, requestLimit: false })
    const wrong: unknown[] = []
    let tried = 0
    for (const [name, member] of Object.entries(schema.properties ?? {})) {
      // One of the two says which key to explain.
      const subject = operationId === 'explain' && name !== 'key' && name !== 'id' ? { id: 'nobody' } : {}
      for (const { field, value, isAllowed } of trialsOf(name, member)) {
        tried += 1
        const json = { ...least, ...subject, [name]: value }
        const code = codeOf(await send(world, operation, { json }))
        if ((code === 'taken') !== isAllowed || (!isAllowed && code !== 'invalid_request')) {
          wrong.push([field, JSON.stringify(value).slice(0, 80), isAllowed, code])
        }
      }
    }
    expect(wrong).toEqual([])
    expect(tried).toBeGreaterThanOrEqual(Object.keys(schema.properties ?? {}).length)
  })

  it.each(OPERATIONS.map((operation) => [operation.operationId, operation] as const))(
    'in the query of %s, and whether it has a body',
    async (_id, operation) => {
      const world = await createWorld({ requestLimit: false })
      const wrong: unknown[] = []
      const parameters = (operation.parameters ?? []).filter((one) => one.in === 'query')
      for (const { name, schema } of parameters) {
        const beside = parameters
          .filter((one) => one.name !== name && (one.required || isPart(name, one.name)))
          .map((one) => `&${one.name}=u`)
          .join('')
        for (const { value, isAllowed } of trialsOf(name, schema)) {
          // In a URL a number is its digits.
          if (schema.type === 'integer' && typeof value === 'string') continue
          const query = `?${name}=${encodeURIComponent(String(value))}${beside}`
          const code = codeOf(await send(world, operation, { query }))
          if ((code === 'taken') !== isAllowed) wrong.push([name, value, isAllowed, code])
        }
      }
      expect(wrong).toEqual([])
      expect((await send(world, operation, { query: '?unknown=1' })).body.code).toBe('invalid_request')
      const { key, apiKey } = await world.keys.issue(NAME)
      const bare = await fetch(
        `http://127.0.0.1:${world.port}/api-keys${operation.path.replace('{id}', apiKey.id)}`,
        { method: operation.method, headers: { 'X-Actor': 'admin', 'X-Api-Key': key } },
      )
      expect(bare.status === 415).toBe(operation.requestBody?.required === true)
    },
  )

  it('bounds every number, text and list', () => {
    const open: string[] = []
    const visit = (field: string, given: Schema): void => {
      const schema = resolve(given)
      for (const one of schema.anyOf ?? []) visit(field, one)
      const { type, properties = {}, items, additionalProperties, propertyNames } = schema
      if (type === 'integer' || type === 'number') {
        if (schema.minimum === undefined || schema.maximum === undefined) open.push(field)
        if (type === 'number') open.push(field)
      }
      const isSaid = schema.maxLength ?? schema.pattern ?? schema.enum ?? schema.format
      if (type === 'string' && isSaid === undefined && !UNBOUNDED.test(field)) open.push(field)
      if (type === 'array' && schema.maxItems === undefined) open.push(field)
      if (items) visit(`${field}[]`, items)
      for (const [name, member] of Object.entries(properties)) visit(`${field}.${name}`, member)
      // Metadata is any JSON.
      if (/metadata$/.test(field)) return
      if (typeof additionalProperties === 'object') visit(`${field}.*`, additionalProperties)
      if (propertyNames) visit(`${field} names`, propertyNames)
    }
    for (const { operationId, requestBody, parameters = [] } of OPERATIONS) {
      if (requestBody) visit(operationId, requestBody.content['application/json'].schema)
      for (const one of parameters.filter(({ in: where }) => where === 'query'))
        visit(`${operationId}?${one.name}`, one.schema)
    }
    expect(
      open.map((field) => field.replace(/^\w+\./, '')).filter((field) => !UNBOUNDED.test(field)),
    ).toEqual([])
  })
})
