import { type ApiKey, checkOwner, type Owner } from '../core/keys/record.ts'
import type { LimitState } from '../core/limits/rate-limit.ts'
import type {
  ApiKeyPage,
  ErasedOwner,
  EraseOptions,
  IssuedKey,
  RotatedKey,
} from '../core/manage/key-management.ts'
import type { UnusedPermissions, UnusedPermissionsOptions } from '../core/usage/unused-permissions.ts'
import type { UsageReport } from '../core/usage/usage-report.ts'
import type { Explanation } from '../core/verify/explanation.ts'
import { checkInteger, checkObject, checkShownText } from '../internal/options.ts'
import {
  checkCall,
  checkIdempotencyKey,
  checkRequest,
  ifMatch,
  pathOf,
  queryOf,
  randomText,
  usageQueryOf,
} from './check-requests.ts'
import { isApiKeysClientError } from './client-error.ts'
import { type Call, createConnection, type Send } from './connection.ts'
import type { ApiKeysClientOptions } from './connection-options.ts'
import {
  readApiKey,
  readDocument,
  readErased,
  readExplanation,
  readIssued,
  readLimits,
  readPage,
  readRevoked,
  readRotated,
  readUnusedPermissions,
  readUsage,
  readVerification,
} from './read-answers.ts'
import type {
  CallOptions,
  ChangeCallOptions,
  IssueKeyRequest,
  ListKeysRequest,
  MakeCallOptions,
  RevokeCallOptions,
  RotateKeyRequest,
  UpdateKeyRequest,
  UsageRequest,
} from './requests.ts'
import type { ExplainKeyRequest, Verification, VerifyKeyRequest } from './verification.ts'
import { writeJson } from './write-json.ts'

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
  /**
   * Says how the rate limits of a key and of its owner stand, and its quota; null if the key does not exist or belongs to an owner that
   * the caller does not act for.
   */
  limits(id: string, options?: CallOptions): Promise<readonly LimitState[] | null>
  /**
   * Reports the use of a key, by hour or by day. Null if the key does not exist or belongs to an owner that the caller does not act
   * for.
   */
  usage(id: string, request?: UsageRequest, options?: CallOptions): Promise<UsageReport | null>
  /** Reports the use of all keys of an owner together, by hour or by day. */
  ownerUsage(owner: Owner, request?: UsageRequest, options?: CallOptions): Promise<UsageReport>
  /**
   * Tells which permissions of a key its calls needed in the last `days` (30 by default), and which none did. Null if the key does not
   * exist or belongs to an owner that the caller does not act for.
   */
  unusedPermissions(
    id: string,
    request?: UnusedPermissionsOptions,
    options?: CallOptions,
  ): Promise<UnusedPermissions | null>
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
  /**
   * Says what the service would answer to a key now, and takes each step of the decision for that, as `keys.explain` does. It spends
   * nothing. Only administrators may call it.
   *
   * @example
   * const { outcome, steps } = await client.explain({ id: 'XbC3f8K2mPq9TzRw', permissions: { projects: ['write'] } })
   */
  explain(request: ExplainKeyRequest, options?: CallOptions): Promise<Explanation>
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
  return Object.freeze({
    ...readingCalls(send),
    ...usageCalls(send),
    ...makingCalls(send),
    ...changingCalls(send),
    ...ownerCalls(send),
  } satisfies ApiKeysClient)
}

async function nullIfMissing<T>(get: () => Promise<T>): Promise<T | null> {
  try {
    return await get()
  } catch (error) {
    if (isApiKeysClientError(error) && error.code === 'not_found') return null
    throw error
  }
}

function readingCalls(
  send: Send,
): Pick<ApiKeysClient, 'list' | 'get' | 'limits' | 'self' | 'verify' | 'explain' | 'openApi'> {
  return {
    list: async (request = {}, given = {}) =>
      read(send, '', { query: queryOf(request), read: readPage }, given),
    get: async (id, given = {}) => nullIfMissing(() => read(send, pathOf(id), { read: readApiKey }, given)),
    limits: async (id, given = {}) =>
      nullIfMissing(() => read(send, `${pathOf(id)}/limits`, { read: readLimits }, given)),
    self: async (given = {}) => read(send, '/self', { read: readApiKey }, given),
    async verify(request, given = {}) {
      const { signal } = checkCall(given)
      const { charge = false, cost, ...rest } = checkRequest(request)
      const body = writeJson({ ...rest, ...(charge && { charge, cost }) })
      const isRepeatable = !charge
      return send({ method: 'POST', path: '/verify', body, isRepeatable, signal, read: readVerification })
    },
    async explain(request, given = {}) {
      const { signal } = checkCall(given)
      const body = writeJson(checkRequest(request))
      const isRepeatable = true
      return send({ method: 'POST', path: '/explain', body, isRepeatable, signal, read: readExplanation })
    },
    openApi: async (given = {}) => read(send, '/openapi.json', { read: readDocument }, given),
  }
}

function usageCalls(send: Send): Pick<ApiKeysClient, 'usage' | 'ownerUsage' | 'unusedPermissions'> {
  return {
    usage: async (id, request = {}, given = {}) =>
      nullIfMissing(() => {
        const query = usageQueryOf(request)
        return read(send, `${pathOf(id)}/usage`, { query, read: readUsage }, given)
      }),
    async ownerUsage(owner, request = {}, given = {}) {
      const { type, id } = checkOwner('owner', owner)
      const query = { ...usageQueryOf(request), ownerType: type, ownerId: id }
      return read(send, '/usage', { query, read: readUsage }, given)
    },
    unusedPermissions: async (id, request = {}, given = {}) =>
      nullIfMissing(() => {
        const { days } = checkObject('request', request, ['days'])
        const query = { days: days === undefined ? undefined : String(checkInteger('days', days, 1, 3_650)) }
        return read(send, `${pathOf(id)}/unused-permissions`, { query, read: readUnusedPermissions }, given)
      }),
  }
}

function read<T>(
  send: Send,
  path: string,
  how: Pick<Call<T>, 'read' | 'query'>,
  given: CallOptions,
): Promise<T> {
  const { signal } = checkCall(given)
  return send({ method: 'GET', path, isRepeatable: true, signal, ...how })
}

function makingCalls(send: Send): Pick<ApiKeysClient, 'issue' | 'rotate'> {
  return {
    issue: async (request, given = {}) =>
      make(send, '', request, checkCall(given, 'idempotencyKey'), readIssued),
    async rotate(id, request = {}, given = {}) {
      const options = checkCall(given, 'idempotencyKey', 'expectedVersion')
      return make(send, `${pathOf(id)}/rotate`, request, options, readRotated)
    },
  }
}

function make<T>(
  send: Send,
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

function changingCalls(
  send: Send,
): Pick<ApiKeysClient, 'update' | 'enable' | 'disable' | 'revoke' | 'revokeSelf'> {
  return {
    async update(id, request, given = {}) {
      const options = checkCall(given, 'expectedVersion')
      return change(send, pathOf(id), checkRequest(request), options, { method: 'PATCH' })
    },
    enable: async (id, given = {}) =>
      change(send, `${pathOf(id)}/enable`, {}, checkCall(given, 'expectedVersion')),
    disable: async (id, given = {}) =>
      change(send, `${pathOf(id)}/disable`, {}, checkCall(given, 'expectedVersion')),
    async revoke(id, given = {}) {
      const { reason, expectedVersion } = checkCall(given, 'reason', 'expectedVersion')
      // Revoking twice is safe, but a revoked key has another version.
      const isRepeatable = expectedVersion === undefined
      return change(send, `${pathOf(id)}/revoke`, { reason }, given, { isRepeatable })
    },
    async revokeSelf(given = {}) {
      const { reason, ...rest } = checkCall(given, 'reason')
      return change(send, '/self/revoke', { reason }, rest)
    },
  }
}

function change(
  send: Send,
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

function ownerCalls(send: Send): Pick<ApiKeysClient, 'revokeOwner' | 'revokeCreatedBy' | 'erase'> {
  return {
    revokeOwner: async (owner, given = {}) =>
      revokeAll(send, { owner: checkOwner('owner', owner) }, checkCall(given, 'reason')),
    async revokeCreatedBy(createdBy, given = {}) {
      const { owner } = checkCall(given, 'owner', 'reason')
      const whose = owner === undefined ? {} : { owner: checkOwner('owner', owner) }
      return revokeAll(send, { createdBy: checkShownText('createdBy', createdBy, 255), ...whose }, given)
    },
    async erase(owner, given = {}) {
      const { knownAs, signal } = checkCall(given, 'knownAs')
      const body = writeJson({ owner: checkOwner('owner', owner), knownAs })
      return send({ method: 'POST', path: '/erase', body, isRepeatable: false, signal, read: readErased })
    },
  }
}

function revokeAll(
  send: Send,
  whose: object,
  { reason, signal }: CallOptions & { reason?: string },
): Promise<number> {
  const body = writeJson({ ...whose, reason })
  return send({ method: 'POST', path: '/revoke', body, isRepeatable: false, signal, read: readRevoked })
}
