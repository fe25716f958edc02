import type { ImportedDigest } from '../digests/digest-coverage.ts'
import type { KeySettings } from './key-settings.ts'
import type { Owner } from './record.ts'

/** A key that was issued elsewhere, as `keys.import` takes it. Its text is enough; its digest will do. */
export interface ImportedKey extends KeySettings {
  /** The name of one of the `formats` given to `createApiKeys`: what finds the key when it is presented. */
  format: string
  /** Whom the key belongs to. */
  owner: Owner
  /** The text of the key, where it is known: `lookup` and `digest` follow from it. Its digest is kept, by the current scheme. */
  key?: string
  /** What the format's `lookup` answers for the key. */
  lookup?: string
  /** The digest that the other product kept. */
  digest?: ImportedDigest
  /**
   * The identifier that the key keeps: 1 to 64 letters, digits, `_` and `-`.
   *
   * @default a new one
   */
  id?: string
  /** @default null */
  createdBy?: string | null
  /**
   * What its text begins with, for people and for `verify({ prefix })`, at most 32 visible ASCII characters.
   *
   * @default ''
   */
  prefix?: string
  /**
   * By what a person recognises it, at most 64 visible ASCII characters. Not secret: everyone who lists keys sees it.
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
  /** When it was revoked; it stays so. @default null */
  revokedAt?: Date | null
}
