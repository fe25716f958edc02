import { checkRecord, type KeyRecord } from '../../core/keys/record.ts'
import type { Quota, QuotaRecord } from '../../core/limits/quota.ts'
import { LatchkeyError } from '../../errors.ts'
import { isDate } from '../../internal/any-realm.ts'

/** A record as Redis holds it. */
export interface StoredRecord {
  readonly stamp: string
  readonly nameStamp: string
  /** The batch that it is pending for; null if it is final. */
  readonly batch: string | null
  /** A change of the lineage's quota that is still to be made, as text. */
  readonly intent: string | null
  /** The time of the last use, as text; empty if it was never used. */
  readonly lastUse: string
  /** The record, without the quota of its lineage. */
  readonly record: KeyRecord
}

/** A change of the lineage's quota that a record intends: to be made once. */
export type QuotaIntent = { readonly version: number } & (
  | { readonly join: QuotaRecord }
  | { readonly set: Quota | null; readonly at: Date }
)

/** The quota of a lineage as Redis holds it. */
export interface StoredQuota {
  readonly text: string | null
  /** A removed quota stays, for its epoch. */
  readonly isRemoved: boolean
}

/** The fields of a record, each name followed by its value; without the stamp. */
export function toFields(record: KeyRecord, nameStamp: string): string[] {
  const { id, lookup, version, digest, usageCount, lastUsedAt, lastUsedIp, quota } = record
  const fields = ['r', toJson(record), 'v', String(version), 'd', JSON.stringify(digest), 'n', nameStamp]
  fields.push('c', String(usageCount), 'a', JSON.stringify(lastUsedIp))
  if (lastUsedAt) fields.push('t', String(lastUsedAt.getTime()))
  if (id === lookup) fields.push('o', '1')
  if (quota) fields.push('q', toIntentText({ version, join: quota }))
  return fields
}

/** The parts of a record that only `update` changes, as JSON. Dates are milliseconds. */
export function toJson(record: KeyRecord): string {
  const {
    id,
    lookup,
    lineageId,
    name,
    prefix,
    hint,
    owner,
    createdBy,
    permissions,
    metadata,
    enabled,
    rateLimits,
    allowedIps,
    idleExpiryMs,
    revokedBy,
    revokedReason,
    rotatedFrom,
    rotatedTo,
  } = record
  return JSON.stringify({
    id,
    lookup,
    lineageId,
    name,
    prefix,
    hint,
    owner,
    createdBy,
    permissions,
    metadata,
    enabled,
    rateLimits,
    allowedIps,
    createdAt: record.createdAt.getTime(),
    updatedAt: record.updatedAt.getTime(),
    expiresAt: record.expiresAt?.getTime() ?? null,
    idleExpiryMs,
    revokedAt: record.revokedAt?.getTime() ?? null,
    revokedBy,
    revokedReason,
    rotatedFrom,
    rotatedTo,
  })
}

/** @throws LatchkeyError `malformed_record` */
export function fromFields(reply: unknown): StoredRecord {
  const fields = toMap(reply)
  const text = (field: string) => fields.get(field) ?? malformed()
  const kept = parse(text('r'))
  const record = {
    ...kept,
    digest: parseAny(text('d')),
    quota: null,
    createdAt: toDate(kept.createdAt),
    updatedAt: toDate(kept.updatedAt),
    expiresAt: toDate(kept.expiresAt),
    revokedAt: toDate(kept.revokedAt),
    usageCount: Number(text('c')),
    lastUsedAt: fields.has('t') ? new Date(Number(fields.get('t'))) : null,
    lastUsedIp: parseAny(text('a')),
    version: Number(text('v')),
  }
  return {
    stamp: text('s'),
    nameStamp: text('n'),
    batch: fields.get('b') ?? null,
    intent: fields.get('q') ?? null,
    lastUse: fields.get('t') ?? '',
    record: checkRecord(record),
  }
}

/** Where a pointer leads. @throws LatchkeyError `malformed_record` */
export function fromPointer(reply: unknown) {
  const fields = toMap(reply)
  return {
    lookup: String(parseAny(fields.get('l') ?? malformed())),
    stamp: fields.get('s') ?? malformed(),
    batch: fields.get('b') ?? null,
  }
}

export function toIntentText(intent: QuotaIntent): string {
  if ('join' in intent) return JSON.stringify({ version: intent.version, join: toQuotaJson(intent.join) })
  return JSON.stringify({ version: intent.version, set: intent.set, at: intent.at.getTime() })
}

/** @throws LatchkeyError `malformed_record` */
export function fromIntentText(text: string): QuotaIntent {
  const { version, join, set, at } = parse(text)
  if (typeof version !== 'number') malformed()
  if (join !== undefined) return { version, join: toQuotaRecord(join) }
  const date = toDate(at)
  if (!isDate(date) || typeof set !== 'object') malformed()
  return { version, set: set as Quota | null, at: date }
}

export function toQuotaText(quota: QuotaRecord): string {
  return JSON.stringify(toQuotaJson(quota))
}

export function toStoredQuota(text: unknown, removed: unknown): StoredQuota {
  return { text: typeof text === 'string' ? text : null, isRemoved: typeof removed === 'string' }
}

/** The quota, even if it was removed; null if the lineage never had one. @throws LatchkeyError `malformed_record` */
export function fromQuotaText(text: string | null): QuotaRecord | null {
  return text === null ? null : toQuotaRecord(parse(text))
}

/** @throws LatchkeyError `malformed_record` */
export function withQuota(record: KeyRecord, { text, isRemoved }: StoredQuota): KeyRecord {
  return isRemoved || text === null ? record : checkRecord({ ...record, quota: fromQuotaText(text) })
}

function toQuotaJson({ remaining, epoch, allotted, refill, nextRefillAt }: QuotaRecord) {
  return { remaining, epoch, allotted, refill, nextRefillAt: nextRefillAt?.getTime() ?? null }
}

function toQuotaRecord(value: unknown): QuotaRecord {
  if (typeof value !== 'object' || value === null) malformed()
  const { remaining, epoch, allotted, refill, nextRefillAt } = value as Record<string, unknown>
  for (const count of [remaining, epoch, allotted]) if (!Number.isSafeInteger(count)) malformed()
  return { remaining, epoch, allotted, refill, nextRefillAt: toDate(nextRefillAt) } as QuotaRecord
}

/** The fields in a reply to HGETALL. */
function toMap(reply: unknown): ReadonlyMap<string, string> {
  if (!Array.isArray(reply)) malformed()
  const fields = new Map<string, string>()
  for (let i = 0; i + 1 < reply.length; i += 2) fields.set(String(reply[i]), String(reply[i + 1]))
  return fields
}

function toDate(value: unknown): unknown {
  return typeof value === 'number' ? new Date(value) : value
}

function parse(text: string): Record<string, unknown> {
  const value = parseAny(text)
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : malformed()
}

function parseAny(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return malformed()
  }
}

function malformed(): never {
  throw new LatchkeyError('malformed_record', 'Redis holds a record of the store that is malformed')
}
