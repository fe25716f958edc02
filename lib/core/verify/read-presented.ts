import type { DependencyRunner } from '../faults.ts'
import type { ImportedFormats } from '../keys/imported-format.ts'
import { hasRightChecksum, parseKey } from '../keys/key-format.ts'
import type { ExplainedKey } from './explanation.ts'

/** What is to be explained, as far as it says itself. */
export type Presented =
  | { readonly kind: 'id'; readonly id: string }
  | { readonly kind: 'native'; readonly key: string; readonly prefix: string; readonly keyId: string }
  | { readonly kind: 'imported'; readonly key: string; readonly lookups: readonly string[] }
  | { readonly kind: 'malformed'; readonly flaw: 'shape' | 'white_space' | 'checksum' }

/** @throws LatchkeyError `unavailable` when a format fails */
export function readPresented(
  { key, id }: ExplainedKey,
  { formats, guard }: { readonly formats: ImportedFormats; readonly guard: DependencyRunner },
): Presented {
  if (key === undefined) return { kind: 'id', id: id as string }
  const parsed = parseKey(key)
  if (parsed) {
    return hasRightChecksum(key)
      ? { kind: 'native', key, ...parsed }
      : { kind: 'malformed', flaw: 'checksum' }
  }
  try {
    const lookups = formats.lookupsOf(key)
    if (lookups.length > 0) return { kind: 'imported', key, lookups }
    const trimmed = key.trim()
    const isKeyWithin =
      trimmed !== key && (parseKey(trimmed) !== null || formats.lookupsOf(trimmed).length > 0)
    return { kind: 'malformed', flaw: isKeyWithin ? 'white_space' : 'shape' }
  } catch (error) {
    throw guard.toError('format', error)
  }
}
