import type { ApiKey } from '../core/keys/record.ts'
import type { LimitState } from '../core/limits/rate-limit.ts'
import { checkVerifyOptions, type VerifyOptions } from '../core/verify/key-verifier.ts'
import type { RefusedKey, VerifyResult } from '../core/verify/verify-result.ts'
import { acceptedBy, OptionError } from '../internal/option-error.ts'
import type { HandlerParts } from './handler-parts.ts'
import { firstMember } from './read-input.ts'
import { invalidRequest } from './refusal.ts'
import type { VerifyRequest } from './schemas.ts'

/** The answer to a caller about a key. It never says why a key is invalid. */
type Verification =
  | {
      readonly active: false
      readonly refused?: { readonly code: 'too_many_failures'; readonly retryAfterMs: number }
    }
  | {
      readonly active: true
      readonly apiKey?: ApiKey
      readonly limits: readonly LimitState[]
      readonly refused?: object
    }

/**
 * Verifies a key for another service, whose own key is `caller`.
 *
 * Once the caller has asked about too many invalid keys, the answer for further ones is `too_many_failures`, as for an address that
 * sent too many. Valid keys still get their answer: otherwise strangers could turn a service off by sending invalid ones.
 */
export function createKeyVerification({
  keys,
  limits,
}: Pick<HandlerParts, 'keys' | 'limits'>): (caller: ApiKey, request: VerifyRequest) => Promise<Verification> {
  return async function verifyForOthers(caller, request) {
    const result = await verify(keys, request)
    const answer = toVerification(result)
    if (answer.active) return answer
    // Counts and refuses in one step, however many requests are concurrent.
    const retryAfterMs = limits.invalidKeys.count(caller.id)
    if (retryAfterMs === 0 || answer.refused) return answer
    return { active: false, refused: { code: 'too_many_failures', retryAfterMs } }
  }
}

async function verify(keys: HandlerParts['keys'], request: VerifyRequest): Promise<VerifyResult> {
  const { cost = 1, charge = false, ...rest } = request
  const options = verifyOptionsOf({ ...rest, cost: charge ? cost : 0 })
  const result = await keys.verify(request.key, options).catch(refuseUnknownLimit)
  // Nobody here knows when the other service's request ends: it needs a free place, but holds none.
  if (result.ok) keys.release(result).catch(() => {})
  return result
}

/** Refuses a request whose cost names a limit that neither the key nor the service has; any other error stays. */
export function refuseUnknownLimit(error: unknown): never {
  if (OptionError.is(error) && firstMember(error.field) === 'cost') {
    throw invalidRequest('cost', acceptedBy(error))
  }
  throw error
}

/** @throws LatchkeyError `invalid_request` for what the schema cannot see */
export function verifyOptionsOf({
  permissions,
  cost,
  ip,
  prefix,
}: Pick<VerifyRequest, 'permissions' | 'cost' | 'ip' | 'prefix'>): VerifyOptions {
  const options: VerifyOptions = {
    ...(cost !== undefined && { cost }),
    ...(permissions !== undefined && { permissions }),
    ...(ip !== undefined && { ip }),
    ...(prefix !== undefined && { prefix }),
  }
  try {
    checkVerifyOptions(options)
  } catch (error) {
    if (!OptionError.is(error)) throw error
    // Names inside an option come from the client, and may be a key by mistake.
    throw invalidRequest(firstMember(error.field), acceptedBy(error))
  }
  return options
}

function toVerification(result: VerifyResult): Verification {
  if (result.ok) return { active: true, apiKey: result.apiKey, limits: result.limits }
  switch (result.code) {
    case 'invalid_key':
      return { active: false }
    case 'too_many_failures':
      return { active: false, refused: { code: result.code, retryAfterMs: result.retryAfterMs } }
    default:
      return toRefused(result)
  }
}

function toRefused(result: Exclude<RefusedKey, { code: 'invalid_key' | 'too_many_failures' }>): Verification {
  const { code, apiKey } = result
  const shown = apiKey === undefined ? {} : { apiKey }
  if (code === 'address_not_allowed') return { active: true, ...shown, limits: [], refused: { code } }
  if (code === 'insufficient_permissions') {
    return { active: true, ...shown, limits: [], refused: { code, missing: result.missing } }
  }
  const { limits, retryAfterMs } = result
  const exceeded = limits.filter((limit) => limit.exceeded).map(({ name }) => name)
  return { active: true, ...shown, limits, refused: { code, retryAfterMs, exceeded } }
}
