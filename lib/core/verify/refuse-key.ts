import type { Clock } from '../clock.ts'
import type { ApiKeyEvent } from '../events.ts'
import { readAddress } from '../keys/client-address.ts'
import type { ApiKey } from '../keys/record.ts'
import type { VerifyOptions } from './key-verifier.ts'
import { createMissingAddressNote } from './missing-address.ts'
import type { RefusedKey } from './verify-result.ts'

/**
 * Reports a refusal as an event, and returns it.
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
  const noteMissing = createMissingAddressNote(clock, emit)
  return function refuse(refusal, { ip }, keyId = null, known = null) {
    const apiKey = ('apiKey' in refusal ? refusal.apiKey : null) ?? known
    emit({
      type: 'key.refused',
      at: new Date(clock.now()),
      code: refusal.code,
      reason: refusal.code === 'invalid_key' ? refusal.reason : null,
      keyId: apiKey?.id ?? keyId,
      owner: apiKey?.owner ?? null,
      ip: readAddress(ip)?.text ?? null,
    })
    if (refusal.code === 'address_not_allowed') noteMissing('allowedIps', ip)
    return refusal
  }
}
