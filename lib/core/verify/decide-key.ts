import type { AddressCheck } from '../keys/allowed-ips.ts'
import { missingPermissions } from '../keys/permissions.ts'
import type { ApiKey } from '../keys/record.ts'
import { isAcceptedPrefix, type VerifyOptions } from './key-verifier.ts'
import type { InvalidReason, RefusedKey } from './verify-result.ts'

/** A key that was found, and whose secret is right: what its record says, ready to decide by. */
export interface KeyFacts {
  readonly apiKey: ApiKey
  readonly isRevoked: boolean
  /** Dates are numbers: what an application does to the dates of `apiKey` changes nothing here. */
  readonly expiresAtMs: number | null
  /** Null where every address may use it. */
  readonly isAllowedIp: AddressCheck | null
}

/** All that is known of a key when it is decided upon. */
export interface KeyView {
  readonly facts: KeyFacts
  /** When it expires for want of use; Infinity where it does not. */
  readonly idleAtMs: number
  /** The key as its owner may use it now; null where the owner may use no keys; undefined before anybody has asked. */
  readonly granted: ApiKey | null | undefined
}

export type KeyDecision =
  /** It may do this, as `granted`, as far as its limits and its quota go. */
  | { readonly outcome: 'allowed' }
  | { readonly outcome: 'refused'; readonly refusal: RefusedKey }
  /** Whether its owner may use keys has to be asked before the rest is decided. */
  | { readonly outcome: 'owner_unknown' }

const ALLOWED: KeyDecision = Object.freeze({ outcome: 'allowed' })
const OWNER_UNKNOWN: KeyDecision = Object.freeze({ outcome: 'owner_unknown' })

/**
 * Decides whether a key may do what is asked of it, at `now` in milliseconds. It is pure: local and remote verification decide by it
 * alike, each with what it has read.
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
  const missing = asked.permissions ? missingPermissions(granted.permissions, asked.permissions) : null
  if (missing) return refused({ ok: false, code: 'insufficient_permissions', apiKey: granted, missing })
  return ALLOWED
}

function invalid(reason: InvalidReason): KeyDecision {
  return refused({ ok: false, code: 'invalid_key', reason })
}

function refused(refusal: RefusedKey): KeyDecision {
  return { outcome: 'refused', refusal }
}
