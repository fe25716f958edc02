import { schemeOf } from '../../core/digests/digest.ts'
import { ID } from '../../core/keys/key-id.ts'
import { checkSettings } from '../../core/keys/key-settings.ts'
import { checkOwner, checkRecordFrom, type KeyRecord } from '../../core/keys/record.ts'
import { checkQuota } from '../../core/limits/quota.ts'
import { LatchkeyError } from '../../errors.ts'
import { messageOf } from '../../internal/any-realm.ts'
import { checkInteger, isPlainObject } from '../../internal/options.ts'

/** The first line of an export: what the file is, and how to read it. */
export const HEADER = Object.freeze({ latchkey: 'keys', version: 1 })

/** The last line: without it, the file was cut off. */
export interface Footer {
  readonly end: true
  readonly count: number
}

/** A record as a line of JSON. */
export function writeRecord(record: KeyRecord): string {
  return JSON.stringify(record)
}

export function isHeader(value: unknown): value is { latchkey: 'keys'; version: unknown } {
  return isPlainObject(value) && value.latchkey === HEADER.latchkey
}

export function isFooter(value: unknown): value is Footer {
  return isPlainObject(value) && value.end === true && Number.isSafeInteger(value.count)
}

const DATES = ['createdAt', 'updatedAt', 'expiresAt', 'lastUsedAt', 'revokedAt']
/** What every store can hold as a lookup or a digest. */
const VISIBLE = /^[\x21-\x7e]{1,255}$/

/** Each change adds one, and no store keeps a number beyond the safe integers. */
const MAX_VERSION = 2 ** 31
/** A higher one takes seconds of a core for each comparison. */
const MAX_BCRYPT_COST = 16
const BCRYPT_COST = /\$2[aby]\$(\d+)\$/

/** Reads a record of an export. @throws LatchkeyError `invalid_import`, naming the member and never its value. */
export function readRecord(value: unknown): KeyRecord {
  try {
    return checkMembers(checkRecordFrom('the line holds', withDates(value)))
  } catch (error) {
    throw new LatchkeyError('invalid_import', messageOf(error), { cause: error, stack: false })
  }
}

/** JSON has no dates. */
export function withDates(value: unknown, names: readonly string[] = DATES): unknown {
  if (!isPlainObject(value)) return value
  const revived: Record<string, unknown> = { ...value }
  for (const name of names) if (typeof value[name] === 'string') revived[name] = new Date(value[name])
  const { quota } = value
  if (isPlainObject(quota) && typeof quota.nextRefillAt === 'string') {
    revived.quota = { ...quota, nextRefillAt: new Date(quota.nextRefillAt) }
  }
  return revived
}

/** What the store would keep and every later verification would fail on. @throws TypeError naming the member. */
function checkMembers(record: KeyRecord): KeyRecord {
  const { quota, ...rest } = record
  if (!ID.test(record.id) || !ID.test(record.lineageId))
    throw new TypeError('"id" and "lineageId" must be ids of keys')
  if (!VISIBLE.test(record.lookup)) throw new TypeError('"lookup" must be visible ASCII characters')
  if (!VISIBLE.test(record.digest) || schemeOf(record.digest).scheme === 'unknown') {
    throw new TypeError('"digest" must name its scheme')
  }
  checkInteger('version', record.version, 1, MAX_VERSION)
  if (Number(BCRYPT_COST.exec(record.digest)?.[1] ?? 0) > MAX_BCRYPT_COST) {
    throw new TypeError(`"digest" must have a bcrypt cost of at most ${MAX_BCRYPT_COST}`)
  }
  checkOwner('owner', record.owner)
  // What has expired is moved like any other.
  checkSettings(rest, -Infinity)
  if (quota) checkQuota('quota', { remaining: quota.remaining, refill: quota.refill })
  return record
}
