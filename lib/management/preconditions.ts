import type { ApiKey } from '../core/keys/record.ts'
import { invalidRequest } from './refusal.ts'

/** The entity tag of a key: its version. */
export function writeETag({ version }: Pick<ApiKey, 'version'>): string {
  return `"${version}"`
}

/** The entity tags of `If-Match` (RFC 9110 §13.1.1); null for any version. @throws LatchkeyError `invalid_request` */
export function readIfMatch(given: string | string[] | undefined): readonly string[] | null {
  if (given === undefined) return null
  const text = String(given).trim()
  if (text === '*') return null
  const tags = text.split(',').map((tag) => tag.trim())
  if (text.length <= 1_000 && tags.every((tag) => /^(?:W\/)?"[\x21\x23-\x7e]*"$/.test(tag))) return tags
  throw invalidRequest('If-Match', 'entity tags, such as "3"')
}

/** Weak tags never match here (RFC 9110 §8.8.3.2). */
export function matchesVersion(tags: readonly string[] | null, version: number): boolean {
  return tags === null || tags.includes(writeETag({ version }))
}
