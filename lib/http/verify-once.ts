import { missingPermissions } from '../core/keys/permissions.ts'
import type { LimitState } from '../core/limits/rate-limit.ts'
import { type ApiKeyVerifier, isAcceptedPrefix, type VerifyOptions } from '../core/verify/key-verifier.ts'
import type { RefusedKey, VerifyResult } from '../core/verify/verify-result.ts'
import { type Awaitable, isPromiseLike } from '../internal/awaitable.ts'
import { type Admission, stateOf } from './request-state.ts'

/** A key that a request was admitted with, and the limits that this check has charged. */
export interface AdmittedRequest {
  readonly ok: true
  readonly admission: Admission
  readonly limits: readonly LimitState[]
}

const NO_LIMITS: readonly LimitState[] = Object.freeze([])

/**
 * Verifies a key for a request. It charges the request once, at the first admission with a cost. A later check by
 * another middleware compares prefix and permissions and costs nothing.
 */
export function verifyOnce(
  raw: object,
  keys: ApiKeyVerifier,
  key: string,
  options: VerifyOptions,
): Awaitable<AdmittedRequest | RefusedKey> {
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

  function remember(verified: VerifyResult): AdmittedRequest | RefusedKey {
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
): AdmittedRequest | RefusedKey {
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
