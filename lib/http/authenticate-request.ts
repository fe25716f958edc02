import { missingPermissions } from '../core/keys/permissions.ts'
import type { ApiKey } from '../core/keys/record.ts'
import type { LimitState } from '../core/limits/rate-limit.ts'
import {
  type ApiKeyVerifier,
  checkVerifyOptions,
  isAcceptedPrefix,
  type VerifyOptions,
} from '../core/verify/key-verifier.ts'
import type { RefusedKey, VerifyResult } from '../core/verify/verify-result.ts'
import { type ErrorCode, isLatchkeyError, LatchkeyError, type LatchkeyErrorOptions } from '../errors.ts'
import { type Awaitable, isPromiseLike } from '../internal/awaitable.ts'
import { OptionError } from '../internal/option-error.ts'
import { checkFunction, checkText } from '../internal/options.ts'
import { showMark, writeMark } from './auth-mark.ts'
import {
  CREDENTIAL_OPTIONS,
  type CredentialOptions,
  createCredentialReader,
  registerReader,
} from './credential.ts'
import {
  type Challenges,
  checkRateLimitHeaders,
  createChallenges,
  isQuotable,
  type RateLimitSyntax,
  rateLimitFields,
  retryAfterField,
} from './header-fields.ts'
import { type RequestLike, rawRequest, setUser } from './raw-request.ts'
import { type Admission, type MisplacedKey, stateOf } from './request-state.ts'

/**
 * The options that `apiKeyAuth` of Express and Koa and `ApiKeyStrategy` share, under the same names. Write those that
 * every route shares once, and spread them.
 *
 * @example
 * const shared: AuthenticatorOptions = { realm: 'Acme', resolveUser: (apiKey) => users.find(apiKey.owner.id) }
 * app.use('/api', apiKeyAuth(keys, shared))
 * app.get('/v2', apiKeyAuth(keys, { ...shared, required: false }), show)
 */
export interface AuthenticatorOptions<User = unknown> extends CredentialOptions {
  /**
   * Finds the user that a key belongs to; it becomes `req.user`. Null or undefined is a 401, as for an invalid key; a
   * failure is a 503. Latchkey sets no timeout on it: set one on its queries.
   *
   * @default `req.user` is the key's owner, a frozen `{ type, id }`
   */
  resolveUser?: (apiKey: ApiKey) => Awaitable<User | null | undefined>
  /**
   * The protection space that challenges name (RFC 9110 §11.5), in ASCII.
   *
   * @default 'Users'
   */
  realm?: string
  /** Accepts only keys with this prefix, or one of these. */
  prefix?: string | readonly string[]
  /**
   * Which revision of draft-ietf-httpapi-ratelimit-headers the `RateLimit` fields follow. Draft 11 shows every limit;
   * `'draft-10'` is another name for it, because the syntax is the same. Drafts 7 and 6, for older clients, show one
   * limit: the one with the fewest calls left, and never a quota without a refill. `false` sends none of these fields;
   * `Retry-After` stays.
   *
   * ```http
   * RateLimit: "minute";r=9;t=42, "day";r=412;t=38262
   * RateLimit-Policy: "minute";q=10;w=60, "day";q=1000;w=86400
   * ```
   * As `'draft-7'`:
   * ```http
   * RateLimit: limit=10, remaining=9, reset=42
   * RateLimit-Policy: 10;w=60, 1000;w=86400
   * ```
   * As `'draft-6'`:
   * ```http
   * RateLimit-Limit: 10
   * RateLimit-Remaining: 9
   * RateLimit-Reset: 42
   * RateLimit-Policy: 10;w=60, 1000;w=86400
   * ```
   *
   * @default 'draft-11'
   */
  rateLimitHeaders?: RateLimitSyntax | false
}

/** The outcome of a request: who made it, or the refusal that answers it. */
export type Authentication =
  | {
      readonly ok: true
      readonly apiKey: ApiKey
      readonly user: unknown
      /** The state of the limits; empty if an earlier middleware verified the key. */
      readonly limits: readonly LimitState[]
    }
  | {
      readonly ok: false
      readonly presented: boolean
      readonly error: LatchkeyError
      readonly challenge: string
    }

/** What a route requires of a key. */
export interface CheckOptions extends Pick<VerifyOptions, 'permissions' | 'cost' | 'ip'> {
  /** Whether a request without a key passes. */
  isOptional?: boolean
}

export interface Authenticator {
  readonly keys: ApiKeyVerifier
  /** How to show the limits of an admitted request. */
  readonly rateLimitHeaders: RateLimitSyntax | false
  /** Never throws or rejects, and returns synchronously if there is nothing to wait for. */
  authenticate(request: object, asked: CheckOptions): Awaitable<Authentication>
  readonly refuse: Refusals
}

/** The names of {@link AuthenticatorOptions}. */
export const AUTHENTICATOR_OPTIONS = Object.freeze([
  ...CREDENTIAL_OPTIONS,
  'resolveUser',
  'realm',
  'prefix',
  'rateLimitHeaders',
])

/**
 * Does the same for every framework: reads the credential, verifies it once, finds the user.
 *
 * @throws TypeError naming the option.
 */
export function createAuthenticator(keys: ApiKeyVerifier, options: AuthenticatorOptions): Authenticator {
  if (typeof keys?.verify !== 'function') {
    const isWrapped = typeof (keys as { keys?: ApiKeyVerifier } | undefined)?.keys?.verify === 'function'
    throw isWrapped
      ? new TypeError('"keys" comes first and by itself: pass (keys, options), not ({ keys })')
      : new OptionError('keys', 'be what createApiKeys() returned')
  }
  const { resolveUser, realm = 'Users', prefix, rateLimitHeaders = 'draft-11' } = options
  if (resolveUser !== undefined) checkFunction('resolveUser', resolveUser)
  if (typeof realm === 'string' && !isQuotable(realm)) throw new OptionError('realm', 'be printable ASCII')
  checkText('realm', realm, 255)
  checkVerifyOptions({ prefix })
  checkRateLimitHeaders(rateLimitHeaders)
  const reader = createCredentialReader(options, keys)
  registerReader(reader)
  const challenges = createChallenges(reader.schemes, realm)
  const refuse = createRefusals(challenges, keys, rateLimitHeaders)

  function authenticate(request: object, asked: CheckOptions): Awaitable<Authentication> {
    const raw = rawRequest(request)
    stateOf(raw).challenges = challenges
    const credential = reader.read(raw)
    const options = verifyOptions(asked, prefix)
    if (credential.kind === 'none') return withoutKey(raw, options.ip, asked.isOptional)
    if (credential.kind === 'several') return refuse.several(options.ip)
    try {
      const verified = verifyOnce(raw, keys, credential.key, options)
      if (!isPromiseLike(verified)) return conclude(verified, options.ip)
      return verified
        .then((checked) => conclude(checked, options.ip))
        .then(undefined, (error) => refuse.fault('verify', error))
    } catch (error) {
      return refuse.fault('verify', error)
    }
  }

  function withoutKey(
    raw: RequestLike & object,
    ip: string | undefined,
    isOptional: boolean | undefined,
  ): Authentication {
    const hint = reader.hintFor(raw)
    if (hint === null) return refuse.missing()
    const misplaced = createMisplacedKey(keys, hint, ip)
    stateOf(raw).misplaced = misplaced
    if (!isOptional) misplaced.report()
    return refuse.missing(hint)
  }

  function conclude(verified: Checked, ip: string | undefined): Awaitable<Authentication> {
    if (!verified.ok) return refuse.key(verified)
    const { admission } = verified
    if (!resolveUser) return admit(verified, admission.apiKey.owner)
    if (admission.resolvedBy === resolveUser) return admit(verified, admission.user)
    return findUser(verified, ip, resolveUser)
  }

  async function findUser(
    verified: Extract<Checked, { ok: true }>,
    ip: string | undefined,
    find: NonNullable<typeof resolveUser>,
  ): Promise<Authentication> {
    const { admission } = verified
    try {
      const user: unknown = await find(admission.apiKey)
      if (user === null || user === undefined || user === false) return refuse.user(admission.apiKey, ip)
      admission.resolvedBy = find
      admission.user = user
      return admit(verified, user)
    } catch (error) {
      return refuse.fault('resolve_user', error)
    }
  }

  return { keys, rateLimitHeaders, authenticate, refuse }
}

function createMisplacedKey(keys: ApiKeyVerifier, hint: string, ip: string | undefined): MisplacedKey {
  let isReported = false
  return {
    hint,
    report() {
      if (isReported) return
      isReported = true
      keys.report?.({ type: 'refused', code: 'missing_key', reason: 'bearer_not_read', apiKey: null, ip })
    },
  }
}

/** Sets the outcome of an authentication on the request: the mark, `apiKey`, and the user. */
export function applyOutcome(request: object, keys: ApiKeyVerifier, outcome: Authentication): void {
  if (outcome.ok) {
    const { user, apiKey } = outcome
    writeMark(request, { method: 'apikey', user, apiKey, keys })
    setUser(request, user)
  } else if (outcome.presented) {
    // A bad key never falls back to whoever was there before it.
    writeMark(request, { method: 'rejected', code: outcome.error.code, keys })
    setUser(request, undefined)
  } else showMark(request)
}

/** Each kind of refusal, as the outcome of an authentication. */
export interface Refusals {
  /** @param hint where keys are read, if one seems to be in another place */
  missing(hint?: string): Authentication
  several(ip: string | undefined): Authentication
  key(refused: RefusedKey): Authentication
  /** The key is valid, but has no user. */
  user(apiKey: ApiKey, ip: string | undefined): Authentication
  /** `cause` is what `verify` or the application's code threw. */
  fault(operation: 'verify' | 'resolve_user' | 'actor', cause: unknown): Authentication
}

function createRefusals(
  { bare, invalid }: Challenges,
  keys: ApiKeyVerifier,
  rateLimitHeaders: RateLimitSyntax | false,
): Refusals {
  function refusal(
    code: ErrorCode,
    text: string,
    options: Pick<LatchkeyErrorOptions, 'headers' | 'details' | 'cause'> = {},
    presented = true,
  ): Authentication {
    const error = new LatchkeyError(code, undefined, { ...options, stack: false })
    return { ok: false, presented, error, challenge: text }
  }

  function invalidKey(): Authentication {
    return refusal('invalid_key', invalid, { headers: { 'WWW-Authenticate': invalid } })
  }

  return {
    missing(hint) {
      const details = hint === undefined ? {} : { detail: hint }
      return refusal('missing_key', bare, { headers: { 'WWW-Authenticate': bare }, details }, false)
    },
    several(ip) {
      keys.report?.({ type: 'refused', code: 'multiple_credentials', reason: null, apiKey: null, ip })
      return refusal('multiple_credentials', invalid)
    },
    user(apiKey, ip) {
      keys.report?.({ type: 'refused', code: 'invalid_key', reason: 'no_user', apiKey, ip })
      return invalidKey()
    },
    key(refused) {
      switch (refused.code) {
        case 'invalid_key':
          return invalidKey()
        case 'address_not_allowed':
          return refusal(refused.code, invalid)
        case 'insufficient_permissions':
          return refusal(refused.code, invalid, { details: { missing: refused.missing } })
        case 'too_many_failures':
          return refusal(refused.code, invalid, { headers: retryAfterField(refused.retryAfterMs) })
        default: {
          const exceeded = refused.limits.filter((limit) => limit.exceeded).map(({ name }) => name)
          const headers = {
            ...retryAfterField(refused.retryAfterMs),
            ...rateLimitFields(refused.limits, rateLimitHeaders),
          }
          return refusal(refused.code, invalid, { headers, details: { exceeded } })
        }
      }
    },
    fault(operation, cause) {
      // What has failed in `verify` was reported there.
      if (operation === 'verify' && isLatchkeyError(cause) && cause.code === 'unavailable') {
        return { ok: false, presented: true, error: cause, challenge: invalid }
      }
      keys.report?.({ type: 'fault', operation, error: cause })
      return refusal('unavailable', invalid, { cause })
    },
  }
}

type Checked =
  | { readonly ok: true; readonly admission: Admission; readonly limits: readonly LimitState[] }
  | RefusedKey

const NO_LIMITS: readonly LimitState[] = Object.freeze([])

/**
 * Verifies a key for a request. It charges the request once, at the first admission with a cost. A later check by
 * another middleware compares prefix and permissions and costs nothing.
 */
function verifyOnce(
  raw: object,
  keys: ApiKeyVerifier,
  key: string,
  options: VerifyOptions,
): Awaitable<Checked> {
  const state = stateOf(raw)
  const isSame = (other: { keys: ApiKeyVerifier; key: string }) => other.keys === keys && other.key === key
  const earlier = state.admissions?.find(isSame)
  if (earlier && (earlier.isCharged || options.cost === 0)) return recheck(keys, earlier, options)
  const pending = state.pending?.find(isSame)
  // Another middleware asks at this moment: its admission will be this one's too.
  if (pending) return pending.work.then(() => verifyOnce(raw, keys, key, options))
  const result = keys.verifyEager ? keys.verifyEager(key, options) : keys.verify(key, options)
  if (!isPromiseLike(result)) return remember(result)
  const work = result.then(remember)
  const entry = { keys, key, work: work.then(forget, forget) }
  state.pending = [...(state.pending ?? []), entry]
  return work

  function remember(verified: VerifyResult): Checked {
    if (!verified.ok) return verified
    const { apiKey, limits } = verified
    const admission = { keys, key, apiKey, verified, isCharged: options.cost !== 0 }
    state.admissions = [...(state.admissions?.filter((other) => !isSame(other)) ?? []), admission]
    return { ok: true, admission, limits }
  }

  function forget(): void {
    state.pending = state.pending?.filter((other) => other !== entry)
  }
}

function recheck(
  keys: ApiKeyVerifier,
  admission: Admission,
  { permissions, prefix, ip }: VerifyOptions,
): Checked {
  const { apiKey } = admission
  if (!isAcceptedPrefix(apiKey.prefix, prefix)) {
    const reason = 'prefix_not_accepted'
    keys.report?.({ type: 'refused', code: 'invalid_key', reason, apiKey, ip })
    return { ok: false, code: 'invalid_key', reason }
  }
  const missing = permissions ? missingPermissions(apiKey.permissions, permissions) : null
  if (!missing) return { ok: true, admission, limits: NO_LIMITS }
  keys.report?.({ type: 'refused', code: 'insufficient_permissions', reason: null, apiKey, ip })
  return { ok: false, code: 'insufficient_permissions', apiKey, missing }
}

function admit({ admission, limits }: Extract<Checked, { ok: true }>, user: unknown): Authentication {
  return { ok: true, apiKey: admission.apiKey, user, limits }
}

/** A proxy that is trusted too far lets clients write anything here. A text too long for an address counts as missing. */
const MAX_IP_LENGTH = 255

function verifyOptions(
  { permissions, cost, ip }: CheckOptions,
  prefix: VerifyOptions['prefix'],
): VerifyOptions {
  const options: VerifyOptions = {}
  if (permissions) options.permissions = permissions
  if (cost !== undefined) options.cost = cost
  // The application's own reader of addresses may answer anything.
  if (typeof ip === 'string' && ip !== '' && ip.length <= MAX_IP_LENGTH) options.ip = ip
  if (prefix !== undefined) options.prefix = prefix
  return options
}
