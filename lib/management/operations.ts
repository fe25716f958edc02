import type { z } from 'zod'
import type { ErrorCode } from '../errors.ts'
import { type Action, FIXED_FIELDS } from './policy.ts'
import { refusal } from './refusal.ts'
import {
  eraseBody,
  explainBody,
  issueBody,
  listQuery,
  type NAMED,
  noBody,
  noQuery,
  ownerUsageQuery,
  revokeAllBody,
  revokeBody,
  rotateBody,
  unusedPermissionsQuery,
  updateBody,
  usageQuery,
  verifyBody,
} from './schemas.ts'

export type OperationId =
  | Action
  | 'delete'
  | 'limits'
  | 'usage'
  | 'owner_usage'
  | 'unused_permissions'
  | 'self'
  | 'self_revoke'
  | 'verify'
  | 'openapi'

/** One operation of the interface. Its `id` is the `operationId` in the document. */
export interface Operation {
  readonly id: OperationId
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  /** Relative to the mount path; `{id}` is the id of a key. */
  readonly path: string
  readonly summary: string
  /** The action that the policy decides; null for operations that take a key instead of a session, and for the document. */
  readonly action: Action | null
  readonly isChange: boolean
  readonly query: z.ZodObject
  readonly body: z.ZodObject | null
  /** Whether the body holds a key, which may be in the wrong place in it. */
  readonly isSecret: boolean
  /** Members of a key that no request may set. */
  readonly fixed: readonly string[]
  /** The response on success. */
  readonly success: { readonly status: 200 | 201; readonly schema: keyof typeof NAMED | null }
  readonly isVersioned: boolean
  readonly isIdempotent: boolean
  /** Error codes of this operation, besides those that every operation of its kind shares. */
  readonly codes: readonly ErrorCode[]
}

const FIELD_CODES = ['permissions_exceeded', 'field_not_allowed', 'ceiling_exceeded'] as const

export const OPERATIONS: readonly Operation[] = [
  operation('list', 'GET', '/', 'Lists keys by creation time, oldest or newest first', {
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
    'Revokes all keys of an owner, or all keys that one user or program issued',
    {
      body: revokeAllBody,
      success: { status: 200, schema: 'RevokedCount' },
      codes: ['not_permitted', 'conflict', 'unsupported'],
    },
  ),
  operation(
    'erase',
    'POST',
    '/erase',
    'Erases an owner: removes its keys and forgets it on the keys of others',
    {
      body: eraseBody,
      success: { status: 200, schema: 'ErasedOwner' },
      codes: ['not_permitted', 'conflict', 'unsupported'],
    },
  ),
  operation('owner_usage', 'GET', '/usage', 'Reports the use of all keys of an owner, by hour or by day', {
    action: 'list',
    query: ownerUsageQuery,
    success: { status: 200, schema: 'UsageReport' },
    codes: ['not_permitted', 'unsupported'],
  }),
  operation('explain', 'POST', '/explain', 'Explains what a verification would say now, and spends nothing', {
    body: explainBody,
    success: { status: 200, schema: 'Explanation' },
    isSecret: true,
    codes: ['not_permitted'],
  }),
  operation('verify', 'POST', '/verify', 'Verifies a key for another service', {
    action: null,
    body: verifyBody,
    success: { status: 200, schema: 'Verification' },
    isSecret: true,
    codes: ['too_many_requests'],
  }),
  operation('self', 'GET', '/self', 'Returns the key that sent the request', {
    action: null,
    codes: ['too_many_requests'],
  }),
  operation('self_revoke', 'POST', '/self/revoke', 'Revokes the key that sent the request', {
    action: null,
    body: revokeBody,
    codes: ['not_found', 'conflict', 'unsupported'],
  }),
  operation('openapi', 'GET', '/openapi.json', 'Returns this document', {
    action: null,
    success: { status: 200, schema: null },
  }),
  operation('read', 'GET', '/{id}', 'Returns a key', { codes: ['not_permitted'] }),
  operation(
    'limits',
    'GET',
    '/{id}/limits',
    'Says how the limits of a key and of its owner stand, and its quota',
    {
      action: 'read',
      success: { status: 200, schema: 'Limits' },
      codes: ['not_permitted'],
    },
  ),
  operation('usage', 'GET', '/{id}/usage', 'Reports the use of a key, by hour or by day', {
    action: 'read',
    query: usageQuery,
    success: { status: 200, schema: 'UsageReport' },
    codes: ['not_permitted', 'unsupported'],
  }),
  operation(
    'unused_permissions',
    'GET',
    '/{id}/unused-permissions',
    'Tells which permissions of a key its calls needed, and which none did',
    {
      action: 'read',
      query: unusedPermissionsQuery,
      success: { status: 200, schema: 'UnusedPermissions' },
      codes: ['not_permitted', 'unsupported'],
    },
  ),
  operation('update', 'PATCH', '/{id}', 'Changes settings of a key; omitted settings stay as they are', {
    body: updateBody,
    fixed: FIXED_FIELDS.update,
    isVersioned: true,
    codes: [...FIELD_CODES, 'not_permitted', 'conflict', 'too_many_keys', 'unsupported'],
  }),
  operation('delete', 'DELETE', '/{id}', 'Revokes a key permanently, without a reason', {
    action: 'revoke',
    isVersioned: true,
    codes: ['not_permitted', 'conflict', 'unsupported'],
  }),
  operation('enable', 'POST', '/{id}/enable', 'Enables a disabled key', {
    body: noBody,
    isVersioned: true,
    codes: ['not_permitted', 'permissions_exceeded', 'conflict'],
  }),
  operation('disable', 'POST', '/{id}/disable', 'Disables a key until someone enables it again', {
    body: noBody,
    isVersioned: true,
    codes: ['not_permitted', 'conflict'],
  }),
  operation(
    'rotate',
    'POST',
    '/{id}/rotate',
    'Issues a successor; the previous key keeps working for a grace period',
    {
      body: rotateBody,
      success: { status: 201, schema: 'RotatedKey' },
      isVersioned: true,
      isIdempotent: true,
      codes: [...FIELD_CODES, 'not_permitted', 'conflict', 'too_many_keys', 'already_done', 'unsupported'],
    },
  ),
  operation('revoke', 'POST', '/{id}/revoke', 'Revokes a key permanently', {
    body: revokeBody,
    isVersioned: true,
    codes: ['not_permitted', 'conflict', 'unsupported'],
  }),
]

/**
 * Finds the operation for a request.
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

/** The methods of a path, as `Allow` lists them. @throws LatchkeyError `not_found` */
export function methodsAt(pathname: string): string {
  const { here } = operationsAt(pathname)
  return here.flatMap((one) => (one.method === 'GET' ? ['GET', 'HEAD'] : [one.method])).join(', ')
}

/** The operations of a path, at least one, and the first segment of the path. */
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
    // By default, the action has the same name as the operation.
    action: id as Action,
    isChange: method !== 'GET',
    query: noQuery,
    body: null,
    isSecret: false,
    fixed: [],
    success: { status: 200, schema: 'ApiKey' },
    isVersioned: false,
    isIdempotent: false,
    codes: [],
  }
  return Object.freeze({ ...defaults, ...rest })
}

/** A text that cannot be decoded is not the id of any key. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw refusal('not_found')
  }
}
