import type { ImportedDigest } from '../digests/digest-coverage.ts'
import type { KeySettings } from './key-settings.ts'
import type { Owner } from './record.ts'

/** A key that was issued elsewhere, for `keys.import`. Give its text (`key`) or its `digest`. */
export interface ImportedKey extends KeySettings {
  /** The name of one of the `formats` given to `createApiKeys`. That format finds the key when it is presented. */
  format: string
  /** Who owns the key. */
  owner: Owner
  /**
   * The text of the key, if known; `lookup` and `digest` follow from it. Latchkey stores only its digest, in the
   * current scheme.
   */
  key?: string
  /** What the format's `lookup` returns for the key. */
  lookup?: string
  /** The digest that the other product stored. */
  digest?: ImportedDigest
  /**
   * The id of the key: 1 to 64 letters, digits, `_` and `-`.
   *
   * @default a new one
   */
  id?: string
  /** @default null */
  createdBy?: string | null
  /**
   * The beginning of its text, for people and for `verify({ prefix })`, at most 32 visible ASCII characters.
   *
   * @default ''
   */
  prefix?: string
  /**
   * Helps people recognise the key, at most 64 visible ASCII characters. Not secret: everyone who lists keys sees it.
   *
   * @default ''
   */
  hint?: string
  /** @default true */
  enabled?: boolean
  /** @default now */
  createdAt?: Date
  /** @default `createdAt` */
  updatedAt?: Date
  /** @default null */
  lastUsedAt?: Date | null
  /** How often it was used. @default 0 */
  usageCount?: number
  /** When it was revoked. It stays revoked. @default null */
  revokedAt?: Date | null
}
