import type { Forgetting, KeyChange } from '../../core/keys/key-store.ts'
import type { KeyRecord } from '../../core/keys/record.ts'
import type { QuotaRecord } from '../../core/limits/quota.ts'
import { LatchkeyError } from '../../errors.ts'
import { isValidDate } from '../../internal/any-realm.ts'
import { describe, isObject, isStorable } from '../../internal/options.ts'
import type { Cell, Row } from './plan.ts'

/** How members of one kind are written to a column and read from it. */
interface Kind {
  write(value: unknown, member: string): Cell
  /** Undefined if the store never writes such a cell. */
  read(cell: unknown): unknown
}

const text: Kind = {
  write(value, member) {
    if (typeof value !== 'string') throw new TypeError(`"${member}" must be a string`)
    if (isStorable(value)) return value
    throw new LatchkeyError('unsupported', `"${member}" holds a NUL or half of a surrogate pair`)
  },
  read: (cell) => (typeof cell === 'string' ? cell : undefined),
}

/** Whole numbers. Depending on its settings, a driver returns 64 bits as a number, a string or a bigint. */
const integer: Kind = {
  write(value, member) {
    if (Number.isSafeInteger(value)) return value as number
    throw new TypeError(`"${member}" must be a whole number`)
  },
  read(cell) {
    const isNumeric = typeof cell === 'string' ? /^-?\d+$/.test(cell) : /^number|bigint$/.test(typeof cell)
    return isNumeric && Number.isSafeInteger(Number(cell)) ? Number(cell) : undefined
  },
}

/** Milliseconds since the epoch, which no time zone, parser or driver setting changes. */
const time: Kind = {
  write(value, member) {
    if (isValidDate(value)) return value.getTime()
    throw new TypeError(`"${member}" must be a valid Date`)
  },
  read(cell) {
    const at = new Date((integer.read(cell) as number | undefined) ?? NaN)
    return Number.isNaN(at.getTime()) ? undefined : at
  },
}

const flag: Kind = {
  write: (value) => value === true,
  read(cell) {
    if ([true, 1, 1n, '1', 't', 'true'].includes(cell as never)) return true
    return [false, 0, 0n, '0', 'f', 'false'].includes(cell as never) ? false : undefined
  },
}

/** JSON as text: it escapes characters that databases refuse, and keeps the order of members. */
function json(isRight: (value: unknown) => boolean): Kind {
  return {
    write(value, member) {
      if (!isRight(value)) throw new TypeError(`"${member}" must be ${describe(isRight({}) ? {} : [])}`)
      return JSON.stringify(value)
    },
    read(cell) {
      if (typeof cell !== 'string') return undefined
      try {
        const value: unknown = JSON.parse(cell)
        return isRight(value) ? value : undefined
      } catch {
        return undefined
      }
    },
  }
}

function orNull(kind: Kind): Kind {
  return {
    write: (value, member) => (value === null ? null : kind.write(value, member)),
    read: (cell) => (cell === null ? null : kind.read(cell)),
  }
}

interface Column {
  readonly column: string
  readonly kind: Kind
}

type FlatRecord = Omit<KeyRecord, 'owner' | 'quota'> & { ownerType: string; ownerId: string }

/** Every member of a record with its column. */
const KEY_COLUMNS: { readonly [member in keyof FlatRecord]: Column } = {
  id: { column: 'id', kind: text },
  lookup: { column: 'lookup', kind: text },
  digest: { column: 'digest', kind: text },
  lineageId: { column: 'lineage_id', kind: text },
  name: { column: 'name', kind: text },
  prefix: { column: 'prefix', kind: text },
  hint: { column: 'hint', kind: text },
  ownerType: { column: 'owner_type', kind: text },
  ownerId: { column: 'owner_id', kind: text },
  createdBy: { column: 'created_by', kind: orNull(text) },
  permissions: { column: 'permissions', kind: json(isObject) },
  metadata: { column: 'metadata', kind: json(isObject) },
  enabled: { column: 'enabled', kind: flag },
  rateLimits: { column: 'rate_limits', kind: orNull(json(Array.isArray)) },
  allowedIps: { column: 'allowed_ips', kind: orNull(json(Array.isArray)) },
  createdAt: { column: 'created_at_ms', kind: time },
  updatedAt: { column: 'updated_at_ms', kind: time },
  expiresAt: { column: 'expires_at_ms', kind: orNull(time) },
  idleExpiryMs: { column: 'idle_expiry_ms', kind: orNull(integer) },
  usageCount: { column: 'usage_count', kind: integer },
  lastUsedAt: { column: 'last_used_at_ms', kind: orNull(time) },
  lastUsedIp: { column: 'last_used_ip', kind: orNull(text) },
  revokedAt: { column: 'revoked_at_ms', kind: orNull(time) },
  revokedBy: { column: 'revoked_by', kind: orNull(text) },
  revokedReason: { column: 'revoked_reason', kind: orNull(text) },
  rotatedFrom: { column: 'rotated_from', kind: orNull(text) },
  rotatedTo: { column: 'rotated_to', kind: orNull(text) },
  version: { column: 'version', kind: integer },
}

const QUOTA_COLUMNS: { readonly [member in keyof QuotaRecord]: Column } = {
  remaining: { column: 'remaining', kind: integer },
  epoch: { column: 'epoch', kind: integer },
  allotted: { column: 'allotted', kind: integer },
  refill: { column: 'refill', kind: orNull(json(isObject)) },
  nextRefillAt: { column: 'next_refill_at_ms', kind: orNull(time) },
}

/** The columns of the table of keys, in their order. */
export const keyColumnNames: readonly string[] = Object.values(KEY_COLUMNS).map(({ column }) => column)
/** The columns of a quota, in their order. */
export const quotaColumnNames: readonly string[] = Object.values(QUOTA_COLUMNS).map(({ column }) => column)
/** The prefix of these columns in a row that also has those of a key. */
export const QUOTA_PREFIX = 'quota_'

const KEY_MEMBERS = Object.keys(KEY_COLUMNS) as (keyof FlatRecord)[]
const QUOTA_MEMBERS = Object.keys(QUOTA_COLUMNS) as (keyof QuotaRecord)[]

/**
 * The row of a record, in the order of `keyColumnNames`. It shares nothing with the record.
 *
 * @throws LatchkeyError `unsupported` for a text that no database holds.
 */
export function toKeyRow(record: KeyRecord): readonly Cell[] {
  return KEY_MEMBERS.map((member) => KEY_COLUMNS[member].kind.write(memberOf(record, member), member))
}

function memberOf(record: KeyRecord, member: keyof FlatRecord): unknown {
  if (member === 'ownerType') return record.owner.type
  return member === 'ownerId' ? record.owner.id : record[member]
}

/** The row of a quota, in the order of `quotaColumnNames`. */
export function toQuotaRow(quota: QuotaRecord): readonly Cell[] {
  return QUOTA_MEMBERS.map((member) => QUOTA_COLUMNS[member].kind.write(quota[member], member))
}

/** The columns that a change sets, except the version, the quota and the time of revocation. */
export function toChangedColumns(change: KeyChange | Forgetting): Record<string, Cell> {
  const {
    quota: _quota,
    revokedAt: _revokedAt,
    ...rest
  }: KeyChange & Pick<Forgetting, 'createdBy' | 'lastUsedIp'> = change
  const given: Partial<FlatRecord> = rest
  const columns: Record<string, Cell> = {}
  for (const member of KEY_MEMBERS) {
    if (given[member] === undefined) continue
    const { column, kind } = KEY_COLUMNS[member]
    columns[column] = kind.write(given[member], member)
  }
  return columns
}

/** A text as a cell. @throws LatchkeyError `unsupported` for a text that no database holds. */
export function toTextCell(value: string, member: string): Cell {
  return text.write(value, member)
}

/** The record of a row with its quota. @throws LatchkeyError `malformed_record`, naming the column. */
export function toKeyRecord(row: Row): KeyRecord {
  const { ownerType, ownerId, ...rest } = toMembers<FlatRecord>(KEY_COLUMNS, row)
  const isLimited = row[`${QUOTA_PREFIX}removed`] !== null && !isRemoved(row, QUOTA_PREFIX)
  return {
    ...rest,
    owner: { type: ownerType, id: ownerId },
    quota: isLimited ? toQuotaRecord(row, QUOTA_PREFIX) : null,
  }
}

/** The quota of a row, even if it was removed: its epoch still counts. @throws LatchkeyError `malformed_record` */
export function toQuotaRecord(row: Row, prefix = ''): QuotaRecord {
  return toMembers<QuotaRecord>(QUOTA_COLUMNS, row, prefix)
}

/** Whether the quota of a row was removed. @throws LatchkeyError `malformed_record` */
export function isRemoved(row: Row, prefix = ''): boolean {
  return readCell({ column: 'removed', kind: flag }, row, prefix) as boolean
}

function toMembers<T>(columns: { readonly [member in keyof T]: Column }, row: Row, prefix = ''): T {
  const members: Record<string, unknown> = {}
  for (const member in columns) members[member] = readCell(columns[member], row, prefix)
  return members as T
}

function readCell({ column, kind }: Column, row: Row, prefix: string): unknown {
  const value = kind.read(row[prefix + column])
  if (value !== undefined) return value
  const problem = `a row cannot be read: the column "${column}" holds a value that Latchkey never writes`
  throw new LatchkeyError('malformed_record', problem)
}
