import type { ApiKeys } from '../core/api-keys.ts'
import { type Clock, systemClock } from '../core/clock.ts'
import { OWN_RESOURCE, type PermissionRequirement, resolveRequirement } from '../core/keys/permissions.ts'
import { compileRateLimits } from '../core/limits/rate-limit.ts'
import { isLatchkeyError, LatchkeyError } from '../errors.ts'
import type { CredentialOptions } from '../http/credential.ts'
import { renderProblem } from '../http/problem.ts'
import { type HeaderFields, headerFields, rawRequest } from '../http/raw-request.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import { OptionError } from '../internal/option-error.ts'
import { checkFunction, checkMethods, checkObject, fail } from '../internal/options.ts'
import type { Actor } from './actor.ts'
import { AUTHENTICATION_OPTIONS, type Caller, createCallerReader } from './authenticate-caller.ts'
import type { ClientFields } from './client-fields.ts'
import { CROSS_ORIGIN_OPTIONS, type CrossOriginOptions, createCrossOrigin } from './cross-origin.ts'
import { createHandlers, type Handlers } from './handlers.ts'
import { keyActorId } from './key-actor-id.ts'
import { openApiDocument } from './openapi.ts'
import { matchRoute, methodsAt, type Operation } from './operations.ts'
import { type PolicyOptions, resolvePolicy } from './policy.ts'
import { checkMaxBodyBytes, readBody } from './read-body.ts'
import { readInput, readSecretInput } from './read-input.ts'
import { invalidRequest, refusal } from './refusal.ts'
import { checkHeaderFields } from './request-headers.ts'
import { createRequestLimits, type RequestLimitOptions } from './request-limit.ts'

/** What the HTTP interface asks of the application, and what it allows. `Source` is a request of the framework. */
export interface KeyManagementApiOptions<Source>
  extends PolicyOptions,
    CredentialOptions,
    CrossOriginOptions {
  /**
   * Who is asking: the application's own login decides. Null is nobody, 401; a failure is a 503. It is not asked about requests
   * that present a key. It is waited for without a deadline: give its look-ups one of their own.
   *
   * @example
   * actor: (req) => req.user && { id: req.user.id, owners: [{ type: 'user', id: req.user.id }], grantable: { projects: ['read'] } }
   */
  actor: (source: Source) => Awaitable<Actor | null | undefined>
  /** What actors that are no admins may set. */
  clientFields?: ClientFields
  /**
   * What a key needs to be permitted to ask about other keys by `POST /verify`: actions of `api-keys`. A key holds them only where it
   * names them, and no wildcard does.
   *
   * @default { 'api-keys': ['verify'] }
   */
  verifyPermission?: PermissionRequirement
  /**
   * The longest body, in bytes. A body is read before it is known who sends it, so that nothing is done by a right that has ended
   * meanwhile. Strangers may have as much held in memory, and are told where it is too long or no JSON (415, 413, 400, then 401);
   * what it says is looked at only once its sender is known.
   *
   * @default 65_536
   */
  maxBodyBytes?: number
  /** How often an actor or a key may ask, counted in this process; false counts nothing. */
  requestLimit?: false | RequestLimitOptions
  /**
   * The protection space that challenges name (RFC 9110 §11.5), in ASCII.
   *
   * @default 'Users'
   */
  realm?: string
  /** Reads the client's address, for keys with `allowedIps`. */
  ip?: (source: Source) => string | undefined
  /**
   * The time, for tests.
   *
   * @default the machine's clock
   */
  clock?: Pick<Clock, 'now'>
}

/** A request as a router hands it in. */
export interface ApiRequest<Source> {
  readonly method: string
  /** Path and query, relative to where the interface is mounted: `/`, `/self?…`. */
  readonly url: string
  /**
   * The request of the framework; its raw request has `headers`, and the body if nobody has read it. `headers` is an object as Node
   * has it, by names in lower case, or a `Headers` as the `Request` of the web has it.
   */
  readonly source: Source
  /** What a middleware has made of the body. With the `Request` of the web, its text. */
  readonly parsedBody?: unknown
}

export interface ApiResponse {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  /** JSON. */
  readonly body: string
}

export interface KeyManagementApi<Source> {
  /**
   * Answers a request. What goes wrong is an answer too.
   *
   * @throws TypeError when the `headers` of the request are neither an object by names in lower case nor a `Headers`. What cannot
   * be read might hold a key, and then a login must not pass.
   */
  handle(request: ApiRequest<Source>): Promise<ApiResponse>
}

const DEFAULT_VERIFY_PERMISSION: PermissionRequirement = { 'api-keys': ['verify'] }

/**
 * The HTTP interface to keys, for any framework: `apiKeyRouter` of `latchkey/management/express` and of
 * `latchkey/management/koa` translate.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 */
export function createKeyManagementApi<Source extends object>(
  keys: ApiKeys,
  options: KeyManagementApiOptions<Source>,
): KeyManagementApi<Source> {
  checkMethods('keys', keys, ['verify', 'issue', 'list', 'rotate', 'report'])
  checkObject('options', options, [
    ...AUTHENTICATION_OPTIONS,
    'clientFields',
    ...CROSS_ORIGIN_OPTIONS,
    'maxKeysPerOwner',
    'verifyPermission',
    'maxBodyBytes',
    'requestLimit',
    'clock',
  ])
  const { clientFields, maxKeysPerOwner, clock = systemClock } = options
  checkFunction('clock.now', clock?.now)
  const policy = resolvePolicy(
    {
      ...(clientFields !== undefined && { clientFields }),
      ...(maxKeysPerOwner !== undefined && { maxKeysPerOwner }),
    },
    compileRateLimits('keys.rateLimits', keys.rateLimits),
  )
  const verifyPermission = checkVerifyPermission(options.verifyPermission ?? DEFAULT_VERIFY_PERMISSION)
  const crossOrigin = createCrossOrigin(options)
  const maxBodyBytes = checkMaxBodyBytes(options.maxBodyBytes)
  const now = () => clock.now()
  const limits = createRequestLimits(options.requestLimit, now)
  const readCaller = createCallerReader<Source>(keys, options, verifyPermission)
  const handlers: Handlers = createHandlers({ keys, policy, limits, now })

  async function handle(request: ApiRequest<Source>): Promise<ApiResponse> {
    // What failures tell as well: which pages may read them, and what a caller's key has left.
    const fields: Record<string, string> = { ...crossOrigin.always }
    const stream = rawRequest(checkSource(request.source))
    checkHeaderFields(stream.headers)
    const headers = headerFields(stream)
    try {
      return await answer(request, headers, fields)
    } catch (error) {
      return renderFailure(toError(error), fields)
    }
  }

  async function answer(
    request: ApiRequest<Source>,
    headers: HeaderFields,
    fields: Record<string, string>,
  ): Promise<ApiResponse> {
    Object.assign(fields, crossOrigin.fieldsOf(headers))
    const { pathname, search } = splitUrl(request.url)
    const preflight = crossOrigin.preflightFields(request.method, headers, () => methodsAt(pathname))
    if (preflight) return { status: 204, headers: { ...fields, ...preflight }, body: '' }
    const { operation, params } = matchRoute(request.method, pathname)
    const readShape = operation.id === 'verify' ? readSecretInput : readInput
    const query = readShape(operation.query, readQuery(search))
    if (operation.id === 'openapi') return render(200, openApiDocument(), fields)
    if (operation.isChange && isCrossSite(headers)) throw refusal('cross_site')
    // Before the caller: a body may come as slowly as its sender likes, and who may do this is decided as late as can be.
    const given = operation.body && (await readGivenBody(request, headers))
    const caller = await readCaller(request.source, operation)
    Object.assign(fields, caller.fields)
    countRequest(caller, operation)
    // After the caller: a stranger's body is not walked.
    const body = operation.body && readShape(operation.body, given, operation.fixed)
    const answered = await handlers[operation.id]({ caller, params, query, body, headers })
    return render(answered.status ?? 200, answered.body, { ...fields, ...answered.headers })
  }

  function countRequest(caller: Caller, { id }: Operation): void {
    // Nobody who has found a key keeps its owner from giving it up.
    if (id === 'self_revoke') return
    const name = caller.kind === 'actor' ? caller.actor.id : keyActorId(caller.apiKey)
    if (id === 'verify') limits.verify.spend(name)
    else limits.requests.spend(name)
  }

  /** Whether a page of another site, one that is not allowed, has caused the request. */
  function isCrossSite(headers: HeaderFields): boolean {
    return headers['sec-fetch-site'] === 'cross-site' && !crossOrigin.isAllowed(headers)
  }

  async function readGivenBody(request: ApiRequest<Source>, headers: HeaderFields): Promise<unknown> {
    const stream = rawRequest(request.source)
    return readBody({ headers, stream, parsed: request.parsedBody }, maxBodyBytes)
  }

  /** What is not ours is a fault: a broken part never becomes a wrong answer. */
  function toError(error: unknown): LatchkeyError {
    if (isLatchkeyError(error)) return error
    keys.report({ type: 'fault', operation: 'management', error })
    return new LatchkeyError('unavailable', undefined, { cause: error, stack: false })
  }

  return Object.freeze({ handle })
}

/** Only what names `api-keys` is out of reach of every wildcard. @throws TypeError */
function checkVerifyPermission(value: PermissionRequirement): PermissionRequirement {
  const requirement = resolveRequirement('verifyPermission', value)
  for (const alternative of [requirement].flat()) {
    const [resource, ...others] = Object.keys(alternative)
    const isOwn = resource === OWN_RESOURCE && others.length === 0
    if (!isOwn || alternative[OWN_RESOURCE]?.includes('*')) {
      throw new OptionError('verifyPermission', `name actions of "${OWN_RESOURCE}" and nothing else`)
    }
  }
  return requirement
}

function checkSource<Source>(source: Source): Source {
  if (typeof source !== 'object' || source === null) fail('source', 'the request of the framework', source)
  return source
}

function splitUrl(url: string): { pathname: string; search: string } {
  const mark = url.indexOf('?')
  return mark === -1
    ? { pathname: url, search: '' }
    : { pathname: url.slice(0, mark), search: url.slice(mark + 1) }
}

const MAX_PARAMETERS = 32

/** A parameter that is given twice is a list, which none may be. Strangers send queries too, so that not all of a long one is read. */
function readQuery(search: string): Record<string, unknown> {
  if (search.split('&', MAX_PARAMETERS + 1).length > MAX_PARAMETERS) {
    throw invalidRequest('query', `at most ${MAX_PARAMETERS} parameters`)
  }
  const values = new Map<string, string[]>()
  for (const [name, value] of new URLSearchParams(search)) {
    const given = values.get(name)
    if (given) given.push(value)
    else values.set(name, [value])
  }
  // A parameter may be called `__proto__`: this defines members, and sets nothing.
  return Object.fromEntries([...values].map(([name, given]) => [name, given.length === 1 ? given[0] : given]))
}

function render(status: number, body: unknown, headers: Readonly<Record<string, string>> = {}): ApiResponse {
  return {
    status,
    headers: { ...headers, 'Cache-Control': 'no-store', 'Content-Type': 'application/json; charset=utf-8' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  }
}

function renderFailure(error: LatchkeyError, fields: Readonly<Record<string, string>>): ApiResponse {
  const { headers, body } = renderProblem(error)
  return { status: error.status, headers: { ...fields, ...headers }, body }
}
