import { OptionError } from '../../internal/option-error.ts'
import { checkObject } from '../../internal/options.ts'
import { checkSettings, type KeySettings, SETTINGS } from '../keys/key-settings.ts'
import type { ApiKey, KeyRecord } from '../keys/record.ts'
import { requireCapabilities } from '../store-access.ts'
import { conflict, type KeyChanges } from './change-keys.ts'
import { checkLimitNames } from './check-limit-names.ts'
import type { KeyManagement, UpdateOptions } from './key-management.ts'
import type { ManagementParts } from './management-parts.ts'

export function createUpdate(
  parts: ManagementParts,
  changes: KeyChanges,
): Pick<KeyManagement, 'update' | 'enable' | 'disable'> {
  const { store, clock } = parts
  async function update(
    id: string,
    given: Partial<KeySettings>,
    options: UpdateOptions = {},
  ): Promise<ApiKey> {
    checkObject('settings', given, SETTINGS)
    checkObject('options', options, ['by', 'expectedVersion'])
    const settings = checkSettings(given, clock.now())
    requireCapabilities(store, settings)
    await checkLimitNames(parts, settings, async () => (await changes.findById(id))?.owner ?? null)
    const changed = Object.keys(settings)
    if (changed.length === 0) throw new OptionError('settings', 'name at least one setting to change')
    const apiKey = await changes.change(id, options, (record) => {
      refuseRevoked(record)
      refuseProlonging(record, settings.expiresAt)
      return { change: settings, event: { type: 'key.updated', changed } }
    })
    if (settings.quota !== undefined) {
      // The quota is that of the whole lineage: no relative may go on by what it has of the old one.
      await changes.changeAll(
        { lineageId: apiKey.lineageId },
        {},
        () => ({ change: {}, event: null }),
        new Set([id]),
      )
    }
    return apiKey
  }

  async function setEnabled(id: string, enabled: boolean, options: UpdateOptions = {}): Promise<ApiKey> {
    checkObject('options', options, ['by', 'expectedVersion'])
    return changes.change(id, options, (record) => {
      refuseRevoked(record)
      if (record.enabled === enabled) return null
      return { change: { enabled }, event: { type: enabled ? 'key.enabled' : 'key.disabled' } }
    })
  }

  return {
    update,
    enable: (id, options) => setEnabled(id, true, options),
    disable: (id, options) => setEnabled(id, false, options),
  }
}

function refuseRevoked(record: KeyRecord): void {
  if (record.revokedAt) throw conflict('The key is revoked')
}

/** A key that was replaced ends when its grace does: to cut it over must be final. */
function refuseProlonging({ rotatedTo, expiresAt }: KeyRecord, next: Date | null | undefined): void {
  if (!rotatedTo || next === undefined) return
  if (next === null || (expiresAt && next > expiresAt)) {
    throw conflict('The key was rotated: its expiry cannot be extended')
  }
}
