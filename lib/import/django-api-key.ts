import type { ImportFormat } from '../core/keys/imported-format.ts'
import type { ImportedKey } from '../core/keys/imported-key.ts'
import type { Owner } from '../core/keys/record.ts'
import { checkFunction, checkObject } from '../internal/options.ts'
import { readDate, readFlag, readName } from './read-column.ts'

/** A row of the table of djangorestframework-api-key, 3.0 and later, or of a model derived from its `AbstractAPIKey`. */
export interface DjangoApiKeyRow {
  /** The part of the key before the `.`. */
  prefix: string
  /** `sha512$$` and the SHA-512 of the whole key in hexadecimal. */
  hashed_key: string
  name: string
  created?: unknown
  expiry_date?: unknown
  revoked?: unknown
}

export interface DjangoApiKeyFormatOptions<Row extends DjangoApiKeyRow> {
  /** Returns the owner of a row's key. The package itself does not store one. */
  owner: (row: Row) => Owner
}

const KEY = /^([^.\s]{1,64})\.[^.\s]{16,}$/
const PREFIX = /^[^.\s]{1,64}$/
const SHA512 = /^sha512\$\$([0-9a-f]{128})$/

/**
 * Imports the keys of djangorestframework-api-key, `<prefix>.<secret>`. A revoked key stays revoked.
 *
 * Release 2 stored digests of Django's password hashers. Such rows are an error here; using the key once with release 3
 * converts its row.
 *
 * Source: `src/rest_framework_api_key/crypto.py` of djangorestframework-api-key 3.
 */
export function djangoApiKeyFormat<Row extends DjangoApiKeyRow = DjangoApiKeyRow>(
  options: DjangoApiKeyFormatOptions<Row>,
): ImportFormat<Row> {
  checkObject('options', options, ['owner'])
  checkFunction('owner', options.owner)

  function read(row: Row): ImportedKey {
    const prefix = readName('prefix', row.prefix)
    if (!PREFIX.test(prefix))
      throw new TypeError('the column "prefix" must be the part of the key before the "."')
    const [, value] = SHA512.exec(readName('hashed_key', row.hashed_key)) ?? []
    if (value === undefined) {
      throw new TypeError('the column "hashed_key" must be "sha512$$" and 128 hexadecimal digits')
    }
    const createdAt = readDate('created', row.created) ?? new Date()
    return {
      format: 'django-api-key',
      lookup: prefix,
      digest: { hash: 'sha512', value },
      owner: options.owner(row),
      name: readName('name', row.name),
      hint: `${prefix}.`,
      createdAt,
      expiresAt: readDate('expiry_date', row.expiry_date),
      // When that was the table does not say: no later than now, no earlier than its creation.
      revokedAt: readFlag('revoked', row.revoked, false) ? createdAt : null,
    }
  }

  return { name: 'django-api-key', lookup: (key) => KEY.exec(key)?.[1] ?? null, read }
}
