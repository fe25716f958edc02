import type { ImportFormat } from '../core/keys/imported-format.ts'
import type { ImportedKey } from '../core/keys/imported-key.ts'
import type { Permissions } from '../core/keys/permissions.ts'
import type { Owner } from '../core/keys/record.ts'
import { checkFunction, checkObject, describe } from '../internal/options.ts'
import { readDate, readJson, readName } from './read-column.ts'

/** A row of Laravel Sanctum's table `personal_access_tokens`. */
export interface SanctumRow {
  id: number | bigint | string
  tokenable_type: string
  tokenable_id: number | bigint | string
  name: string
  /** The SHA-256, in hexadecimal, of the part of the token after the `|`. */
  token: string
  /** JSON: a list of abilities. */
  abilities?: unknown
  last_used_at?: unknown
  expires_at?: unknown
  created_at?: unknown
  updated_at?: unknown
}

export interface SanctumFormatOptions {
  /**
   * Returns the owner of a token.
   *
   * @default the last part of `tokenable_type` in lower case and `tokenable_id`: a token of `App\\Models\\User` 7 belongs to
   * `{ type: 'user', id: '7' }`
   */
  owner?: (row: SanctumRow) => Owner
  /**
   * Turns a token's abilities into permissions.
   *
   * @default `*` is `{ '*': ['*'] }` and `projects:read` is `{ projects: ['read'] }`; an ability of another form is an error
   */
  permissions?: (abilities: readonly string[]) => Permissions
}

/** Laravel looks up a token by the part before the `|`. */
const ID = /^[A-Za-z0-9-]{1,64}$/
const TOKEN = /^([A-Za-z0-9-]{1,64})\|[^|]{20,}$/

/**
 * Imports the tokens of Laravel Sanctum, `<id>|<token>`. Dates without a zone count as UTC.
 *
 * Source: `src/PersonalAccessToken.php` and `src/HasApiTokens.php` of laravel/sanctum 4.
 */
export function sanctumFormat(options: SanctumFormatOptions = {}): ImportFormat<SanctumRow> {
  checkObject('options', options, ['owner', 'permissions'])
  const { owner = ownerOf, permissions = permissionsOf } = options
  checkFunction('owner', owner)
  checkFunction('permissions', permissions)

  function read(row: SanctumRow): ImportedKey {
    const id = readName('id', row.id)
    if (!ID.test(id)) throw new TypeError('the column "id" must be a number or a UUID')
    const createdAt = readDate('created_at', row.created_at)
    const updatedAt = readDate('updated_at', row.updated_at)
    return {
      format: 'sanctum',
      lookup: id,
      digest: { hash: 'sha256', value: readName('token', row.token), of: { afterFirst: '|' } },
      owner: owner(row),
      name: readName('name', row.name),
      hint: `${id}|`,
      permissions: permissions(abilitiesOf(row.abilities)),
      expiresAt: readDate('expires_at', row.expires_at),
      lastUsedAt: readDate('last_used_at', row.last_used_at),
      ...(createdAt && { createdAt }),
      ...(updatedAt && { updatedAt }),
    }
  }

  return { name: 'sanctum', lookup: (key) => TOKEN.exec(key)?.[1] ?? null, read }
}

function ownerOf(row: SanctumRow): Owner {
  const type = readName('tokenable_type', row.tokenable_type).split('\\').at(-1)?.toLowerCase() ?? ''
  return { type, id: readName('tokenable_id', row.tokenable_id) }
}

function abilitiesOf(column: unknown): readonly string[] {
  const abilities = readJson('abilities', column)
  if (abilities === null) return []
  if (Array.isArray(abilities) && abilities.every((ability) => typeof ability === 'string')) return abilities
  throw new TypeError(`the column "abilities" must be a JSON list of strings, and is ${describe(abilities)}`)
}

function permissionsOf(abilities: readonly string[]): Permissions {
  const permissions = new Map<string, string[]>()
  for (const ability of abilities) {
    const [resource, action, ...more] = ability === '*' ? ['*', '*'] : ability.split(':')
    if (!resource || !action || more.length > 0) {
      throw new TypeError('an ability is neither "*" nor like "projects:read": set the option "permissions"')
    }
    permissions.set(resource, [...(permissions.get(resource) ?? []), action])
  }
  return Object.fromEntries(permissions)
}
