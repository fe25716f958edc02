import {
  missingPermissions,
  type PermissionRequirement,
  resolveRequirement,
} from '../core/keys/permissions.ts'
import type { ApiKey } from '../core/keys/record.ts'
import { toldBy } from '../core/keys/requirement-of-request.ts'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import { type ErrorCode, LatchkeyError, type LatchkeyErrorOptions } from '../errors.ts'
import { OptionError } from '../internal/option-error.ts'
import { checkArray, checkBoolean, checkObject, checkOneOf, describePlain } from '../internal/options.ts'
import { warnOnce } from '../internal/process-warning.ts'
import { type AuthMethod, getAuth, readMark } from './auth-mark.ts'
import {
  CREDENTIAL_OPTIONS,
  type CredentialOptions,
  createCredentialReader,
  presentsAnyKey,
} from './credential.ts'
import { challenge, createChallenges } from './header-fields.ts'
import { rawRequest } from './raw-request.ts'
import { permissionsFor, type RequestPermissions } from './request-permissions.ts'
import { stateOf } from './request-state.ts'

/** Checks what earlier middlewares established: null lets the request in, an error refuses it. */
export type Guard = (request: object) => LatchkeyError | null

/** How a guard refuses. */
export interface RefusalOptions {
  /**
   * `'problem'` answers a refusal with a problem body (RFC 9457); `'error'` hands it to the application's error
   * handlers.
   *
   * @default 'problem'
   */
  refuseWith?: 'problem' | 'error'
}

/**
 * Where a guard looks for a presented key. Without `headers`, `scheme` and `bearer` it looks in the usual places and
 * wherever a middleware of this process reads keys; with any of them, only in the places they name.
 */
export interface SessionGuardOptions extends CredentialOptions, RefusalOptions {
  /** The keys whose prefix and `formats` the option `bearer` uses. */
  keys?: ApiKeyVerifier
  /**
   * Lets in a session even if the request presents a key that no middleware has read, for gateways that add one to
   * every request. A request whose key was verified or refused never gets in.
   *
   * @default false
   */
  ignorePresentedKey?: boolean
}

/** Which keys a guard passes. */
export interface ApiKeyGuardOptions<Request = never> extends RefusalOptions {
  /** The permissions that the key needs, or a function of the request that returns them at once. */
  permissions?: RequestPermissions<Request>
  /** Accepts only a key that these keys have verified. */
  keys?: ApiKeyVerifier
}

/** Which ways of authenticating a guard passes. */
export interface AuthGuardOptions extends SessionGuardOptions {
  /**
   * The ways of authenticating that pass.
   *
   * @default ['session']
   */
  accept?: readonly AuthMethod[]
}

/** What a permission guard lets in besides keys that have the permissions. */
export interface PermissionGuardOptions extends RefusalOptions {
  /**
   * Ways of authenticating that get in without permissions; only keys have permissions.
   *
   * @default []
   */
  accept?: readonly Exclude<AuthMethod, 'apikey'>[]
  /** Accepts only a key that these keys have verified. */
  keys?: ApiKeyVerifier
}

/** Lets in a marked session that presents no key, not even an invalid one. */
export function sessionGuard(options: SessionGuardOptions = {}): Guard {
  checkObject('options', options, [...CREDENTIAL_OPTIONS, 'keys', 'ignorePresentedKey', 'refuseWith'])
  return createAuthGuard({ ...options, accept: ['session'] }, 'requireSession')
}

/** Lets in a verified key that has the required permissions, if any. */
export function apiKeyGuard<Request extends object>(options: ApiKeyGuardOptions<Request> = {}): Guard {
  checkObject('options', options, ['permissions', 'keys', 'refuseWith'])
  checkRefuseWith(options.refuseWith)
  const { keys } = options
  return keyGuard(permissionsFor(options.permissions), keys, createWarnings('requireApiKey'))
}

/** Lets in the named ways of authenticating; by default, sessions. */
export function authGuard(options: AuthGuardOptions = {}): Guard {
  return createAuthGuard(options, 'requireAuth')
}

/** @param alsoTakesKeys whether whoever is without a login may send a key instead, which another guard checks */
function createAuthGuard(options: AuthGuardOptions, name: string, alsoTakesKeys = false): Guard {
  checkObject('options', options, [
    ...CREDENTIAL_OPTIONS,
    'keys',
    'ignorePresentedKey',
    'accept',
    'refuseWith',
  ])
  checkRefuseWith(options.refuseWith)
  const { accept = ['session'], keys, ignorePresentedKey = false } = options
  const accepted = checkMethods('accept', accept, ['apikey', 'session', 'other'])
  checkBoolean('ignorePresentedKey', ignorePresentedKey)
  const takesKeys = alsoTakesKeys || accepted.has('apikey')
  const reader = createCredentialReader(options, keys)
  const isTold = CREDENTIAL_OPTIONS.some((name) => options[name] !== undefined)
  const keyPlace = (request: object) => (ignorePresentedKey ? null : placeOfKey(request, reader, isTold))
  const warn = createWarnings(name)

  return (request) => {
    const auth = getAuth(request)
    if (auth.method === 'apikey') {
      if (accepted.has('apikey') && isVerifiedBy(request, keys)) return null
      return refusal(refusalOf(accepted))
    }
    // The key that is presented is the one that the application itself has verified.
    if (auth.method === 'other' && readMark(request)?.method === 'other' && accepted.has('other')) return null
    // Where a key is presented, it decides: only its verification lets the request pass.
    if (auth.method === 'rejected')
      return refusal(accepted.has('apikey') ? auth.code : refusalOf(accepted), {}, request)
    if (auth.method === 'conflict') warn.replaced()
    const place = keyPlace(request)
    // The client learns where to send its key.
    if (takesKeys && (place !== null || auth.method === 'none') && isMisplaced(request))
      return missingKey(request)
    if (place !== null) {
      if (accepted.has('apikey')) warn.unverified(request)
      else if (place === 'elsewhere' && auth.method === 'session' && accepted.has('session')) warn.elsewhere()
      return refusal(refusalOf(accepted))
    }
    if (auth.method === 'none') {
      if (!accepted.has('session')) return missingKey(request)
      return takesKeys ? missingLoginOrKey(request) : refusal('authentication_required')
    }
    if (auth.method !== 'conflict' && accepted.has(auth.method)) return null
    if (auth.method === 'other' && !readMark(request)) warn.unmarked()
    return refusal(refusalOf(accepted))
  }
}

/** Passes a verified key that has the permissions. */
export function permissionGuard<Request extends object>(
  required: RequestPermissions<Request>,
  options: PermissionGuardOptions = {},
): Guard {
  // Without any, it would let every key in.
  if (required === undefined) resolveRequirement('permissions', required)
  const permissions = permissionsFor(required)
  checkObject('options', options, ['accept', 'keys', 'refuseWith'])
  checkRefuseWith(options.refuseWith)
  const accepted = checkMethods('accept', options.accept ?? [], ['session', 'other'])
  const warn = createWarnings('requirePermissions')
  const requireKey = keyGuard(permissions, options.keys, warn)
  if (accepted.size === 0) return requireKey
  const requireOther = createAuthGuard({ accept: [...accepted] }, 'requirePermissions', true)
  return (request) => {
    const { method } = getAuth(request)
    if (method === 'apikey' || method === 'rejected') return requireKey(request)
    warn.unverified(request)
    return requireOther(request)
  }
}

/** Requires a way to refuse, or none. @throws TypeError */
export function checkRefuseWith(value: unknown): void {
  if (value !== undefined) checkOneOf('refuseWith', value, ['problem', 'error'])
}

function keyGuard<Request extends object>(
  permissionsOf: (request: Request) => PermissionRequirement | undefined,
  keys: ApiKeyVerifier | undefined,
  warn: Warnings,
): Guard {
  return (request) => {
    const auth = getAuth(request)
    if (auth.method === 'rejected') return refusal(auth.code, {}, request)
    if (auth.method === 'apikey' && isVerifiedBy(request, keys)) {
      const permissions = permissionsOf(request as Request)
      return permissions === undefined ? null : lacks(request, auth.apiKey, permissions)
    }
    if (auth.method === 'conflict') warn.replaced()
    else if (auth.method !== 'apikey') warn.unverified(request)
    return auth.method === 'none' ? missingKey(request) : refusal('api_key_required')
  }
}

function missingKey(request: object): LatchkeyError {
  const { misplaced } = stateOf(rawRequest(request))
  misplaced?.report()
  return refusal('missing_key', misplaced && { details: { detail: misplaced.hint } }, request)
}

/** The request has neither a login nor a key, and either would do. */
function missingLoginOrKey(request: object): LatchkeyError {
  const { bare } = stateOf(rawRequest(request)).challenges ?? USUAL_CHALLENGES
  return refusal('authentication_required', {
    headers: { 'WWW-Authenticate': `${LOGIN_CHALLENGE}, ${bare}` },
  })
}

/** Whether a key was sent where the middleware that looked for one does not read keys. */
function isMisplaced(request: object): boolean {
  return stateOf(rawRequest(request)).misplaced !== undefined
}

const USUAL_PLACES = createCredentialReader({}, undefined)

/**
 * Where a request presents a key: in a place that `reader` or any middleware reads by default, or only where options of
 * others say.
 */
function placeOfKey(request: object, reader = USUAL_PLACES, isAll = false): 'here' | 'elsewhere' | null {
  const raw = rawRequest(request)
  if (reader.read(raw).kind !== 'none') return 'here'
  const read = isAll ? null : presentsAnyKey(raw)
  if (read === null) return null
  return read === 'by default' ? 'here' : 'elsewhere'
}

function isVerifiedBy(request: object, keys: ApiKeyVerifier | undefined): boolean {
  const mark = readMark(request)
  return keys === undefined || (mark?.method === 'apikey' && mark.keys === keys)
}

function lacks(request: object, apiKey: ApiKey, required: PermissionRequirement): LatchkeyError | null {
  const told = toldBy(required)
  if ('error' in told) {
    const mark = readMark(request)
    if (mark?.method === 'apikey') {
      mark.keys.report?.({ type: 'fault', operation: 'permissions', error: told.error })
    }
    return refusal('unavailable', { cause: told.error })
  }
  const missing = missingPermissions(apiKey.permissions, told.requirement)
  if (!missing) reportExercised(request, apiKey, told.requirement)
  return missing && refusal('insufficient_permissions', { details: { missing } })
}

/** So that `unusedPermissions` knows what guards require. */
function reportExercised(request: object, apiKey: ApiKey, permissions: PermissionRequirement): void {
  const mark = readMark(request)
  if (mark?.method === 'apikey') mark.keys.report?.({ type: 'exercised', apiKey, permissions })
}

/** The code for a request that is authenticated in a way that is not accepted. */
function refusalOf(accepted: ReadonlySet<AuthMethod>): ErrorCode {
  if (accepted.size > 1) return 'auth_method_not_accepted'
  if (accepted.has('session')) return 'session_required'
  return accepted.has('apikey') ? 'api_key_required' : 'auth_method_not_accepted'
}

/** The challenges if no middleware has looked for a key; a 401 must carry one (RFC 9110 §15.5.2). */
const USUAL_CHALLENGES = createChallenges(['Api-Key'], 'Users')
const LOGIN_CHALLENGE = challenge(['Session'], 'Users')

/** @param request the refusal for a missing or invalid key carries its challenge */
function refusal(
  code: ErrorCode,
  options: LatchkeyErrorOptions = {},
  request: object | null = null,
): LatchkeyError {
  const { bare, invalid } = (request && stateOf(rawRequest(request)).challenges) ?? USUAL_CHALLENGES
  const text = { missing_key: bare, invalid_key: invalid, authentication_required: LOGIN_CHALLENGE }[
    code as string
  ]
  const headers: Record<string, string> = text === undefined ? {} : { 'WWW-Authenticate': text }
  return new LatchkeyError(code, undefined, { headers, ...options, stack: false })
}

function checkMethods(name: string, value: unknown, known: readonly AuthMethod[]): ReadonlySet<AuthMethod> {
  const methods = checkArray(name, value, known.length)
  for (const method of methods) {
    if (known.includes(method as AuthMethod)) continue
    const names = known.map((entry) => `"${entry}"`).join(', ')
    throw new OptionError(
      name,
      `hold some of ${names}`,
      `"${name}" must hold some of ${names}, received ${describePlain(method)}`,
    )
  }
  if (methods.length === 0 && known.includes('apikey')) throw new OptionError(name, 'not be empty')
  return new Set(methods as readonly AuthMethod[])
}

/** Warnings to the programmer, each given once. */
interface Warnings {
  /** A user is present, but nothing has marked the request. */
  unmarked(): void
  /** The request presents a key that no middleware has read. */
  unverified(request: object): void
  /** A session was refused because of a key in a place that only another middleware of this process reads. */
  elsewhere(): void
  /** Other code replaced the user after a session or a key had established it. */
  replaced(): void
}

function createWarnings(guardName: string): Warnings {
  return {
    unmarked() {
      warnOnce(
        'LATCHKEY_UNMARKED',
        `${guardName}() refused a user that neither markSession() nor an API key established; ` +
          'mount markSession() after the session middleware, without Passport with its option "user", or accept "other"',
      )
    },
    unverified(request) {
      if (stateOf(rawRequest(request)).challenges || placeOfKey(request) === null) return
      warnOnce(
        'LATCHKEY_UNVERIFIED',
        `${guardName}() refused an API key that no middleware had verified; ` +
          "mount apiKeyAuth(keys), or passport.authenticate('apikey'), before it",
      )
    },
    elsewhere() {
      warnOnce(
        'LATCHKEY_READ_ELSEWHERE',
        `${guardName}() refused a session because the request presents a key where another middleware of this process ` +
          'reads keys; set "headers", "scheme" or "bearer" of requireSession() or requireAuth() to look only there',
      )
    },
    replaced() {
      warnOnce(
        'LATCHKEY_USER_REPLACED',
        `${guardName}() refused a request whose user was replaced or removed after markSession() or an API key had ` +
          'established it; restore logins before keys are read, and let "user" of markSession(), or "resolveUser", ' +
          'return the final user',
      )
    },
  }
}
