import { LatchkeyError } from '../../errors.ts'
import { isValidDate } from '../../internal/any-realm.ts'
import { deepFreeze } from '../../internal/deep-freeze.ts'
import { OptionError } from '../../internal/option-error.ts'
import {
  checkObject,
  checkShownText,
  describe,
  fail,
  isObject,
  isPlainObject,
} from '../../internal/options.ts'
import type { QuotaRecord, QuotaRefill } from '../limits/quota.ts'
import type { RateLimit } from '../limits/rate-limit.ts'
import { BOUNDS } from './bounds.ts'
import type { Permissions } from './permissions.ts'

/** The owner of a key: a user, an organisation, a service, or anything else in your application. */
export interface Owner {
  readonly type: 'user' | 'organization' | 'service' | (string & {})
  /** Your application's identifier, 1 to 255 characters. */
  readonly id: string
}

/** JSON that your application stores with a key. Latchkey never reads it. */
export type Metadata = Readonly<Record<string, unknown>>

/** A key as a store keeps it, without its text. `digest` proves a key and cannot be turned back into it. */
export interface KeyRecord {
  /** Identifies the key in every call but `verify`. */
  readonly id: string
  /** Finds the record of a presented key; unique, never changes. For a native key, its `keyId`. */
  readonly lookup: string
  /** A string that names its scheme, such as `$sha256$…`. */
  readonly digest: string
  /** Shared by a key and all its successors: rate limits and quota belong to it. */
  readonly lineageId: string
  /** For people. */
  readonly name: string
  /** The prefix the key was issued with. */
  readonly prefix: string
  /** The beginning of the key, which helps people recognise it. Not secret. */
  readonly hint: string
  readonly owner: Owner
  /** Who issued the key, if known. */
  readonly createdBy: string | null
  /** What the key may do. */
  readonly permissions: Permissions
  /** Your application's data; Latchkey never reads it. */
  readonly metadata: Metadata
  /** False while the key is disabled. */
  readonly enabled: boolean
  /** The key's own limits; null inherits the current default, an empty array means none. */
  readonly rateLimits: readonly RateLimit[] | null
  /** The quota of the key's lineage; null means unlimited. */
  readonly quota: QuotaRecord | null
  /** Addresses and CIDR blocks the key may be used from; null means everywhere. */
  readonly allowedIps: readonly string[] | null
  readonly createdAt: Date
  /** When an administrator last changed the key. Using the key does not change it. */
  readonly updatedAt: Date
  /** The key is refused from this moment on; null means never. */
  readonly expiresAt: Date | null
  /** The key expires after this many milliseconds without use. */
  readonly idleExpiryMs: number | null
  /** How often the key was used, as far as the store knows. */
  readonly usageCount: number
  /** The last use that the store knows of. Uses are written in batches, some seconds late. */
  readonly lastUsedAt: Date | null
  /** The client's address at that use, if known. */
  readonly lastUsedIp: string | null
  /** Once set, it is never cleared: the key stays refused. */
  readonly revokedAt: Date | null
  /** Who revoked it, if known. */
  readonly revokedBy: string | null
  readonly revokedReason: string | null
  /** The id of the key that this one replaced. */
  readonly rotatedFrom: string | null
  /** The id of the key that replaced this one. */
  readonly rotatedTo: string | null
  /** Rises by one with every change made through `keys`, and only then. */
  readonly version: number
}

/** The public view of a quota. */
export interface ApiKeyQuota {
  /** Units left: those in the store plus those this process has leased and not spent. Other processes may hold more. */
  readonly remaining: number
  readonly refill: QuotaRefill | null
  readonly nextRefillAt: Date | null
}

/**
 * The public view of a key, and the value of `req.apiKey`: the record without `lookup` and `digest`. Frozen and safe to
 * serialise.
 */
export type ApiKey = Readonly<
  Omit<KeyRecord, 'lookup' | 'digest' | 'quota'> & {
    quota: ApiKeyQuota | null
    /**
     * The status when the key was read, changed or verified; it does not change later. A verified key is `active`. For
     * the status at another moment, call `keyStatus(apiKey)`.
     */
    status: KeyStatus
  }
>

/** The status of a key. If several apply, it is the first of: revoked, expired, disabled, active. */
export type KeyStatus = 'active' | 'disabled' | 'expired' | 'revoked'

export const KEY_STATUSES: readonly KeyStatus[] = ['active', 'disabled', 'expired', 'revoked']

/** The public view of a record. `heldUnits` are those that this process has leased of its quota and not spent. */
export function toApiKey(record: KeyRecord, status: KeyStatus, heldUnits = 0): ApiKey {
  const { quota } = record
  // Written out: an object made by rest and spread takes a third more memory, and one is kept for each cached key.
  return deepFreeze({
    id: record.id,
    lineageId: record.lineageId,
    name: record.name,
    prefix: record.prefix,
    hint: record.hint,
    owner: record.owner,
    createdBy: record.createdBy,
    permissions: record.permissions,
    metadata: record.metadata,
    enabled: record.enabled,
    rateLimits: record.rateLimits,
    allowedIps: record.allowedIps,
    createdAt: record.createdAt,
    updatedAt: record.updatedAt,
    expiresAt: record.expiresAt,
    idleExpiryMs: record.idleExpiryMs,
    usageCount: record.usageCount,
    lastUsedAt: record.lastUsedAt,
    lastUsedIp: record.lastUsedIp,
    revokedAt: record.revokedAt,
    revokedBy: record.revokedBy,
    revokedReason: record.revokedReason,
    rotatedFrom: record.rotatedFrom,
    rotatedTo: record.rotatedTo,
    version: record.version,
    status,
    quota: quota && {
      remaining: quota.remaining + heldUnits,
      refill: quota.refill,
      // A date cannot be frozen, and the record's decides when the quota is refilled.
      nextRefillAt: quota.nextRefillAt && new Date(quota.nextRefillAt),
    },
  })
}

/**
 * Returns the status of a key at `at`, by default now. Idle time counts from the last use that the store knows of, or
 * from the creation of the key, whichever is later. `idleSlackMs`, in milliseconds, allows for uses that are not written
 * yet.
 *
 * @example
 * keyStatus(apiKey) // 'active'
 * keyStatus(apiKey, new Date(Date.now() + 7 * 86_400_000)) // 'expired': it ends within a week
 */
export function keyStatus(
  key: Pick<KeyRecord, 'revokedAt' | 'expiresAt' | 'idleExpiryMs' | 'lastUsedAt' | 'createdAt' | 'enabled'>,
  at: Date = new Date(),
  idleSlackMs = 0,
): KeyStatus {
  if (key.revokedAt) return 'revoked'
  const end = endOf(key, idleSlackMs)
  if (end !== null && end <= at.getTime()) return 'expired'
  return key.enabled ? 'active' : 'disabled'
}

/** When a key expires by its date or by idleness, in milliseconds since the epoch; null if it does not. */
export function endOf(
  key: Pick<KeyRecord, 'expiresAt' | 'idleExpiryMs' | 'lastUsedAt' | 'createdAt'>,
  idleSlackMs = 0,
): number | null {
  const idleFrom = Math.max(key.createdAt.getTime(), key.lastUsedAt?.getTime() ?? 0)
  const idleEnd = key.idleExpiryMs === null ? null : idleFrom + key.idleExpiryMs + idleSlackMs
  const fixedEnd = key.expiresAt?.getTime() ?? null
  if (idleEnd === null || fixedEnd === null) return idleEnd ?? fixedEnd
  return Math.min(idleEnd, fixedEnd)
}

/** When a key was revoked or expires, whichever comes first; infinite where it does neither. */
export function endedAt(record: KeyRecord): number {
  return Math.min(record.revokedAt?.getTime() ?? Infinity, endOf(record) ?? Infinity)
}

/** Whether a key has an `expiresAt` before a moment. */
export function expiresEarlier({ expiresAt }: Pick<KeyRecord, 'expiresAt'>, than: Date): boolean {
  return expiresAt !== null && expiresAt.getTime() < than.getTime()
}

export function isOwnedBy({ owner }: Pick<KeyRecord, 'owner'>, owners: readonly Owner[]): boolean {
  return owners.some(({ type, id }) => owner.type === type && owner.id === id)
}

/** Requires an owner. @throws TypeError naming the member. */
export function checkOwner(name: string, value: unknown): Owner {
  const given = checkObject(name, value, ['type', 'id'])
  return {
    type: checkShownText(`${name}.type`, given.type, BOUNDS.ownerType.max),
    id: checkShownText(`${name}.id`, given.id, BOUNDS.ownerId.max),
  }
}

const MAX_METADATA_LENGTH = 131_072
const MAX_METADATA_DEPTH = 64

/** Requires metadata: a plain object that survives JSON, at most 131,072 characters and 64 levels of it. @throws TypeError */
export function checkMetadata(name: string, value: unknown): Metadata {
  if (!isPlainObject(value)) fail(name, 'a plain object', value)
  let text: string
  try {
    text = JSON.stringify(value) ?? ''
    if (text === '') fail(name, 'representable as JSON', value)
  } catch {
    throw new OptionError(name, 'be representable as JSON')
  }
  if (text.length > MAX_METADATA_LENGTH) {
    throw new OptionError(name, `be at most ${MAX_METADATA_LENGTH} characters of JSON`)
  }
  // What has survived JSON may be something else than what was given.
  const metadata: unknown = JSON.parse(text)
  if (!isPlainObject(metadata)) fail(name, 'a plain object', metadata)
  if (depthOf(metadata) > MAX_METADATA_DEPTH) {
    throw new OptionError(name, `not be nested deeper than ${MAX_METADATA_DEPTH} levels`)
  }
  return metadata
}

function depthOf(value: unknown, depth = 0): number {
  if (typeof value !== 'object' || value === null || depth > MAX_METADATA_DEPTH) return depth
  return Math.max(depth, ...Object.values(value).map((member) => depthOf(member, depth + 1)))
}

/**
 * Requires a record from a store, and copies its members; other columns are left out. A store that returns nonsense is
 * a broken part, and a broken part must not become an admission.
 *
 * @throws LatchkeyError `malformed_record`, which names the member and never its value.
 */
export function checkRecord(value: unknown): KeyRecord {
  return checkRecordFrom('the store returned', value)
}

/** The same for a record from elsewhere: `doing` begins the message. @throws LatchkeyError `malformed_record` */
export function checkRecordFrom(doing: string, value: unknown): KeyRecord {
  // RECORD_MEMBERS names every member, or it would not compile.
  return copyMembers(doing, 'a record', RECORD_MEMBERS, value) as unknown as KeyRecord
}

/**
 * The same for a key from a service, whose dates are dates already. Earlier services send no `status`: it is decided
 * here, as of now.
 *
 * @throws LatchkeyError `malformed_record`, which names the member and never its value.
 */
export function checkApiKey(value: unknown): ApiKey {
  const { status, ...rest } = copyMembers('the service answered', 'an API key', API_KEY_MEMBERS, value)
  const apiKey = rest as unknown as Omit<ApiKey, 'status'>
  return deepFreeze({ ...apiKey, status: (status as KeyStatus | undefined) ?? keyStatus(apiKey) })
}

function copyMembers(
  doing: string,
  what: string,
  members: Readonly<Record<string, (value: unknown) => boolean>>,
  value: unknown,
): Record<string, unknown> {
  if (!isObject(value)) throw new LatchkeyError('malformed_record', `${doing} ${describe(value)} as ${what}`)
  const copy: Record<string, unknown> = {}
  for (const [member, isRight] of Object.entries(members)) {
    copy[member] = value[member]
    if (isRight(copy[member])) continue
    const problem = `${doing} ${what} whose "${member}" is ${describe(copy[member])}`
    throw new LatchkeyError('malformed_record', problem)
  }
  return copy
}

const isText = (value: unknown) => typeof value === 'string' && value !== ''
const isTextOrNull = (value: unknown) => value === null || typeof value === 'string'
const isDateOrNull = (value: unknown) => value === null || isValidDate(value)
const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0
const isTextList = (value: unknown) =>
  Array.isArray(value) && value.every((entry) => typeof entry === 'string')

/** Whether a store may answer this as a quota. */
export function isQuotaRecord(value: unknown): value is QuotaRecord {
  if (!isObject(value)) return false
  return [value.remaining, value.epoch, value.allotted].every(isCount) && isDateOrNull(value.nextRefillAt)
}

const RECORD_MEMBERS: { readonly [member in keyof KeyRecord]: (value: unknown) => boolean } = {
  id: isText,
  lookup: isText,
  digest: isText,
  lineageId: isText,
  name: (value) => typeof value === 'string',
  prefix: (value) => typeof value === 'string',
  hint: (value) => typeof value === 'string',
  owner: (value) => isObject(value) && isText(value.type) && isText(value.id),
  createdBy: isTextOrNull,
  permissions: (value) => isObject(value) && Object.values(value).every(isTextList),
  metadata: isObject,
  enabled: (value) => typeof value === 'boolean',
  rateLimits: (value) => value === null || Array.isArray(value),
  quota: (value) => value === null || isQuotaRecord(value),
  allowedIps: (value) => value === null || isTextList(value),
  createdAt: isValidDate,
  updatedAt: isValidDate,
  expiresAt: isDateOrNull,
  idleExpiryMs: (value) => value === null || isCount(value),
  usageCount: isCount,
  lastUsedAt: isDateOrNull,
  lastUsedIp: isTextOrNull,
  revokedAt: isDateOrNull,
  revokedBy: isTextOrNull,
  revokedReason: isTextOrNull,
  rotatedFrom: isTextOrNull,
  rotatedTo: isTextOrNull,
  version: (value) => isCount(value) && (value as number) >= 1,
}

const { lookup: _lookup, digest: _digest, ...SHOWN_MEMBERS } = RECORD_MEMBERS

const API_KEY_MEMBERS: { readonly [member in keyof ApiKey]: (value: unknown) => boolean } = {
  ...SHOWN_MEMBERS,
  status: (value) => value === undefined || KEY_STATUSES.includes(value as KeyStatus),
  quota: (value) =>
    value === null || (isObject(value) && isCount(value.remaining) && isDateOrNull(value.nextRefillAt)),
}
