import { missingPermissions, type PermissionRequirement, type Permissions } from '../core/keys/permissions.ts'
import type { ApiKey } from '../core/keys/record.ts'
import { isOfRequest, toldBy } from '../core/keys/requirement-of-request.ts'
import type { Cost } from '../core/limits/cost.ts'
import type { LimitState } from '../core/limits/rate-limit.ts'
import { type ApiKeyVerifier, isAcceptedPrefix, type VerifyOptions } from '../core/verify/key-verifier.ts'
import type { RefusedKey, VerifyResult } from '../core/verify/verify-result.ts'
import { LatchkeyError } from '../errors.ts'
import { type Awaitable, isPromiseLike } from '../internal/awaitable.ts'
import { onceEnded } from './once-ended.ts'
import type { RequestParts } from './raw-request.ts'
import type { Admission, RequestState } from './request-state.ts'

/** A key that a request was admitted with, and the limits that this check has charged. */
export interface AdmittedRequest {
  readonly ok: true
  readonly admission: Admission
  readonly limits: readonly LimitState[]
}

/** A key that a request presents, and what is required of it. */
export interface AskedOnce {
  readonly parts: RequestParts
  readonly state: RequestState
  readonly keys: ApiKeyVerifier
  readonly key: string
  readonly options: VerifyOptions
}

const NO_LIMITS: readonly LimitState[] = Object.freeze([])

/**
 * Verifies a key for a request. It charges the request once, at the first admission with a cost. A later check by
 * another middleware compares prefix and permissions and costs nothing.
 *
 * @throws TypeError when a later cost names a limit that the first one left out or named with 0: it would go uncharged.
 */
export function verifyOnce(asked: AskedOnce): Awaitable<AdmittedRequest | RefusedKey> {
  const { state, keys, key, options } = asked
  const earlier = findSame(state.admissions, asked)
  if (earlier && (earlier.cost !== 0 || options.cost === 0)) return recheck(keys, earlier, options)
  const pending = findSame(state.pending, asked)
  // Another middleware asks at this moment: its admission will be this one's too.
  if (pending) return pending.work.then(() => verifyOnce(asked))
  const result = keys.verifyEager ? keys.verifyEager(key, options) : keys.verify(key, options)
  return isPromiseLike(result) ? waitFor(asked, result) : remember(asked, result)
}

function waitFor(
  asked: AskedOnce,
  result: PromiseLike<VerifyResult>,
): PromiseLike<AdmittedRequest | RefusedKey> {
  const { state, keys, key } = asked
  const work = result.then((verified) => remember(asked, verified))
  const forget = () => {
    state.pending = state.pending?.filter((other) => other !== entry)
  }
  const entry = { keys, key, work: work.then(forget, forget) }
  state.pending = [...(state.pending ?? []), entry]
  return work
}

function remember(
  { parts, state, keys, key, options }: AskedOnce,
  verified: VerifyResult,
): AdmittedRequest | RefusedKey {
  if (!verified.ok) return verified
  // Nobody waits for it, and what fails is sent again.
  if (keys.keep?.(verified)) onceEnded(parts, () => void keys.release?.(verified))
  const { apiKey, limits } = verified
  const admission: Admission = { keys, key, apiKey, verified, cost: options.cost ?? 1 }
  const others = state.admissions?.filter((other) => !isSame(other, admission))
  state.admissions = others ? [...others, admission] : [admission]
  // A verifier of the application's own may not know of permissions that are a function of the request.
  if (isOfRequest(options.permissions) && !options.permissions.isTold) {
    const checked = recheck(keys, admission, options)
    if (!checked.ok) return checked
  }
  return { ok: true, admission, limits }
}

/** Has the next check of a request verify its key once more: what it waited for in between may have taken long. */
export function verifyAgain(state: RequestState, keys: ApiKeyVerifier): void {
  const others = state.admissions?.filter((one) => one.keys !== keys || one.cost !== 0)
  if (others) state.admissions = others
}

type Asked = Pick<AskedOnce, 'keys' | 'key'>

function findSame<Entry extends Asked>(
  entries: readonly Entry[] | undefined,
  asked: Asked,
): Entry | undefined {
  return entries?.find((entry) => isSame(entry, asked))
}

function isSame(one: Asked, other: Asked): boolean {
  return one.keys === other.keys && one.key === other.key
}

function recheck(
  keys: ApiKeyVerifier,
  admission: Admission,
  { permissions, prefix, ip, cost }: VerifyOptions,
): AdmittedRequest | RefusedKey {
  const { apiKey } = admission
  if (!isAcceptedPrefix(apiKey.prefix, prefix)) {
    const reason = 'prefix_not_accepted'
    keys.report?.({ type: 'refused', code: 'invalid_key', reason, apiKey, ip })
    return { ok: false, code: 'invalid_key', reason }
  }
  const missing = permissions ? lackOf(keys, apiKey, permissions) : null
  if (!missing) {
    checkCounted(admission, cost)
    return { ok: true, admission, limits: NO_LIMITS }
  }
  keys.report?.({ type: 'refused', code: 'insufficient_permissions', reason: null, apiKey, ip })
  return { ok: false, code: 'insufficient_permissions', apiKey, missing }
}

/** What a key lacks; null if nothing. @throws LatchkeyError `unavailable` when nobody can tell what is required. */
function lackOf(
  keys: ApiKeyVerifier,
  apiKey: ApiKey,
  permissions: PermissionRequirement,
): Permissions | null {
  const told = toldBy(permissions)
  if ('requirement' in told) {
    const missing = missingPermissions(apiKey.permissions, told.requirement)
    if (!missing) keys.report?.({ type: 'exercised', apiKey, permissions: told.requirement })
    return missing
  }
  keys.report?.({ type: 'fault', operation: 'permissions', error: told.error })
  throw new LatchkeyError('unavailable', undefined, { cause: told.error, stack: false })
}

/** Requires that a request was charged for every limit that a later cost names. @throws TypeError */
function checkCounted({ cost: charged, verified }: Admission, cost: Cost | undefined): void {
  if (typeof cost !== 'object') return
  for (const [name, units] of Object.entries(cost)) {
    const isCounted = name === 'quota' || verified.limits.some((limit) => limit.name === name)
    const isNamed = typeof charged === 'object' && Object.hasOwn(charged, name)
    const isSpared = isNamed && charged[name] === 0 && units > 0
    if ((isCounted || isNamed) && !isSpared) continue
    throw new TypeError(
      `"cost" names the limit "${name}", but a middleware in front has charged this request without it: give that one "cost: 0", or the same cost`,
    )
  }
}
