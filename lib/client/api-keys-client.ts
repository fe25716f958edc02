import type { KeySettings } from '../core/keys/key-settings.ts'
import { type ApiKey, checkOwner, type Owner } from '../core/keys/record.ts'
import type {
  ApiKeyPage,
  ErasedOwner,
  EraseOptions,
  IssuedKey,
  IssueOptions,
  ListOptions,
  RotatedKey,
  RotateOptions,
} from '../core/manage/key-management.ts'
import { holdsKey } from '../internal/key-text.ts'
import {
  checkDate,
  checkInteger,
  checkObject,
  checkShownText,
  fail,
  isPlainObject,
} from '../internal/options.ts'
import { ApiKeysClientError, isApiKeysClientError } from './client-error.ts'
import { type ApiKeysClientOptions, type Call, createConnection } from './connection.ts'
import {
  readApiKey,
  readDocument,
  readErased,
  readIssued,
  readPage,
  readRevoked,
  readRotated,
  readVerification,
} from './read-answers.ts'
import type { Verification, VerifyKeyRequest } from './verification.ts'
import { writeJson } from './write-json.ts'

/** Every call takes this. */
export interface CallOptions {
  /** Gives the call up; it then rejects with the reason of the signal. */
  signal?: AbortSignal
}

/** A call that changes one key. */
export interface ChangeCallOptions extends CallOptions {
  /** Changes the key only if it still has this version, and fails with `precondition_failed` otherwise. */
  expectedVersion?: number
}

/** A call that makes a key. */
export interface MakeCallOptions extends CallOptions {
  /**
   * Makes the key once, however often the same is asked for with this text: the second time fails with `already_done`, whose
   * `details.apiKey` is the key that was made. 1 to 255 characters of visible ASCII.
   *
   * @default a random one for each call, so that the client's own repetitions make one key
   */
  idempotencyKey?: string
}

/** A call that revokes one key. */
export interface RevokeCallOptions extends ChangeCallOptions {
  /** Kept with the key, at most 1,000 characters. */
  reason?: string
}

/** A new key: whose, and what may be set on it as far as the service lets its clients. */
export interface IssueKeyRequest extends KeySettings, Pick<IssueOptions, 'prefix'> {
  /** Whom the key belongs to. @default the owner that one acts for, where it is one */
  owner?: Owner
}

/** What to change of a key; what is left out stays. */
export type UpdateKeyRequest = Partial<KeySettings>

/** How to rotate a key. */
export type RotateKeyRequest = Pick<RotateOptions, 'graceMs' | 'expiresAt'>

/** Which keys to list; every member given must hold. */
export interface ListKeysRequest
  extends Pick<
    ListOptions,
    'owner' | 'createdBy' | 'name' | 'status' | 'expiresBefore' | 'order' | 'cursor'
  > {
  /**
   * How many keys to return at most, 1 to 100.
   *
   * @default 20
   */
  limit?: number
}

/**
 * The keys of a service, over HTTP. Its methods are those of `keys` there, within what the service allows the caller.
 *
 * Every method fails with an {@link ApiKeysClientError}, whose `code` says why: `unavailable` where there was no answer, and
 * otherwise what the service refused with. It throws a TypeError where an argument is wrong.
 */
export interface ApiKeysClient {
  /**
   * Lists keys in the order of their creation, the oldest first unless `order` says otherwise: without a filter, those of all
   * owners that one acts for.
   */
  list(request?: ListKeysRequest, options?: CallOptions): Promise<ApiKeyPage>
  /**
   * Issues a key. Its text is in this answer and nowhere else: where the answer was lost on the way, the client asks again and is
   * told `already_done`. Revoke the key that `details.apiKey` then shows, and issue another.
   */
  issue(request: IssueKeyRequest, options?: MakeCallOptions): Promise<IssuedKey>
  /** Shows a key; null where there is none, or it is somebody else's. */
  get(id: string, options?: CallOptions): Promise<ApiKey | null>
  /** Changes settings of a key. */
  update(id: string, change: UpdateKeyRequest, options?: ChangeCallOptions): Promise<ApiKey>
  /** Lets a disabled key work again. */
  enable(id: string, options?: ChangeCallOptions): Promise<ApiKey>
  /** Stops a key until it is enabled again. */
  disable(id: string, options?: ChangeCallOptions): Promise<ApiKey>
  /**
   * Issues a successor with the same settings, limits and quota, and lets the key end after a grace. It fails with `conflict`
   * where another rotation came first, and with `already_done` as `issue` does: rotate the successor then.
   */
  rotate(
    id: string,
    request?: RotateKeyRequest,
    options?: MakeCallOptions & ChangeCallOptions,
  ): Promise<RotatedKey>
  /** Stops a key for good. */
  revoke(id: string, options?: RevokeCallOptions): Promise<ApiKey>
  /** Revokes all keys of an owner, and says how many. Ask again where it fails. */
  revokeOwner(owner: Owner, options?: CallOptions & { reason?: string }): Promise<number>
  /**
   * Revokes all keys that a person or program has issued, and says how many: those of one `owner`, or, for administrators,
   * those of every owner.
   */
  revokeCreatedBy(
    createdBy: string,
    options?: CallOptions & { owner?: Owner; reason?: string },
  ): Promise<number>
  /**
   * Erases an owner, for administrators: revokes and removes all its keys, and forgets it on keys of others, where `knownAs` is
   * the identifier to forget. Ask again where it fails: what was done stays done.
   */
  erase(owner: Owner, options?: CallOptions & Pick<EraseOptions, 'knownAs'>): Promise<ErasedOwner>
  /** Shows the client's own `key`. */
  self(options?: CallOptions): Promise<ApiKey>
  /** Stops the client's own `key` for good. */
  revokeSelf(options?: CallOptions & { reason?: string }): Promise<ApiKey>
  /**
   * Verifies a key that was presented to this program, whose own `key` must be permitted to. A key that is not good is an
   * answer; only a service that refuses or fails rejects.
   */
  verify(request: VerifyKeyRequest, options?: CallOptions): Promise<Verification>
  /** The OpenAPI 3.1 document of the service. */
  openApi(options?: CallOptions): Promise<Readonly<Record<string, unknown>>>
}

/**
 * A client for the routes of `apiKeyRouter`: for another service that verifies keys, and for programs that manage them. It needs
 * nothing but `fetch`, and so runs in Node and in browsers.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const client = createApiKeysClient({ baseUrl: 'https://auth.example.com/api-keys', key: process.env.AUTH_KEY ?? '' })
 * const { apiKeys } = await client.list({ status: 'active' })
 */
export function createApiKeysClient(options: ApiKeysClientOptions): ApiKeysClient {
  const send = createConnection(options)

  function read<T>(path: string, how: Pick<Call<T>, 'read' | 'query'>, given: CallOptions): Promise<T> {
    const { signal } = checkCall(given)
    return send({ method: 'GET', path, isRepeatable: true, signal, ...how })
  }

  function change(
    path: string,
    body: object,
    given: ChangeCallOptions,
    how: Partial<Call<ApiKey>> = {},
  ): Promise<ApiKey> {
    return send({
      method: 'POST',
      path,
      body: writeJson(body),
      headers: ifMatch(given),
      isRepeatable: false,
      signal: given.signal,
      read: readApiKey,
      ...how,
    })
  }

  function make<T>(
    path: string,
    body: object,
    given: MakeCallOptions & ChangeCallOptions,
    readMade: (body: unknown) => T,
  ): Promise<T> {
    const { idempotencyKey = randomText() } = given
    return send({
      method: 'POST',
      path,
      body: writeJson(checkRequest(body)),
      headers: { ...ifMatch(given), 'Idempotency-Key': checkIdempotencyKey(idempotencyKey) },
      isRepeatable: true,
      signal: given.signal,
      read: readMade,
    })
  }

  function revokeAll(whose: object, { reason, signal }: CallOptions & { reason?: string }): Promise<number> {
    const body = writeJson({ ...whose, reason })
    return send({ method: 'POST', path: '/revoke', body, isRepeatable: false, signal, read: readRevoked })
  }

  return Object.freeze({
    list: async (request = {}, given = {}) => read('', { query: queryOf(request), read: readPage }, given),
    issue: async (request, given = {}) => make('', request, checkCall(given, 'idempotencyKey'), readIssued),
    async get(id, given = {}) {
      try {
        return await read(pathOf(id), { read: readApiKey }, given)
      } catch (error) {
        if (isApiKeysClientError(error) && error.code === 'not_found') return null
        throw error
      }
    },
    async update(id, request, given = {}) {
      const options = checkCall(given, 'expectedVersion')
      return change(pathOf(id), checkRequest(request), options, { method: 'PATCH' })
    },
    enable: async (id, given = {}) => change(`${pathOf(id)}/enable`, {}, checkCall(given, 'expectedVersion')),
    disable: async (id, given = {}) =>
      change(`${pathOf(id)}/disable`, {}, checkCall(given, 'expectedVersion')),
    async rotate(id, request = {}, given = {}) {
      const options = checkCall(given, 'idempotencyKey', 'expectedVersion')
      return make(`${pathOf(id)}/rotate`, request, options, readRotated)
    },
    async revoke(id, given = {}) {
      const { reason, expectedVersion } = checkCall(given, 'reason', 'expectedVersion')
      // Nothing makes a revoked key good again; but once revoked it has another version.
      const isRepeatable = expectedVersion === undefined
      return change(`${pathOf(id)}/revoke`, { reason }, given, { isRepeatable })
    },
    revokeOwner: async (owner, given = {}) =>
      revokeAll({ owner: checkOwner('owner', owner) }, checkCall(given, 'reason')),
    async revokeCreatedBy(createdBy, given = {}) {
      const { owner } = checkCall(given, 'owner', 'reason')
      const whose = owner === undefined ? {} : { owner: checkOwner('owner', owner) }
      return revokeAll({ createdBy: checkShownText('createdBy', createdBy, 255), ...whose }, given)
    },
    async erase(owner, given = {}) {
      const { knownAs, signal } = checkCall(given, 'knownAs')
      const body = writeJson({ owner: checkOwner('owner', owner), knownAs })
      return send({ method: 'POST', path: '/erase', body, isRepeatable: false, signal, read: readErased })
    },
    self: async (given = {}) => read('/self', { read: readApiKey }, given),
    async revokeSelf(given = {}) {
      const { reason, ...rest } = checkCall(given, 'reason')
      return change('/self/revoke', { reason }, rest)
    },
    async verify(request, given = {}) {
      const { signal } = checkCall(given)
      const { charge = false, cost, ...rest } = checkRequest(request)
      const body = writeJson({ ...rest, ...(charge && { charge, cost }) })
      const isRepeatable = !charge
      return send({ method: 'POST', path: '/verify', body, isRepeatable, signal, read: readVerification })
    },
    openApi: async (given = {}) => read('/openapi.json', { read: readDocument }, given),
  } satisfies ApiKeysClient)
}

/** A name that is misspelt must not become a change of whatever version there is. */
function checkCall<T extends CallOptions>(given: T, ...further: (keyof T & string)[]): T {
  const { signal } = checkObject('options', given, ['signal', ...further])
  const isSignal = typeof (signal as AbortSignal | undefined)?.throwIfAborted === 'function'
  if (signal !== undefined && !isSignal) fail('signal', 'an AbortSignal', signal)
  return given
}

/** The service knows its members, and refuses others by name. */
function checkRequest<T>(request: T): T {
  if (!isPlainObject(request)) fail('request', 'an object', request)
  return request
}

/** All of it is looked at: a filter that is lost on the way shows the keys of others. */
function queryOf(request: ListKeysRequest): Record<string, string | undefined> {
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

/** What an id can be. Anything else, once written into a path, might become one of another route, if not here then in a proxy. */
const ID = /^[A-Za-z0-9_-]{1,64}$/

/** Names of routes. Only a key that was imported might have such an id, and then no route to it. */
const RESERVED = new Set(['self', 'verify', 'revoke', 'erase'])

function pathOf(id: unknown): string {
  if (typeof id !== 'string') fail('id', 'a string', id)
  if (!ID.test(id) || RESERVED.has(id)) throw new ApiKeysClientError('not_found')
  return `/${id}`
}

function ifMatch({ expectedVersion }: ChangeCallOptions): Record<string, string> {
  if (expectedVersion === undefined) return {}
  return { 'If-Match': `"${checkInteger('expectedVersion', expectedVersion, 1, Number.MAX_SAFE_INTEGER)}"` }
}

function checkIdempotencyKey(value: unknown): string {
  if (typeof value === 'string' && /^[\x21-\x7e]{1,255}$/.test(value) && !holdsKey(value)) return value
  return fail('idempotencyKey', '1 to 255 characters of visible ASCII, and no key', value)
}

/** 128 bits. Browsers have `randomUUID` on pages of `https:` only. */
function randomText(): string {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16))
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
