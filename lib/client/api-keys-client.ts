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

/** Options of every call. */
export interface CallOptions {
  /** Cancels the call. It then rejects with the reason of the signal. */
  signal?: AbortSignal
}

/** Options of a call that changes one key. */
export interface ChangeCallOptions extends CallOptions {
  /** Changes the key only if it still has this version, and fails with `precondition_failed` otherwise. */
  expectedVersion?: number
}

/** Options of a call that creates a key. */
export interface MakeCallOptions extends CallOptions {
  /**
   * Makes retries safe: however often you send the same request with this value, the service creates one key. The second request
   * fails with `already_done`, whose `details.apiKey` is the created key. 1 to 255 characters of visible ASCII.
   *
   * @default a random one for each call, so that the client's own retries create one key
   */
  idempotencyKey?: string
}

/** Options of a call that revokes one key. */
export interface RevokeCallOptions extends ChangeCallOptions {
  /** Stored with the key, at most 1,000 characters. */
  reason?: string
}

/** A new key: its owner and its settings, as far as the service lets clients set them. */
export interface IssueKeyRequest extends KeySettings, Pick<IssueOptions, 'prefix'> {
  /** The owner of the key. @default the owner that the caller acts for, if there is only one */
  owner?: Owner
}

/** The settings to change. Omitted settings stay as they are. */
export type UpdateKeyRequest = Partial<KeySettings>

/** How to rotate a key. */
export type RotateKeyRequest = Pick<RotateOptions, 'graceMs' | 'expiresAt'>

/** Which keys to list. A key must match every given member. */
export interface ListKeysRequest
  extends Pick<
    ListOptions,
    'owner' | 'createdBy' | 'name' | 'status' | 'expiresBefore' | 'order' | 'cursor'
  > {
  /**
   * The maximum number of keys to return, 1 to 100.
   *
   * @default 20
   */
  limit?: number
}

/**
 * The keys of a service, over HTTP. It has the methods of `keys` in the service, as far as the service allows the caller to use them.
 *
 * Every method rejects with an {@link ApiKeysClientError}. Its `code` is `unavailable` if there was no usable response, and otherwise
 * the code of the service's refusal. A wrong argument rejects with a TypeError.
 */
export interface ApiKeysClient {
  /**
   * Lists keys by creation time, oldest first unless `order` says otherwise. Without a filter, it lists the keys of all owners that
   * the caller acts for.
   */
  list(request?: ListKeysRequest, options?: CallOptions): Promise<ApiKeyPage>
  /**
   * Issues a key. Only this response contains the secret. If the response was lost, the client repeats the request and fails with
   * `already_done`: revoke the key in `details.apiKey` and issue another.
   */
  issue(request: IssueKeyRequest, options?: MakeCallOptions): Promise<IssuedKey>
  /** Returns a key; null if it does not exist or belongs to an owner that the caller does not act for. */
  get(id: string, options?: CallOptions): Promise<ApiKey | null>
  /** Changes settings of a key. */
  update(id: string, change: UpdateKeyRequest, options?: ChangeCallOptions): Promise<ApiKey>
  /** Enables a disabled key. */
  enable(id: string, options?: ChangeCallOptions): Promise<ApiKey>
  /** Disables a key until you enable it again. */
  disable(id: string, options?: ChangeCallOptions): Promise<ApiKey>
  /**
   * Issues a successor with the same settings, limits and quota; the previous key works until `previous.expiresAt`: for
   * `graceMs`, 24 hours by default. It fails with `conflict` if another rotation came first. It fails with `already_done` as `issue` does: then rotate the successor.
   */
  rotate(
    id: string,
    request?: RotateKeyRequest,
    options?: MakeCallOptions & ChangeCallOptions,
  ): Promise<RotatedKey>
  /** Revokes a key permanently. */
  revoke(id: string, options?: RevokeCallOptions): Promise<ApiKey>
  /** Revokes all keys of an owner and returns how many it revoked. If it fails, call it again. */
  revokeOwner(owner: Owner, options?: CallOptions & { reason?: string }): Promise<number>
  /**
   * Revokes all keys that a user or program issued and returns how many it revoked. With `owner`, it revokes only those of this owner;
   * only administrators may leave `owner` out.
   */
  revokeCreatedBy(
    createdBy: string,
    options?: CallOptions & { owner?: Owner; reason?: string },
  ): Promise<number>
  /**
   * Erases an owner: revokes and removes all its keys, and clears the identifier `knownAs` from keys of others. Only administrators
   * may call it. If it fails, call it again: the work already done stays done.
   */
  erase(owner: Owner, options?: CallOptions & Pick<EraseOptions, 'knownAs'>): Promise<ErasedOwner>
  /** Returns the client's own `key`. */
  self(options?: CallOptions): Promise<ApiKey>
  /** Revokes the client's own `key` permanently. */
  revokeSelf(options?: CallOptions & { reason?: string }): Promise<ApiKey>
  /**
   * Verifies a key that a client presented to this program. The program's own `key` needs the permission to verify. An invalid key
   * resolves; the call rejects only if the service refuses or fails.
   */
  verify(request: VerifyKeyRequest, options?: CallOptions): Promise<Verification>
  /** The OpenAPI 3.1 document of the service. */
  openApi(options?: CallOptions): Promise<Readonly<Record<string, unknown>>>
}

/**
 * Creates a client for the routes of `apiKeyRouter`: for services that verify keys, and for programs that manage them. It needs only
 * `fetch`, so it runs in Node and in browsers.
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
      // Revoking twice is safe, but a revoked key has another version.
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

/** A misspelt `expectedVersion` must not become a change of any version. */
function checkCall<T extends CallOptions>(given: T, ...further: (keyof T & string)[]): T {
  const { signal } = checkObject('options', given, ['signal', ...further])
  const isSignal = typeof (signal as AbortSignal | undefined)?.throwIfAborted === 'function'
  if (signal !== undefined && !isSignal) fail('signal', 'an AbortSignal', signal)
  return given
}

/** The service refuses unknown members by name. */
function checkRequest<T>(request: T): T {
  if (!isPlainObject(request)) fail('request', 'an object', request)
  return request
}

/** Checks every member: a lost filter would list the keys of others. */
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

/** The characters of an id. Anything else in a path might lead to another route, here or in a proxy. */
const ID = /^[A-Za-z0-9_-]{1,64}$/

/** Names of routes. Only an imported key can have such an id, and no route leads to it. */
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
  return fail('idempotencyKey', '1 to 255 visible ASCII characters, without a key in them', value)
}

/** 128 bits. Browsers have `randomUUID` on pages of `https:` only. */
function randomText(): string {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16))
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
