import type { Clock } from './clock.ts'
import type { ApiKeyEvent } from './events.ts'
import type { VerifyOptions } from './key-verifier.ts'
import type { ApiKey } from './record.ts'
import type { RefusedKey } from './verify-result.ts'

/**
 * Makes an event of a refusal, and hands it back.
 *
 * @param keyId the id that the key claims, where it says one
 * @param known the key that was found for it, where the refusal shows none
 */
export type RefuseKey = (
  refusal: RefusedKey,
  options: Pick<VerifyOptions, 'ip'>,
  keyId?: string | null,
  known?: ApiKey | null,
) => RefusedKey

export function createRefuseKey(clock: Clock, emit: (event: ApiKeyEvent) => void): RefuseKey {
  return function refuse(refusal, { ip = null }: { ip?: string | null }, keyId = null, known = null) {
    const apiKey = ('apiKey' in refusal ? refusal.apiKey : null) ?? known
    emit({
      type: 'key.refused',
      at: new Date(clock.now()),
      code: refusal.code,
      reason: refusal.code === 'invalid_key' ? refusal.reason : null,
      keyId: apiKey?.id ?? keyId,
      owner: apiKey?.owner ?? null,
      ip,
    })
    return refusal
  }
}
