import type { Digester } from '../digests/digest.ts'
import type { DependencyRunner } from '../faults.ts'
import { beginWithGivenId } from '../keys/given-id.ts'
import { generateKey, newKeyId } from '../keys/key-format.ts'
import type { KeyRecord } from '../keys/record.ts'
import type { RecordCache } from '../verify/record-cache.ts'

/** Makes the text of a key and its record; nothing is stored. `id` is one that was asked for. A successor stays in its lineage. */
export type NewKey = (
  id: string | null,
  at: Date,
  settings: Omit<KeyRecord, OwnMember> & { lineageId?: string; rotatedFrom?: string | null },
) => Promise<{ key: string; record: KeyRecord }>

export interface NewKeyParts {
  readonly digester: Digester
  readonly cache: RecordCache
  readonly guard: DependencyRunner
}

/** The members of a record that every new key has of its own. */
type OwnMember =
  | 'id'
  | 'lookup'
  | 'digest'
  | 'lineageId'
  | 'hint'
  | 'usageCount'
  | 'lastUsedAt'
  | 'lastUsedIp'
  | 'revokedAt'
  | 'revokedBy'
  | 'revokedReason'
  | 'rotatedFrom'
  | 'rotatedTo'
  | 'version'

export function createNewKey({ digester, cache, guard }: NewKeyParts): NewKey {
  return async function newKey(id, at, settings) {
    const { key, keyId, prefix } = generateKey(settings.prefix, id ?? newKeyId())
    const begin = id === null ? { lineageId: keyId, version: 1 } : beginWithGivenId(id, at, cache)
    const record: KeyRecord = {
      ...settings,
      id: keyId,
      lookup: keyId,
      digest: await guard.run('digest', () => digester.create(key), ['unavailable']),
      lineageId: settings.lineageId ?? begin.lineageId,
      hint: `${prefix}_${keyId}`,
      usageCount: 0,
      lastUsedAt: null,
      lastUsedIp: null,
      revokedAt: null,
      revokedBy: null,
      revokedReason: null,
      rotatedFrom: settings.rotatedFrom ?? null,
      rotatedTo: null,
      version: begin.version,
    }
    return { key, record }
  }
}
