import type { ErrorCode } from 'latchkey'
import { BARE, INVALID } from '../support/challenges.ts'
import { ownTypeOf } from '../support/problem-types.ts'
import { ALICE, BOB } from '../support/test-keys.ts'
import { SESSION_USER } from './pipeline.ts'
import type { Outcome, Who } from './row.ts'

/** The key of Alice, verified. */
export const BY_KEY: Who = { method: 'apikey', user: ALICE, key: '<key id>' }
/** The key of Bob, verified. */
export const BY_BOBS_KEY: Who = { method: 'apikey', user: BOB, key: '<Bob’s key id>' }
export const BY_SESSION: Who = { method: 'session', user: SESSION_USER }
export const NOBODY: Who = { method: 'none' }

type Changes = Partial<Outcome>

/** What a key without limits costs that is not known in this process. */
export const COLD = { store: ['find'], limiter: ['check 1: admitted'] }
/** The same once it is known. */
export const WARM = { store: [], limiter: ['check 1: admitted'] }
/** Nobody is asked anything. */
export const NO_IO = { store: [], limiter: [] }

/** The route answers who is asking. */
export function passes(who: Who, changes: Changes = {}): Outcome {
  return {
    status: 200,
    body: JSON.stringify(who),
    events: [],
    ...NO_IO,
    who,
    ...changes,
    fields: { 'Content-Type': 'application/json; charset=utf-8', ...changes.fields },
  }
}

/** `details` are further members of the problem. */
interface RefusalChanges extends Changes {
  readonly details?: object
  /** Why an invalid key is invalid, in the event. */
  readonly reason?: string
}

/** A key was refused where it was verified: a problem, an event, and a request that stays rejected. */
export function refuses(code: ErrorCode, { reason, ...changes }: RefusalChanges = {}): Outcome {
  return problem(code, {
    events: [['key.refused', code, reason].filter(Boolean).join(' ')],
    who: rejected(code),
    ...changes,
  })
}

/** A guard refuses who the request is; what was verified before it stays as it was. */
export function guardRefuses(code: ErrorCode, who: Who, changes: RefusalChanges = {}): Outcome {
  return problem(code, { who, by: 'guard', ...changes })
}

/** A key was presented and refused. */
export function rejected(code: ErrorCode): Who {
  return { method: 'rejected', code }
}

/** A problem that no event tells of: of a guard, or because no key was sent. */
export function problem(code: ErrorCode, { details, ...changes }: RefusalChanges = {}): Outcome {
  const [status, title] = PROBLEMS[code] as (typeof PROBLEMS)[string]
  const challenge = CHALLENGES[code]
  return {
    status,
    body: JSON.stringify({ type: ownTypeOf(code), title, status, code, ...details }),
    events: [],
    ...NO_IO,
    who: NOBODY,
    code,
    ...changes,
    fields: {
      'Content-Type': 'application/problem+json',
      'Cache-Control': 'no-store',
      ...(challenge && { 'WWW-Authenticate': challenge }),
      ...changes.fields,
    },
  }
}

/** Said once more, and not taken from the library: what it says is what is tested. */
const PROBLEMS: Readonly<Record<string, readonly [status: number, title: string]>> = {
  missing_key: [401, 'An API key is required'],
  multiple_credentials: [400, 'More than one API key was sent'],
  invalid_key: [401, 'The API key is not valid'],
  address_not_allowed: [403, 'The API key may not be used from this address'],
  insufficient_permissions: [403, 'The API key lacks a permission'],
  rate_limited: [429, 'The API key has exceeded a rate limit'],
  quota_exceeded: [429, 'The API key has used up its quota'],
  too_many_failures: [429, 'Too many invalid API keys from this address'],
  unavailable: [503, 'API keys cannot be verified right now'],
  authentication_required: [401, 'Authentication is required'],
  session_required: [403, 'A login session is required'],
  api_key_required: [403, 'An API key is required here'],
  auth_method_not_accepted: [403, 'This authentication method is not accepted here'],
}

const CHALLENGES: Readonly<Partial<Record<ErrorCode, string>>> = {
  missing_key: BARE,
  invalid_key: INVALID,
  authentication_required: 'Session realm="Users"',
}

/** The same outcome of a HEAD request: the header fields of the GET, its length included, and no body. */
export function ofHead(outcome: Outcome): Outcome {
  const length = outcome.body.replaceAll(/<[^<>]+ id>/g, '0'.repeat(16)).length
  return { ...outcome, body: '', fields: { ...outcome.fields, 'Content-Length': String(length) } }
}

/** The same outcome where the framework renders the error: what it writes is its own, all else is kept. */
export function renderedByFramework(outcome: Outcome): Outcome {
  const { 'Content-Type': _type, ...fields } = outcome.fields
  return { ...outcome, body: FRAMEWORK_BODY, fields }
}

/** Stands for a body of the framework's own. */
export const FRAMEWORK_BODY = '<the framework’s>'
