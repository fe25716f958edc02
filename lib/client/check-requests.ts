import { checkOwner, type Owner } from '../core/keys/record.ts'
import { holdsKey } from '../internal/key-text.ts'
import {
  checkDate,
  checkInteger,
  checkObject,
  checkOneOf,
  checkShownText,
  fail,
  isPlainObject,
} from '../internal/options.ts'
import { ApiKeysClientError } from './client-error.ts'
import type { CallOptions, ChangeCallOptions, ListKeysRequest, UsageRequest } from './requests.ts'

/** A misspelt `expectedVersion` must not become a change of any version. */
export function checkCall<T extends CallOptions>(given: T, ...further: (keyof T & string)[]): T {
  const { signal } = checkObject('options', given, ['signal', ...further])
  const isSignal = typeof (signal as AbortSignal | undefined)?.throwIfAborted === 'function'
  if (signal !== undefined && !isSignal) fail('signal', 'an AbortSignal', signal)
  return given
}

/** The service refuses unknown members by name. */
export function checkRequest<T>(request: T): T {
  if (!isPlainObject(request)) fail('request', 'an object', request)
  return request
}

/** Checks every member: a lost filter would list the keys of others. */
export function queryOf(request: ListKeysRequest): Record<string, string | undefined> {
  checkObject('request', request, [
    'owner',
    'createdBy',
    'name',
    'status',
    'expiresBefore',
    'order',
    'limit',
    'cursor',
  ])
  const { owner, limit, expiresBefore, ...texts } = request
  const whose: Partial<Owner> = owner === undefined ? {} : checkOwner('owner', owner)
  for (const [name, value] of Object.entries(texts)) {
    if (value !== undefined) checkShownText(name, value, 1_000)
  }
  return {
    ...texts,
    ownerType: whose.type,
    ownerId: whose.id,
    expiresBefore:
      expiresBefore === undefined ? undefined : checkDate('expiresBefore', expiresBefore).toISOString(),
    limit: limit === undefined ? undefined : String(checkInteger('limit', limit, 1, 100)),
  }
}

export function usageQueryOf(request: UsageRequest): Record<string, string | undefined> {
  checkObject('request', request, ['from', 'to', 'by', 'timeZone'])
  const { from, to, by, timeZone } = request
  if (by !== undefined) checkOneOf('by', by, ['hour', 'day'])
  return {
    from: from === undefined ? undefined : checkDate('from', from).toISOString(),
    to: to === undefined ? undefined : checkDate('to', to).toISOString(),
    by,
    timeZone: timeZone === undefined ? undefined : checkShownText('timeZone', timeZone, 255),
  }
}

/** The characters of an id. Anything else in a path might lead to another route, here or in a proxy. */
const ID = /^[A-Za-z0-9_-]{1,64}$/

/** Names of routes. Only an imported key can have such an id, and no route leads to it. */
const RESERVED = new Set(['self', 'verify', 'explain', 'revoke', 'erase', 'usage'])

export function pathOf(id: unknown): string {
  if (typeof id !== 'string') fail('id', 'a string', id)
  if (!ID.test(id) || RESERVED.has(id)) throw new ApiKeysClientError('not_found')
  return `/${id}`
}

export function ifMatch({ expectedVersion }: ChangeCallOptions): Record<string, string> {
  if (expectedVersion === undefined) return {}
  return { 'If-Match': `"${checkInteger('expectedVersion', expectedVersion, 1, Number.MAX_SAFE_INTEGER)}"` }
}

export function checkIdempotencyKey(value: unknown): string {
  if (typeof value === 'string' && /^[\x21-\x7e]{1,255}$/.test(value) && !holdsKey(value)) return value
  return fail('idempotencyKey', '1 to 255 visible ASCII characters, without a key in them', value)
}

/** 128 bits. Browsers have `randomUUID` on pages of `https:` only. */
export function randomText(): string {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16))
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
