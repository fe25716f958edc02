import type { z } from 'zod'
import { isLatchkeyError, type LatchkeyError } from '../errors.ts'
import { looksLikeName, memberPath } from '../internal/key-text.ts'
import { invalidRequest, refusal } from './refusal.ts'

const MAX_SHOWN = 200
/** Metadata may be nested for 64 levels. */
const MAX_DEPTH = 70
/** Names by which a careless merge reaches a prototype. */
const FORBIDDEN = ['__proto__', 'constructor']

/**
 * Returns the client's input if it has this shape. Otherwise the refusal names the first error.
 *
 * @param fixed members of a key that no request may set
 * @throws LatchkeyError `invalid_request`, `field_not_allowed`
 */
export function readInput<S extends z.ZodType>(
  schema: S,
  given: unknown,
  fixed: readonly string[] = [],
): z.infer<S> {
  refuseForbidden(given)
  const parsed = schema.safeParse(given)
  if (parsed.success) return parsed.data
  const issues = parsed.error.issues
  const unknown = issues.find(({ code }) => code === 'unrecognized_keys')
  throw refusalOfIssue(unknown ?? (issues[0] as z.core.$ZodIssue), schema, fixed)
}

/**
 * Like `readInput`, for input that holds a secret. The secret may be in the wrong place, even in a name, so a refusal names only
 * known members.
 */
export function readSecretInput<S extends z.ZodType>(schema: S, given: unknown): z.infer<S> {
  try {
    return readInput(schema, given)
  } catch (error) {
    if (!isLatchkeyError(error)) throw error
    const { field, accepted } = error.details as { field?: string; accepted?: string }
    const member = firstMember(field ?? '')
    throw invalidRequest(namesOf(schema).includes(member) ? member : 'body', accepted ?? 'something else')
  }
}

/** For `permissions.projects[0]`, returns `permissions`. */
export function firstMember(field: string): string {
  return field.split(/[.[]/, 1)[0] ?? ''
}

interface Place {
  readonly value: object
  readonly name: string | number
  readonly parent: Place | null
}

/**
 * Looks for forbidden names everywhere, without recursion: a body may be nested as deeply as it is long. It builds a path only for
 * a refused value: building one for every value would cost more than all the rest.
 */
function refuseForbidden(given: unknown): void {
  let level: Place[] = isNested(given) ? [{ value: given, name: '', parent: null }] : []
  for (let depth = 0; level.length > 0; depth++) {
    const next: Place[] = []
    for (const place of level) {
      if (depth > MAX_DEPTH) throw invalidRequest(pathOf(place), 'a value with fewer levels of nesting')
      const { value } = place
      const isList = Array.isArray(value)
      for (const name of isList ? value.keys() : Object.keys(value)) {
        const member = (value as Record<string | number, unknown>)[name]
        if (!isList && FORBIDDEN.includes(name as string)) {
          throw invalidRequest(pathOf({ value, name, parent: place }), 'no member of this name')
        }
        if (isNested(member)) next.push({ value: member, name, parent: place })
      }
    }
    level = next
  }
}

function isNested(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}

function pathOf(place: Place): string {
  const names: (string | number)[] = []
  for (let at = place; at.parent !== null; at = at.parent) names.unshift(at.name)
  return fieldName(names)
}

function refusalOfIssue(issue: z.core.$ZodIssue, schema: z.ZodType, fixed: readonly string[]): LatchkeyError {
  const path = issue.path.map((part) => (typeof part === 'symbol' ? '' : part))
  if (issue.code === 'unrecognized_keys') {
    const name = issue.keys[0] ?? ''
    if (path.length === 0 && fixed.includes(name)) {
      return refusal('field_not_allowed', { field: name, accepted: 'nothing: nobody may set it' })
    }
    const known = path.length === 0 ? knownMembers(schema) : null
    if (path.length === 0 && !looksLikeName(name)) {
      return refusal('invalid_request', { accepted: known ?? 'no other members' })
    }
    return invalidRequest(fieldName([...path, name]), known ?? 'no member of this name')
  }
  // In a union, the alternative that matches furthest explains most.
  if (issue.code === 'invalid_union' && issue.errors.length > 0) {
    const inner = issue.errors
      .flatMap((errors) => errors.slice(0, 1))
      .sort((a, b) => b.path.length - a.path.length)[0]
    if (inner && inner.path.length > 0) {
      return refusalOfIssue(
        { ...inner, path: [...issue.path, ...inner.path] } as z.core.$ZodIssue,
        schema,
        [],
      )
    }
    return invalidRequest(fieldName(path), describeUnion(issue.errors))
  }
  return invalidRequest(fieldName(path), describeIssue(issue))
}

function describeUnion(alternatives: readonly (readonly z.core.$ZodIssue[])[]): string {
  const texts = alternatives.flatMap((errors) => errors.slice(0, 1).map(describeIssue))
  return [...new Set(texts)].join(' or ')
}

/** Describes what would be valid. The text contains nothing from the input. */
function describeIssue(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      return ARTICLES[issue.expected] ?? issue.expected
    case 'too_small':
      return issue.origin === 'string' && issue.minimum === 1
        ? 'a non-empty string'
        : `at least ${issue.minimum}${UNITS[issue.origin] ?? ''}`
    case 'too_big':
      return `at most ${issue.maximum}${UNITS[issue.origin] ?? ''}`
    case 'invalid_value':
      return issue.values.map((value) => JSON.stringify(value)).join(' or ')
    case 'invalid_format':
      if (issue.format === 'datetime') return 'an ISO 8601 date and time, such as 2030-01-31T12:00:00Z'
      return issue.pattern === undefined ? issue.format : `a text that matches ${issue.pattern}`
    case 'invalid_key':
      return 'members with other names'
    case 'custom':
      return issue.message
    default:
      return 'something else'
  }
}

const ARTICLES: Readonly<Record<string, string>> = {
  string: 'a string',
  number: 'a number',
  int: 'an integer',
  boolean: 'true or false',
  array: 'an array',
  object: 'an object',
  record: 'an object',
}

const UNITS: Readonly<Record<string, string>> = { string: ' characters', array: ' entries' }

function knownMembers(schema: z.ZodType): string | null {
  const names = namesOf(schema)
  return names.length === 0 ? 'nothing' : names.join(', ')
}

function namesOf(schema: z.ZodType): string[] {
  const { shape } = schema as { shape?: object }
  return shape ? Object.keys(shape) : []
}

function fieldName(path: readonly (string | number)[]): string {
  let name = ''
  for (const part of path) name = joinPath(name, part)
  return shorten(name === '' ? 'body' : name)
}

function joinPath(path: string, part: string | number): string {
  if (typeof part === 'number') return `${path}[${part}]`
  return memberPath(path, part)
}

function shorten(text: string): string {
  return text.slice(0, MAX_SHOWN)
}
