import type { ApiKeys } from '../core/api-keys.ts'
import type { Clock } from '../core/clock.ts'
import { OWN_RESOURCE, type PermissionRequirement, resolveRequirement } from '../core/keys/permissions.ts'
import { compileServiceLimits } from '../core/limits/compile-limits.ts'
import { isLatchkeyError, LatchkeyError } from '../errors.ts'
import type { CredentialOptions } from '../http/credential.ts'
import { renderProblem } from '../http/problem.ts'
import { type HeaderFields, headerFields, rawRequest } from '../http/raw-request.ts'
import { checkMaxBodyBytes, readBody } from '../http/read-body.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import { OptionError } from '../internal/option-error.ts'
import { checkFunction, checkMethods, checkObject, fail } from '../internal/options.ts'
import type { Actor } from './actor.ts'
import { AUTHENTICATION_OPTIONS, type Caller, createCallerReader } from './authenticate-caller.ts'
import type { ClientFields } from './client-fields.ts'
import {
  CROSS_ORIGIN_OPTIONS,
  type CrossOrigin,
  type CrossOriginOptions,
  createCrossOrigin,
} from './cross-origin.ts'
import { createHandlers, type Handlers } from './handlers.ts'
import { keyActorId } from './key-actor-id.ts'
import { openApiDocument } from './openapi.ts'
import { matchRoute, methodsAt, type Operation } from './operations.ts'
import { type PolicyOptions, resolvePolicy } from './policy.ts'
import { readInput, readSecretInput } from './read-input.ts'
import { invalidRequest, refusal } from './refusal.ts'
import { checkHeaderFields } from './request-headers.ts'
import { createRequestLimits, type RequestLimitOptions, type RequestLimits } from './request-limit.ts'

/** Options of the HTTP interface. `Source` is the request type of the framework. */
export interface KeyManagementApiOptions<Source>
  extends PolicyOptions,
    CredentialOptions,
    CrossOriginOptions {
  /**
   * Returns who makes the request, according to the application's own login. Null means that nobody is logged in: the response is
   * 401. If it throws or rejects, the response is 503. Latchkey does not call it for requests that present a key. It also sets no
   * deadline: give your look-ups their own.
   *
   * @example
   * actor: (req) => req.user && { id: req.user.id, owners: [{ type: 'user', id: req.user.id }], grantable: { projects: ['read'] } }
   */
  actor: (source: Source) => Awaitable<Actor | null | undefined>
  /** What actors who are not admins may set. */
  clientFields?: ClientFields
  /**
   * The permissions that a key needs to verify other keys with `POST /verify`: actions of `api-keys`. No wildcard covers them: the key
   * must name them.
   *
   * @default { 'api-keys': ['verify'] }
   */
  verifyPermission?: PermissionRequirement
  /**
   * The largest body, in bytes. Latchkey reads the body before it authenticates the caller, so that a slow upload cannot outlive the
   * right to make it. Unauthenticated clients can therefore occupy this much memory per request, and learn whether a body is too
   * long or not JSON (415, 413, 400, then 401). Latchkey checks the content only after authentication.
   *
   * @default 65_536
   */
  maxBodyBytes?: number
  /** How many requests an actor or a key may make, counted in this process; false counts nothing. */
  requestLimit?: false | RequestLimitOptions
  /**
   * The realm in challenges (RFC 9110 §11.5), in ASCII.
   *
   * @default 'Users'
   */
  realm?: string
  /** Reads the client's address, for keys with `allowedIps`. */
  ip?: (source: Source) => string | undefined
  /**
   * The time, for tests.
   *
   * @default the clock of `keys`
   */
  clock?: Pick<Clock, 'now'>
}

/** A request, as a router passes it in. */
export interface ApiRequest<Source> {
  readonly method: string
  /** Path and query, relative to the mount path: `/`, `/self?…`. */
  readonly url: string
  /**
   * The request of the framework. Its raw request has `headers`, and the body unless something has read it. `headers` is an object
   * with lower-case names, as in Node, or a `Headers` object, as in a web `Request`.
   */
  readonly source: Source
  /** The body as a middleware has parsed it. For a web `Request` whose body something has read, its text. */
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
   * Answers a request. Errors become responses too.
   *
   * @throws TypeError when the `headers` of the request are neither an object with lower-case names nor a `Headers` object. Headers
   * that Latchkey cannot read might hold a key, and then the login must not decide.
   */
  handle(request: ApiRequest<Source>): Promise<ApiResponse>
}

const DEFAULT_VERIFY_PERMISSION: PermissionRequirement = { 'api-keys': ['verify'] }

/** The names of {@link KeyManagementApiOptions}. */
export const API_OPTIONS: readonly string[] = Object.freeze([
  ...AUTHENTICATION_OPTIONS,
  'clientFields',
  ...CROSS_ORIGIN_OPTIONS,
  'maxKeysPerOwner',
  'verifyPermission',
  'maxBodyBytes',
  'requestLimit',
  'clock',
])

/**
 * Creates the HTTP interface for managing keys, for any framework. For Express and Koa, use `apiKeyRouter` from
 * `latchkey/management/express` or `latchkey/management/koa`.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 */
export function createKeyManagementApi<Source extends object>(
  keys: ApiKeys,
  options: KeyManagementApiOptions<Source>,
): KeyManagementApi<Source> {
  checkMethods('keys', keys, ['verify', 'issue', 'list', 'rotate', 'report'])
  checkObject('options', options, API_OPTIONS)
  const { clientFields, maxKeysPerOwner, clock = keys.clock } = options
  checkFunction('clock.now', clock?.now)
  const policy = resolvePolicy(
    {
      ...(clientFields !== undefined && { clientFields }),
      ...(maxKeysPerOwner !== undefined && { maxKeysPerOwner }),
    },
    keys.rateLimitsVary
      ? null
      : compileServiceLimits('keys.rateLimits', keys.rateLimits).filter(({ isOwners }) => !isOwners),
  )
  const verifyPermission = checkVerifyPermission(options.verifyPermission ?? DEFAULT_VERIFY_PERMISSION)
  const crossOrigin = createCrossOrigin(options)
  const maxBodyBytes = checkMaxBodyBytes(options.maxBodyBytes)
  const now = () => clock.now()
  const limits = createRequestLimits(options.requestLimit, now)
  const readCaller = createCallerReader<Source>(keys, options, verifyPermission)
  const handlers = createHandlers({ keys, policy, limits, now })
  const parts: ApiParts<Source> = { keys, crossOrigin, maxBodyBytes, limits, readCaller, handlers }
  return Object.freeze({ handle: (request: ApiRequest<Source>) => handle(parts, request) })
}

interface ApiParts<Source extends object> {
  readonly keys: ApiKeys
  readonly crossOrigin: CrossOrigin
  readonly maxBodyBytes: number
  readonly limits: RequestLimits
  readonly readCaller: (source: Source, operation: Operation) => Promise<Caller>
  readonly handlers: Handlers
}

async function handle<Source extends object>(
  parts: ApiParts<Source>,
  request: ApiRequest<Source>,
): Promise<ApiResponse> {
  // Error responses have these fields too: which pages may read them, and what the caller's key has left.
  const fields: Record<string, string> = { ...parts.crossOrigin.always }
  const stream = rawRequest(checkSource(request.source))
  checkHeaderFields(stream.headers)
  const headers = headerFields(stream)
  try {
    return await answer(parts, request, headers, fields)
  } catch (error) {
    return renderFailure(toError(parts.keys, error), fields)
  }
}

async function answer<Source extends object>(
  { crossOrigin, maxBodyBytes, limits, readCaller, handlers }: ApiParts<Source>,
  request: ApiRequest<Source>,
  headers: HeaderFields,
  fields: Record<string, string>,
): Promise<ApiResponse> {
  Object.assign(fields, crossOrigin.fieldsOf(headers))
  const { pathname, search } = splitUrl(request.url)
  const preflight = crossOrigin.preflightFields(request.method, headers, () => methodsAt(pathname))
  if (preflight) return { status: 204, headers: { ...fields, ...preflight }, body: '' }
  const { operation, params } = matchRoute(request.method, pathname)
  const readShape = operation.isSecret ? readSecretInput : readInput
  const query = readShape(operation.query, readQuery(search))
  if (operation.id === 'openapi') return render(200, openApiDocument(), fields)
  if (operation.isChange && isCrossSite(crossOrigin, headers)) throw refusal('cross_site')
  // Read the body before authenticating the caller: a client may send it slowly, and the decision should be as late as possible.
  const given = operation.body && (await readGivenBody(request, headers, maxBodyBytes))
  const caller = await readCaller(request.source, operation)
  Object.assign(fields, caller.fields)
  countRequest(limits, caller, operation)
  // Check the body after authenticating the caller: nothing walks through the body of a stranger.
  const body = operation.body && readShape(operation.body, given, operation.fixed)
  const answered = await handlers[operation.id]({ caller, params, query, body, headers })
  return render(answered.status ?? 200, answered.body, { ...fields, ...answered.headers })
}

/** Whether the request comes from a page on another site that is not allowed. */
function isCrossSite(crossOrigin: CrossOrigin, headers: HeaderFields): boolean {
  return headers['sec-fetch-site'] === 'cross-site' && !crossOrigin.isAllowed(headers)
}

async function readGivenBody<Source extends object>(
  { source, parsedBody }: ApiRequest<Source>,
  headers: HeaderFields,
  maxBodyBytes: number,
): Promise<unknown> {
  return readBody({ headers, stream: rawRequest(source), parsed: parsedBody }, maxBodyBytes)
}

function countRequest(limits: RequestLimits, caller: Caller, { id }: Operation): void {
  // Someone who found a key must not be able to keep its owner from revoking it.
  if (id === 'self_revoke') return
  const name = caller.kind === 'actor' ? caller.actor.id : keyActorId(caller.apiKey)
  if (id === 'verify') limits.verify.spend(name)
  else limits.requests.spend(name)
}

/** An error that is not ours is a fault: a broken part never becomes a wrong answer. */
function toError(keys: ApiKeys, error: unknown): LatchkeyError {
  if (isLatchkeyError(error)) return error
  keys.report({ type: 'fault', operation: 'management', error })
  return new LatchkeyError('unavailable', undefined, { cause: error, stack: false })
}

/** Wildcards cover everything except `api-keys`. @throws TypeError */
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

/** A parameter given twice becomes a list, which no schema accepts. Anyone can send a query, so the number of parameters is bounded. */
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
