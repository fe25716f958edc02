import { z } from 'zod'
import { type ErrorCode, LatchkeyError, titleOf } from '../errors.ts'
import { OPERATIONS, type Operation } from './operations.ts'
import { NAMED } from './schemas.ts'

/** The parsed document. */
export type OpenApiDocument = Readonly<Record<string, unknown>>

let text: string | null = null

/** Returns the OpenAPI 3.1 document of the interface as JSON. Its paths are relative to the mount path. */
export function openApiDocument(): string {
  text ??= JSON.stringify(createDocument())
  return text
}

/** The error codes that an operation may return. */
export function codesOf(operation: Operation): readonly ErrorCode[] {
  const { id, action, isChange, isVersioned, body, path, codes } = operation
  // The document is the same for every caller and reads neither a key nor the store.
  if (id === 'openapi') return ['invalid_request']
  return [
    'invalid_request',
    ...(action === null
      ? ['missing_key' as const]
      : (['authentication_required', 'session_required'] as const)),
    ...KEY_CODES,
    // Nothing else charges a key: revoking itself is free, and operations that take a session refuse it.
    ...(id === 'verify' || id === 'self' ? (['rate_limited', 'quota_exceeded'] as const) : []),
    ...(id === 'verify' ? (['insufficient_permissions'] as const) : []),
    ...(action !== null ? (['too_many_requests'] as const) : []),
    ...(isChange ? (['cross_site'] as const) : []),
    ...(body ? (['unsupported_media_type', 'body_too_large'] as const) : []),
    ...(path.startsWith('/{id}') ? (['not_found'] as const) : []),
    ...(isVersioned ? (['precondition_failed'] as const) : []),
    ...codes,
    'unavailable',
  ]
}

const KEY_CODES = ['multiple_credentials', 'invalid_key', 'address_not_allowed', 'too_many_failures'] as const

function createDocument(): OpenApiDocument {
  const paths: Record<string, Record<string, unknown>> = {}
  for (const operation of OPERATIONS) {
    paths[operation.path] ??= {}
    Object.assign(paths[operation.path] as object, {
      [operation.method.toLowerCase()]: describeOperation(operation),
    })
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'API keys',
      version: '1',
      description:
        'Paths are relative to where the interface is mounted. Requests need a login session of the application, except for the ' +
        'operations that take a key.',
    },
    servers: [{ url: '.' }],
    paths,
    components: { schemas: namedSchemas(), securitySchemes: SECURITY },
  }
}

const SECURITY = {
  session: { type: 'apiKey', in: 'cookie', name: 'session', description: 'The login of the application.' },
  key: { type: 'apiKey', in: 'header', name: 'X-Api-Key' },
}

function describeOperation(operation: Operation): unknown {
  const { id, summary, body, action, success } = operation
  const parameters = [
    ...pathParameters(operation),
    ...queryParameters(operation),
    ...headerParameters(operation),
  ]
  return {
    operationId: id,
    summary,
    security: id === 'openapi' ? [] : [action === null ? { key: [] } : { session: [] }],
    ...(parameters.length > 0 && { parameters }),
    ...(body && {
      requestBody: {
        // An empty body is `{}`: a form on another site could send a request without one.
        required: true,
        content: { 'application/json': { schema: { $ref: refTo(body) } } },
      },
    }),
    responses: {
      [success.status]: describeSuccess(operation),
      ...describeProblems(codesOf(operation)),
    },
  }
}

function describeSuccess({ id, success, isVersioned, isIdempotent }: Operation): unknown {
  const schema =
    success.schema === null ? { type: 'object' } : { $ref: `#/components/schemas/${success.schema}` }
  const hasTag = isVersioned || isIdempotent || id === 'read'
  return {
    description: success.status === 201 ? 'Created.' : 'OK.',
    ...(hasTag && {
      headers: { ETag: { description: 'The version of the key.', schema: { type: 'string' } } },
    }),
    content: { 'application/json': { schema } },
  }
}

function describeProblems(codes: readonly ErrorCode[]): Record<string, unknown> {
  const byStatus = new Map<number, ErrorCode[]>()
  for (const code of codes) {
    const { status } = new LatchkeyError(code, undefined, { stack: false })
    byStatus.set(status, [...(byStatus.get(status) ?? []), code])
  }
  return Object.fromEntries([...byStatus].map(([status, found]) => [status, describeProblem(found)]))
}

function describeProblem(codes: readonly ErrorCode[]): unknown {
  const schema = {
    allOf: [{ $ref: '#/components/schemas/Problem' }],
    type: 'object',
    properties: {
      code: { enum: codes },
      ...(codes.includes('already_done') && { apiKey: { $ref: '#/components/schemas/ApiKey' } }),
      ...(codes.includes('insufficient_permissions') && {
        missing: { $ref: '#/components/schemas/Permissions' },
      }),
      ...(codes.includes('rate_limited') && LIMIT_MEMBERS),
    },
  }
  return {
    description: codes.map((code) => `${titleOf(code)} (\`${code}\`)`).join('; '),
    content: { 'application/problem+json': { schema } },
  }
}

const NAMES = { type: 'array', items: { type: 'string' } }

/** The members of a 429 for a key that its limits or its quota refused. */
const LIMIT_MEMBERS = {
  exceeded: { ...NAMES, description: 'The limits that refused, for `rate_limited` and `quota_exceeded`.' },
  'violated-policies': {
    ...NAMES,
    description:
      'The same for `rate_limited`, in the words of draft-ietf-httpapi-ratelimit-headers-11. It may change.',
  },
}

function pathParameters({ path }: Operation): unknown[] {
  if (!path.startsWith('/{id}')) return []
  return [
    { name: 'id', in: 'path', required: true, schema: { type: 'string' }, description: 'The id of a key.' },
  ]
}

function queryParameters({ query }: Operation): unknown[] {
  const { properties = {}, required = [] } = toJsonSchema(query, 'output') as {
    properties?: Record<string, { description?: string }>
    required?: readonly string[]
  }
  return Object.entries(properties).map(([name, { description, ...schema }]) => ({
    name,
    in: 'query',
    required: required.includes(name),
    schema,
    ...(description !== undefined && { description }),
  }))
}

function headerParameters({ isVersioned, isIdempotent }: Operation): unknown[] {
  return [
    ...(isVersioned
      ? [
          {
            name: 'If-Match',
            in: 'header',
            required: false,
            schema: { type: 'string' },
            description:
              'The `ETag` of the version to change. If the key has changed since, the request fails.',
          },
        ]
      : []),
    ...(isIdempotent
      ? [
          {
            name: 'Idempotency-Key',
            in: 'header',
            required: false,
            schema: { type: 'string', pattern: '^[\\x21-\\x7e]{1,255}$' },
            description:
              'Makes a retry safe. A second request with the same value creates no key and returns `already_done`.',
          },
        ]
      : []),
  ]
}

function refTo(schema: z.ZodType): string {
  const found = Object.entries(NAMED).find(([, named]) => named === schema)
  if (!found) throw new TypeError('a body has no name in the document')
  return `#/components/schemas/${found[0]}`
}

/** Each named schema once. Other places refer to it. */
function namedSchemas(): Record<string, unknown> {
  const registry = z.registry<{ id: string }>()
  for (const [id, schema] of Object.entries(NAMED)) registry.add(schema, { id })
  const { schemas } = z.toJSONSchema(registry, { io: 'input', uri: (id) => `#/components/schemas/${id}` })
  return Object.fromEntries(Object.entries(schemas).map(([id, schema]) => [id, withoutIds(schema)]))
}

/** `output` describes the parsed parameter: a number where the query holds its text. */
function toJsonSchema(schema: z.ZodType, io: 'input' | 'output'): object {
  return z.toJSONSchema(schema, { io })
}

/** OpenAPI keeps both elsewhere. */
function withoutIds(schema: object): object {
  const { $schema: _schema, $id: _id, ...rest } = schema as Record<string, unknown>
  return rest
}
