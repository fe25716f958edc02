import type { z } from 'zod'
import type { ErrorCode } from '../errors.ts'
import { type Action, FIXED_FIELDS } from './policy.ts'
import { refusal } from './refusal.ts'
import {
  eraseBody,
  issueBody,
  listQuery,
  type NAMED,
  noBody,
  noQuery,
  revokeAllBody,
  revokeBody,
  rotateBody,
  updateBody,
  verifyBody,
} from './schemas.ts'

export type OperationId = Action | 'delete' | 'self' | 'self_revoke' | 'verify' | 'openapi'

/** One thing that can be asked for: what `operationId` names in the document. */
export interface Operation {
  readonly id: OperationId
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  /** Relative to where the interface is mounted; `{id}` is a key's. */
  readonly path: string
  readonly summary: string
  /** What the policy decides about; null where only a key may ask, for itself. */
  readonly action: Action | null
  readonly isChange: boolean
  readonly query: z.ZodObject
  readonly body: z.ZodObject | null
  /** Members that a key has and nobody may set. */
  readonly fixed: readonly string[]
  /** What is answered where all is well. */
  readonly success: { readonly status: 200 | 201; readonly schema: keyof typeof NAMED | null }
  readonly isVersioned: boolean
  readonly isIdempotent: boolean
  /** What it may be refused with, besides what every operation of its kind may be. */
  readonly codes: readonly ErrorCode[]
}

const FIELD_CODES = ['permissions_exceeded', 'field_not_allowed', 'ceiling_exceeded'] as const

export const OPERATIONS: readonly Operation[] = [
  operation('list', 'GET', '/', 'Lists keys in the order of their creation, the oldest or the newest first', {
    query: listQuery,
    success: { status: 200, schema: 'ApiKeyPage' },
    codes: ['not_permitted', 'invalid_cursor'],
  }),
  operation('issue', 'POST', '/', 'Issues a key', {
    body: issueBody,
    fixed: FIXED_FIELDS.issue,
    success: { status: 201, schema: 'IssuedKey' },
    isIdempotent: true,
    codes: [...FIELD_CODES, 'not_permitted', 'conflict', 'too_many_keys', 'already_done', 'unsupported'],
  }),
  operation(
    'revoke_all',
    'POST',
    '/revoke',
    'Revokes the keys of an owner, or those that somebody has issued',
    {
      body: revokeAllBody,
      success: { status: 200, schema: 'RevokedCount' },
      codes: ['not_permitted', 'conflict', 'unsupported'],
    },
  ),
  operation('erase', 'POST', '/erase', 'Erases an owner: its keys, and its traces on keys of others', {
    body: eraseBody,
    success: { status: 200, schema: 'ErasedOwner' },
    codes: ['not_permitted', 'conflict', 'unsupported'],
  }),
  operation('verify', 'POST', '/verify', 'Verifies a key for another service', {
    action: null,
    body: verifyBody,
    success: { status: 200, schema: 'Verification' },
    codes: ['too_many_requests'],
  }),
  operation('self', 'GET', '/self', 'Shows the key that asks', {
    action: null,
    codes: ['too_many_requests'],
  }),
  operation('self_revoke', 'POST', '/self/revoke', 'Revokes the key that asks', {
    action: null,
    body: revokeBody,
    codes: ['not_found', 'conflict', 'unsupported'],
  }),
  operation('openapi', 'GET', '/openapi.json', 'This document', {
    action: null,
    success: { status: 200, schema: null },
  }),
  operation('read', 'GET', '/{id}', 'Shows a key', { codes: ['not_permitted'] }),
  operation('update', 'PATCH', '/{id}', 'Changes settings of a key; what is left out stays', {
    body: updateBody,
    fixed: FIXED_FIELDS.update,
    isVersioned: true,
    codes: [...FIELD_CODES, 'not_permitted', 'conflict', 'too_many_keys', 'unsupported'],
  }),
  operation('delete', 'DELETE', '/{id}', 'Revokes a key: the same as POST /{id}/revoke without a reason', {
    action: 'revoke',
    isVersioned: true,
    codes: ['not_permitted', 'conflict', 'unsupported'],
  }),
  operation('enable', 'POST', '/{id}/enable', 'Lets a disabled key work again', {
    body: noBody,
    isVersioned: true,
    codes: ['not_permitted', 'permissions_exceeded', 'conflict'],
  }),
  operation('disable', 'POST', '/{id}/disable', 'Stops a key until it is enabled again', {
    body: noBody,
    isVersioned: true,
    codes: ['not_permitted', 'conflict'],
  }),
  operation('rotate', 'POST', '/{id}/rotate', 'Issues a successor and lets the key end after a grace', {
    body: rotateBody,
    success: { status: 201, schema: 'RotatedKey' },
    isVersioned: true,
    isIdempotent: true,
    codes: [...FIELD_CODES, 'not_permitted', 'conflict', 'too_many_keys', 'already_done', 'unsupported'],
  }),
  operation('revoke', 'POST', '/{id}/revoke', 'Stops a key for good', {
    body: revokeBody,
    isVersioned: true,
    codes: ['not_permitted', 'conflict', 'unsupported'],
  }),
]

/**
 * Which operation a request asks for.
 *
 * @throws LatchkeyError `not_found`, `method_not_allowed`
 */
export function matchRoute(
  method: string,
  pathname: string,
): { operation: Operation; params: { id: string } } {
  const { first, here } = operationsAt(pathname)
  const id = decode(first)
  const operation = here.find((one) => one.method === (method === 'HEAD' ? 'GET' : method))
  if (operation) return { operation, params: { id } }
  throw refusal('method_not_allowed', {}, { Allow: methodsAt(pathname) })
}

/** The methods that a path has, as `Allow` lists them. @throws LatchkeyError `not_found` */
export function methodsAt(pathname: string): string {
  const { here } = operationsAt(pathname)
  return here.flatMap((one) => (one.method === 'GET' ? ['GET', 'HEAD'] : [one.method])).join(', ')
}

/** The operations of a path, of which there is at least one, and its first segment. */
function operationsAt(pathname: string): { first: string; here: readonly Operation[] } {
  const [first = '', second, ...more] = pathname.replace(/^\//, '').split('/')
  if (more.length > 0) throw refusal('not_found')
  const isKnown = (path: string) => OPERATIONS.some((operation) => operation.path === path)
  const path = second === undefined ? `/${first}` : `/${first}/${second}`
  const pattern = isKnown(path) ? path : second === undefined ? '/{id}' : `/{id}/${second}`
  const here = OPERATIONS.filter((operation) => operation.path === pattern)
  if (here.length === 0) throw refusal('not_found')
  return { first, here }
}

function operation(
  id: OperationId,
  method: Operation['method'],
  path: string,
  summary: string,
  rest: Partial<Operation>,
): Operation {
  const defaults: Operation = {
    id,
    method,
    path,
    summary,
    // Those that name none are about an action of their own name.
    action: id as Action,
    isChange: method !== 'GET',
    query: noQuery,
    body: null,
    fixed: [],
    success: { status: 200, schema: 'ApiKey' },
    isVersioned: false,
    isIdempotent: false,
    codes: [],
  }
  return Object.freeze({ ...defaults, ...rest })
}

/** What cannot be decoded is no id of anything. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw refusal('not_found')
  }
}
