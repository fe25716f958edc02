import type { ApiKey } from '../core/keys/record.ts'
import type { LimitState } from '../core/limits/rate-limit.ts'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import type { LatchkeyError } from '../errors.ts'
import { showMark, writeMark } from './auth-mark.ts'
import { type RequestParts, setUser } from './raw-request.ts'

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

/** Sets the outcome of an authentication on the request: the mark, `apiKey`, and the user. */
export function applyOutcome(parts: RequestParts, keys: ApiKeyVerifier, outcome: Authentication): void {
  if (outcome.ok) {
    const { user, apiKey } = outcome
    writeMark(parts, { method: 'apikey', user, apiKey, keys })
    setUser(parts, user)
  } else if (outcome.presented) {
    // A bad key never falls back to whoever was there before it.
    writeMark(parts, { method: 'rejected', code: outcome.error.code, keys })
    setUser(parts, undefined)
  } else showMark(parts)
}
