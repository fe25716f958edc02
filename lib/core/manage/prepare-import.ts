import { isLatchkeyError, LatchkeyError } from '../../errors.ts'
import { isTypeError } from '../../internal/any-realm.ts'
import type { Clock } from '../clock.ts'
import type { Digester } from '../digests/digest.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { DependencyRunner } from '../faults.ts'
import { beginWithGivenId } from '../keys/given-id.ts'
import type { ImportedFormats } from '../keys/imported-format.ts'
import { newKeyId } from '../keys/key-format.ts'
import { DEFAULT_SETTINGS } from '../keys/key-settings.ts'
import type { KeyStore } from '../keys/key-store.ts'
import type { KeyRecord } from '../keys/record.ts'
import { startQuota } from '../limits/quota.ts'
import { requireCapabilities } from '../store-access.ts'
import type { RecordCache } from '../verify/record-cache.ts'
import { type CheckedImport, checkImport } from './check-imported-key.ts'
import { checkLimitNames, type LimitNameParts } from './check-limit-names.ts'

export interface ImportParts extends LimitNameParts {
  readonly store: KeyStore
  readonly digester: Digester
  readonly formats: ImportedFormats
  readonly cache: RecordCache
  readonly clock: Clock
  readonly guard: DependencyRunner
  emit(event: ApiKeyEvent): void
}

/** A row on its way into the store. */
export interface Row {
  readonly index: number
  readonly record: KeyRecord
  /** The key's text, where it was given: it says more surely than a digest whether a stored key is the same. */
  readonly key: string | null
}

/** Checks an imported key, and makes its record. */
export async function prepareRow(parts: ImportParts, imported: unknown, index: number): Promise<Row> {
  const { store, digester, cache, clock, guard } = parts
  const now = new Date(clock.now())
  const checked = await check(parts, imported, now)
  requireCapabilities(store, checked.settings)
  const { proof } = checked
  if ('digest' in proof) return { index, record: toRecord(checked, proof.digest, now, cache), key: null }
  const digest = await guard.run('digest', () => digester.create(proof.key), ['unavailable'])
  return { index, record: toRecord(checked, digest, now, cache), key: proof.key }
}

async function check(parts: ImportParts, imported: unknown, now: Date): Promise<CheckedImport> {
  try {
    const checked = checkImport(imported, parts.formats, now)
    await checkLimitNames(parts, checked.settings, () => checked.owner)
    return checked
  } catch (error) {
    throw toInvalid(error)
  }
}

/** What is wrong with a row is no mistake of the program: its message is kept, and the code is that of a bad row. */
export function toInvalid(error: unknown): LatchkeyError {
  if (isLatchkeyError(error)) return error
  const message = isTypeError(error) ? error.message : undefined
  return new LatchkeyError('invalid_import', message, { cause: error, stack: false })
}

/** Member by member: to spread objects of this size costs more than to check and hash a key. */
function toRecord(checked: CheckedImport, digest: string, now: Date, cache: RecordCache): KeyRecord {
  const { settings } = checked
  const id = checked.id ?? newKeyId()
  const { lineageId, version } =
    checked.id === null ? { lineageId: id, version: 1 } : beginWithGivenId(id, now, cache)
  return {
    id,
    lookup: checked.lookup,
    digest,
    lineageId,
    name: settings.name,
    prefix: checked.prefix,
    hint: checked.hint,
    owner: checked.owner,
    createdBy: checked.createdBy,
    permissions: settings.permissions ?? DEFAULT_SETTINGS.permissions,
    metadata: settings.metadata ?? DEFAULT_SETTINGS.metadata,
    enabled: checked.enabled,
    rateLimits: settings.rateLimits ?? null,
    quota: settings.quota ? startQuota(settings.quota, null, now) : null,
    allowedIps: settings.allowedIps ?? null,
    createdAt: checked.createdAt,
    updatedAt: checked.updatedAt,
    expiresAt: settings.expiresAt ?? null,
    idleExpiryMs: settings.idleExpiryMs ?? null,
    usageCount: checked.usageCount,
    lastUsedAt: checked.lastUsedAt,
    lastUsedIp: null,
    revokedAt: checked.revokedAt,
    revokedBy: null,
    revokedReason: null,
    rotatedFrom: null,
    rotatedTo: null,
    version,
  }
}
