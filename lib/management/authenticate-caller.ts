import type { ApiKeys } from '../core/api-keys.ts'
import type { PermissionRequirement } from '../core/keys/permissions.ts'
import type { ApiKey } from '../core/keys/record.ts'
import type { LatchkeyError } from '../errors.ts'
import { isNobody, readMark } from '../http/auth-mark.ts'
import { createAuthenticator } from '../http/authenticate-request.ts'
import { applyOutcome } from '../http/authentication.ts'
import { CREDENTIAL_OPTIONS, type CredentialOptions, presentsAnyKey } from '../http/credential.ts'
import { challenge, rateLimitFields } from '../http/header-fields.ts'
import { partsOf } from '../http/raw-request.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import { checkFunction } from '../internal/options.ts'
import { type Actor, checkActor } from './actor.ts'
import type { Operation } from './operations.ts'
import { refusal } from './refusal.ts'

/** The caller: an actor, or a key. */
export type Caller = { readonly fields: Readonly<Record<string, string>> } & (
  | { readonly kind: 'actor'; readonly actor: Actor }
  | { readonly kind: 'key'; readonly apiKey: ApiKey }
)

interface CallerOptions<Source> extends CredentialOptions {
  actor: (source: Source) => Awaitable<Actor | null | undefined>
  realm?: string
  ip?: (source: Source) => string | undefined
}

export const AUTHENTICATION_OPTIONS: readonly string[] = [...CREDENTIAL_OPTIONS, 'actor', 'realm', 'ip']

/** How a request with a key is verified. */
interface CallerRequest {
  readonly permissions?: PermissionRequirement
  readonly cost: number
}

/**
 * Returns a function that authenticates the caller. If a request presents a key, the key decides, as in the middlewares. A valid key
 * may read and revoke itself, and verify others: a leaked key can neither issue nor change keys. For all other requests, the function
 * calls the application's `actor`.
 *
 * The function throws a LatchkeyError for every refusal.
 */
export function createCallerReader<Source extends object>(
  keys: ApiKeys,
  options: CallerOptions<Source>,
  verifyPermission: PermissionRequirement,
): (source: Source, operation: Operation) => Promise<Caller> {
  const { actor: askActor, ip: readIp = () => undefined, realm = 'Users', headers, scheme, bearer } = options
  checkFunction('actor', askActor)
  checkFunction('ip', readIp)
  const authenticator = createAuthenticator(keys, {
    realm,
    ...(headers !== undefined && { headers }),
    ...(scheme !== undefined && { scheme }),
    ...(bearer !== undefined && { bearer }),
  })

  return async function readCaller(source, operation) {
    const asked = { ...askedOfKey(operation), isOptional: operation.action !== null }
    const parts = partsOf(source)
    const outcome = await authenticator.authenticate(parts, asked, readIp(source))
    if (!outcome.ok && !outcome.presented) return withoutKey(source, operation, outcome.error)
    applyOutcome(parts, keys, outcome)
    if (!outcome.ok) throw outcome.error
    const { apiKey } = outcome
    if (operation.action !== null) throw refusal('session_required')
    return { kind: 'key', apiKey, fields: rateLimitFields(outcome.limits, authenticator.rateLimitHeaders) }
  }

  /** A call that is always refused spends nothing, and neither does revoking the key itself. */
  function askedOfKey({ id }: Operation): CallerRequest {
    if (id === 'verify') return { permissions: verifyPermission, cost: 1 }
    return { cost: id === 'self' ? 1 : 0 }
  }

  async function withoutKey(source: Source, operation: Operation, missing: LatchkeyError): Promise<Caller> {
    if (operation.action === null) throw missing
    // A key in a header that another middleware reads is still a key.
    const method = readMark(source)?.method
    const isByKey = method === 'apikey' || method === 'rejected' || method === 'other'
    if (isByKey || presentsAnyKey(partsOf(source).raw)) throw refusal('session_required')
    const actor = await readActor(source)
    if (!actor) {
      throw refusal('authentication_required', {}, { 'WWW-Authenticate': challenge(['Session'], realm) })
    }
    return { kind: 'actor', actor, fields: {} }
  }

  /** Any error from the application is a fault, even a LatchkeyError: it does not mean that the application refused the request. */
  async function readActor(source: Source): Promise<Actor | null> {
    try {
      const actor = await askActor(source)
      return isNobody(actor) ? null : checkActor(actor)
    } catch (error) {
      const failed = authenticator.refuse.fault('actor', error)
      throw failed.ok ? error : failed.error
    }
  }
}
