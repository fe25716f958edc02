import type { AddressCheck } from '../keys/allowed-ips.ts'
import { missingPermissions } from '../keys/permissions.ts'
import type { ApiKey } from '../keys/record.ts'
import { isOfRequest } from '../keys/requirement-of-request.ts'
import { isAcceptedPrefix, type VerifyOptions } from './key-verifier.ts'
import type { InvalidReason, RefusedKey } from './verify-result.ts'

/** What the record of a found and proven key says, ready for a decision. */
export interface KeyFacts {
  readonly apiKey: ApiKey
  readonly isRevoked: boolean
  /** Dates are numbers, so the application cannot change them through the dates of `apiKey`. */
  readonly expiresAtMs: number | null
  /** Null if every address may use the key. */
  readonly isAllowedIp: AddressCheck | null
}

/** Everything a decision knows about a key. */
export interface KeyView {
  readonly facts: KeyFacts
  /** When it expires without use; Infinity if it does not. */
  readonly idleAtMs: number
  /** The key as its owner may use it now; null if the owner may use no keys; undefined if not looked up yet. */
  readonly granted: ApiKey | null | undefined
}

export type KeyDecision =
  /** The key may do this, as `granted`, if its limits and quota allow. */
  | { readonly outcome: 'allowed' }
  | { readonly outcome: 'refused'; readonly refusal: RefusedKey }
  /** Look up whether its owner may use keys, then decide again. */
  | { readonly outcome: 'owner_unknown' }
  /** The application cannot tell which permissions the request needs. */
  | { readonly outcome: 'requirement_unknown'; readonly error: unknown }

const ALLOWED: KeyDecision = Object.freeze({ outcome: 'allowed' })
const OWNER_UNKNOWN: KeyDecision = Object.freeze({ outcome: 'owner_unknown' })

/**
 * Decides whether a key may do what the call requires, at `now` in milliseconds. Pure, but that it asks what the request
 * requires, last of all: local and remote verification share it.
 */
export function decideKey(
  { facts, idleAtMs, granted }: KeyView,
  asked: VerifyOptions,
  now: number,
): KeyDecision {
  const { apiKey, isAllowedIp } = facts
  if (!isAcceptedPrefix(apiKey.prefix, asked.prefix)) return invalid('prefix_not_accepted')
  if (facts.isRevoked) return invalid('revoked')
  if (!apiKey.enabled) return invalid('disabled')
  if (facts.expiresAtMs !== null && facts.expiresAtMs <= now) return invalid('expired')
  if (idleAtMs <= now) return invalid('idle')
  if (granted === undefined) return OWNER_UNKNOWN
  if (granted === null) return invalid('owner_inactive')
  if (isAllowedIp && !isAllowedIp(asked.ip)) {
    return refused({ ok: false, code: 'address_not_allowed', apiKey: granted })
  }
  if (!asked.permissions) return ALLOWED
  const told = isOfRequest(asked.permissions) ? asked.permissions.tell() : null
  if (told && 'error' in told) return { outcome: 'requirement_unknown', error: told.error }
  const missing = missingPermissions(granted.permissions, told?.requirement ?? asked.permissions)
  if (missing) return refused({ ok: false, code: 'insufficient_permissions', apiKey: granted, missing })
  return ALLOWED
}

function invalid(reason: InvalidReason): KeyDecision {
  return refused({ ok: false, code: 'invalid_key', reason })
}

function refused(refusal: RefusedKey): KeyDecision {
  return { outcome: 'refused', refusal }
}
