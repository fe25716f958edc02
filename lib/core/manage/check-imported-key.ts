import { OptionError } from '../../internal/option-error.ts'
import {
  checkBoolean,
  checkDate,
  checkInteger,
  checkObject,
  checkShownText,
  checkText,
} from '../../internal/options.ts'
import { toDigestString } from '../digests/digest-coverage.ts'
import { type ImportedFormats, importedLookup } from '../keys/imported-format.ts'
import { parseKey } from '../keys/key-format.ts'
import { ID } from '../keys/key-id.ts'
import { checkSettings, type KeySettings, SETTINGS } from '../keys/key-settings.ts'
import { checkOwner, type Owner } from '../keys/record.ts'

const MEMBERS = Object.freeze([
  'format',
  'owner',
  'key',
  'lookup',
  'digest',
  'id',
  'createdBy',
  'prefix',
  'hint',
  'enabled',
  'createdAt',
  'updatedAt',
  'lastUsedAt',
  'usageCount',
  'revokedAt',
  ...SETTINGS,
])

/** An imported key, checked; what is not given is left to whoever makes a record of it. */
export interface CheckedImport {
  readonly settings: Partial<KeySettings> & { name: string }
  readonly owner: Owner
  readonly lookup: string
  /** What proves it: its digest, or its text that a digest is still to be made of. */
  readonly proof: { readonly digest: string } | { readonly key: string }
  readonly id: string | null
  readonly createdBy: string | null
  readonly prefix: string
  readonly hint: string
  readonly enabled: boolean
  readonly createdAt: Date
  readonly updatedAt: Date
  readonly lastUsedAt: Date | null
  readonly usageCount: number
  readonly revokedAt: Date | null
}

/** Requires an imported key. @throws TypeError naming the member, never its value. */
export function checkImport(value: unknown, formats: ImportedFormats, now: Date): CheckedImport {
  const given = checkObject('imported', value, MEMBERS)
  const format = checkText('format', given.format, 32)
  if (!formats.names.includes(format)) {
    throw new OptionError('format', 'be the name of one of the "formats" given to createApiKeys')
  }
  const { lookup, proof } = proofOf(format, given, formats)
  const name = checkShownText('name', given.name, 255)
  const createdAt = dateOf('createdAt', given.createdAt) ?? now
  return {
    lookup,
    proof,
    // What has expired may be imported: it is listed, and purged, like any other.
    settings: Object.assign(checkSettings(given, -Infinity), { name }),
    owner: checkOwner('owner', given.owner),
    id: idOf(given.id),
    createdBy: given.createdBy == null ? null : checkShownText('createdBy', given.createdBy, 255),
    prefix: visible('prefix', given.prefix, 32),
    hint: visible('hint', given.hint, 64),
    enabled: given.enabled === undefined ? true : checkBoolean('enabled', given.enabled),
    createdAt,
    updatedAt: dateOf('updatedAt', given.updatedAt) ?? createdAt,
    lastUsedAt: dateOf('lastUsedAt', given.lastUsedAt),
    usageCount: checkInteger('usageCount', given.usageCount ?? 0, 0, Number.MAX_SAFE_INTEGER),
    revokedAt: dateOf('revokedAt', given.revokedAt),
  }
}

/** What finds the key and what proves it: from its text, or as the other product kept it. */
function proofOf(
  format: string,
  { key, lookup, digest }: Record<string, unknown>,
  formats: ImportedFormats,
): Pick<CheckedImport, 'lookup' | 'proof'> {
  if (key === undefined) {
    return { lookup: importedLookup(format, lookup), proof: { digest: toDigestString('digest', digest) } }
  }
  if (typeof key !== 'string') throw new OptionError('key', 'be a string')
  const text = checkText('key', key, 512)
  if (parseKey(text))
    throw new TypeError('"key" has the shape of a native key, which no format ever receives')
  if (lookup !== undefined || digest !== undefined) {
    throw new TypeError('"lookup" and "digest" follow from "key": give them or the key, not both')
  }
  const found = formats.lookupBy(format, text)
  if (found === null) throw new OptionError('key', 'have the shape of its "format"')
  return { lookup: found, proof: { key: text } }
}

function idOf(value: unknown): string | null {
  if (value === undefined) return null
  const id = checkText('id', value, 64)
  if (!ID.test(id)) throw new OptionError('id', 'be 1 to 64 letters, digits, "_" and "-"')
  return id
}

function visible(name: string, value: unknown, maxLength: number): string {
  if (value === undefined || value === '') return ''
  const text = checkText(name, value, maxLength)
  if (!/^[\x20-\x7e]+$/.test(text)) throw new OptionError(name, 'be visible ASCII characters')
  return text
}

function dateOf(name: string, value: unknown): Date | null {
  return value === undefined || value === null ? null : new Date(checkDate(name, value))
}
