import { readFileSync, writeFileSync } from 'node:fs'
import { createKeyManagementApi } from 'latchkey/management'
import { expect, it } from 'vitest'
import { deadLinks } from '../support/markdown.ts'
import { createTestKeys } from '../support/test-keys.ts'

const PAGE = new URL('../../docs/openapi.md', import.meta.url)

it('docs/openapi.md says what the document says', async () => {
  const api = createKeyManagementApi(createTestKeys().keys, { actor: () => null })
  const { body } = await api.handle({ method: 'GET', url: '/openapi.json', source: { headers: {} } })
  const page = renderPage(JSON.parse(body))
  if (process.env.UPDATE_DOCS) writeFileSync(PAGE, page)
  expect(readFileSync(PAGE, 'utf8')).toBe(page)
  expect(deadLinks(PAGE)).toEqual([])
})

/** As much of OpenAPI 3.1 as the document uses. */
interface Document {
  readonly openapi: string
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> }
}

interface Operation {
  readonly operationId: string
  readonly summary: string
  readonly security: readonly object[]
  readonly parameters?: readonly Parameter[]
  readonly requestBody?: { readonly content: Content }
  readonly responses: Readonly<Record<string, Answer>>
}

interface Parameter {
  readonly name: string
  readonly in: string
  readonly required: boolean
  readonly schema: Schema
  readonly description?: string
}

interface Answer {
  readonly headers?: object
  readonly content: Content
}

type Content = Readonly<Record<string, { readonly schema: Schema }>>

interface Schema {
  readonly $ref?: string
  readonly type?: string | readonly string[]
  readonly description?: string
  readonly format?: string
  readonly pattern?: string
  readonly enum?: readonly string[]
  readonly const?: unknown
  readonly anyOf?: readonly Schema[]
  readonly items?: Schema
  readonly properties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
  readonly additionalProperties?: boolean | Schema
  readonly minimum?: number
  readonly maximum?: number
  readonly minLength?: number
  readonly maxLength?: number
  readonly minItems?: number
  readonly maxItems?: number
}

const CALLERS: Readonly<Record<string, string>> = { session: 'a login session', key: 'a key', '': 'anybody' }

function renderPage({ openapi, paths, components }: Document): string {
  const operations = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({
      request: `\`${method.toUpperCase()} ${path}\``,
      operation,
    })),
  )
  const index = operations.map(
    ({ request, operation: { operationId, summary, security } }) =>
      `| ${request} | ${callerOf(security)} | [${operationId}](#${operationId}): ${summary} |`,
  )
  const sections = operations.map(({ request, operation }) => renderOperation(request, operation))
  const schemas = Object.entries(components.schemas).map(([name, schema]) => renderSchema(name, schema))
  return `# The OpenAPI document

<!-- Made by test/docs/openapi.test.ts; UPDATE_DOCS=1 npx vitest run test/docs/openapi.test.ts makes it anew. -->

\`GET /openapi.json\` of the [management API](management-api.md) returns an OpenAPI ${openapi} document. This page is made from it. Paths are
relative to where you mount the router. Numbers in parentheses are bounds.

| request | caller | operation |
| --- | --- | --- |
${index.join('\n')}

${sections.join('\n')}
${schemas.join('\n')}`
}

function callerOf(security: readonly object[]): string {
  const [name = ''] = security.flatMap((one) => Object.keys(one))
  return CALLERS[name] ?? name
}

function renderOperation(request: string, operation: Operation): string {
  const { operationId, summary, security, parameters = [], requestBody, responses } = operation
  const rows = parameters.map(
    ({ name, in: place, schema, description = '' }) =>
      `| \`${name}\` | ${place} | ${typeOf(schema)} | ${description} |`,
  )
  const parts = [
    `## ${operationId}\n`,
    `${request} takes ${callerOf(security)}. ${summary}.\n`,
    ...(rows.length > 0
      ? ['| parameter | in | type | meaning |', '| --- | --- | --- | --- |', ...rows, '']
      : []),
    ...(requestBody ? [`The body is ${aTypeIn(requestBody.content)}.\n`] : []),
    '| status | answer |',
    '| --- | --- |',
    ...Object.entries(responses).map(([status, answer]) => `| ${status} | ${renderAnswer(answer)} |`),
    '',
  ]
  return parts.join('\n')
}

/** What is refused is told apart by its code. */
function renderAnswer({ headers = {}, content }: Answer): string {
  const codes = content['application/problem+json']?.schema.properties?.code?.enum
  if (codes) return codes.map((code) => `\`${code}\``).join(', ')
  const fields = Object.keys(headers).map((name) => `, with \`${name}\``)
  return aTypeIn(content) + fields.join('')
}

function aTypeIn(content: Content): string {
  return typeOf(content['application/json']?.schema ?? {})
}

function renderSchema(name: string, schema: Schema): string {
  const { description, anyOf } = schema
  const alternatives = anyOf ?? [schema]
  const parts = [`## ${name}\n`, ...(description === undefined ? [] : [`${description}\n`])]
  if (anyOf) parts.push('One of these:\n')
  for (const one of alternatives) {
    if (anyOf && one.description !== undefined) parts.push(`${one.description}\n`)
    const rows = membersOf('', objectsIn(one))
    if (rows.length > 0) {
      parts.push('| member | type | meaning |', '| --- | --- | --- |', ...rows, '')
    } else parts.push(`${capitalised(typeOf(one))}.\n`)
  }
  return parts.join('\n')
}

/** A row for each member, and for those of objects that have no name of their own. */
function membersOf(path: string, objects: readonly Schema[]): string[] {
  const names = new Set(objects.flatMap(({ properties = {} }) => Object.keys(properties)))
  return [...names].flatMap((name) => {
    const member = objects.map(({ properties }) => properties?.[name]).find((found) => found) as Schema
    const isRequired = objects.every(({ required }) => required?.includes(name))
    const row = `| \`${path}${name}\`${isRequired ? '' : ', optional'} | ${typeOf(member)} | ${member.description ?? ''} |`
    const suffix = member.items ? '[].' : '.'
    return [row, ...membersOf(path + name + suffix, objectsIn(member))]
  })
}

/** Those that a value may be: several where it has several forms. */
function objectsIn(schema: Schema): Schema[] {
  if (schema.properties) return [schema]
  return schema.items ? objectsIn(schema.items) : (schema.anyOf ?? []).flatMap(objectsIn)
}

function typeOf(schema: Schema): string {
  const { $ref, anyOf, items, format, properties, additionalProperties } = schema
  if ($ref !== undefined) {
    const name = $ref.replace(/^.*\//, '')
    return `[${name}](#${name.toLowerCase()})`
  }
  if (anyOf) {
    const hasForms = objectsIn(schema).length > 1
    return [...new Set(anyOf.map((one) => (hasForms && one.properties ? formOf(one) : typeOf(one))))].join(
      ' or ',
    )
  }
  if (schema.enum) return schema.enum.map((value) => `\`${value}\``).join(', ')
  if (schema.const !== undefined) return `\`${schema.const}\``
  if (items) return `array of ${typeOf(items)}${boundsOf(schema.minItems, schema.maxItems, '')}`
  if (format === 'date-time') return 'date and time'
  if (properties && Object.keys(properties).length === 0) return 'empty object'
  if (typeof additionalProperties === 'object' && !properties) {
    return Object.keys(additionalProperties).length > 0
      ? `object of ${typeOf(additionalProperties)}`
      : 'object'
  }
  const type = [schema.type ?? 'any'].flat().join(' or ')
  if (type === 'string') return type + boundsOf(schema.minLength, schema.maxLength, ' characters')
  return type + boundsOf(schema.minimum, schema.maximum, '')
}

function formOf({ properties = {}, required = [] }: Schema): string {
  const names = Object.keys(properties).map((name) => (required.includes(name) ? name : `${name}?`))
  return `\`{ ${names.join(', ')} }\``
}

/** Numbers that any integer keeps to are no bounds. */
function boundsOf(min: number | undefined, max: number | undefined, unit: string): string {
  const [from, to] = [min, max].map((value) =>
    Math.abs(value ?? Infinity) < Number.MAX_SAFE_INTEGER ? value?.toLocaleString('en-US') : undefined,
  )
  const range = to === undefined ? from && `${from} or more` : from ? `${from} to ${to}` : `at most ${to}`
  return range ? ` (${range}${unit})` : ''
}

function capitalised(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
