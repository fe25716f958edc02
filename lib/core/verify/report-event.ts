import type { Clock } from '../clock.ts'
import type { ApiKeyEvent } from '../events.ts'
import { readAddress } from '../keys/client-address.ts'
import type { UsageCounter } from '../usage/usage-counter.ts'
import type { ReportedEvent } from './key-verifier.ts'
import { ownPermissionsOf } from './owner-state.ts'

/** Turns what happened outside `verify` into events. A wrong ticket is no failed attempt: any website can have its visitors send some. */
export function createReporter(
  clock: Clock,
  emit: (event: ApiKeyEvent) => void,
  usage: UsageCounter | null = null,
): (happening: ReportedEvent) => void {
  return function report(happening) {
    const at = new Date(clock.now())
    if (happening.type === 'fault') {
      emit({ type: 'fault', at, operation: happening.operation, error: happening.error })
      return
    }
    if (happening.type === 'exercised') {
      const { apiKey, permissions } = happening
      const held = { own: ownPermissionsOf(apiKey), granted: apiKey.permissions }
      usage?.exercised(apiKey.id, held, permissions, at.getTime())
      return
    }
    if (happening.type === 'read') {
      const { apiKey, by } = happening
      emit({ type: 'key.read', at, keyId: apiKey.id, owner: apiKey.owner, by })
      return
    }
    if (happening.type === 'explained') {
      const { apiKey, outcome, reason } = happening.explanation
      const { id: keyId = null, owner = null } = apiKey ?? {}
      emit({ type: 'key.explained', at, keyId, owner, outcome, reason, by: happening.by })
      return
    }
    const { code, reason, apiKey, ip } = happening
    if (apiKey) usage?.refused(apiKey.id, reason ?? code, at.getTime())
    emit({
      type: 'key.refused',
      at,
      code,
      reason,
      keyId: apiKey?.id ?? null,
      owner: apiKey?.owner ?? null,
      ip: readAddress(ip)?.text ?? null,
    })
  }
}
