import { MAX_FOREIGN_KEY_LENGTH } from '../core/keys/imported-format.ts'
import { type CredentialReader, trimBlanks } from '../http/credential.ts'
import { linesOf } from '../http/header-lines.ts'
import type { RequestLike } from '../http/raw-request.ts'

/** What one header field presents. */
export type PrefixedKey =
  | { readonly kind: 'none' }
  | { readonly kind: 'one'; readonly key: string; readonly isWellFormed: boolean }
  | { readonly kind: 'several' }

/** Reads keys from one header field, each after a prefix. */
export interface PrefixedHeaderReader extends Pick<CredentialReader, 'schemes' | 'form' | 'isUsual'> {
  read(request: RequestLike): PrefixedKey
}

const NONE: PrefixedKey = Object.freeze({ kind: 'none' })
const SEVERAL: PrefixedKey = Object.freeze({ kind: 'several' })

/** An authentication scheme (RFC 9110 §11.1) and the spaces after it. */
const SCHEME_PREFIX = /^([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) +$/

const PRINTABLE = /^[\x20-\x7e]+$/

/** Separates the values of repeated fields that Node and proxies join. */
const SEPARATOR = /,[ \t]/

/**
 * Prepares reading. A prefix such as `Api-Key ` is a scheme and matches in any case; every other one matches literally.
 *
 * @param header in lower case
 */
export function createPrefixedHeaderReader(header: string, prefix: string): PrefixedHeaderReader {
  const scheme = SCHEME_PREFIX.exec(prefix)?.[1]
  const schemeStart = scheme?.toLowerCase()
  // Other schemes than ours pass by in these; any other field is there for keys alone.
  const isShared = header === 'authorization' || header === 'proxy-authorization'

  function read(request: RequestLike): PrefixedKey {
    let found = NONE
    for (const line of linesOf(request, header, keyOf)) {
      const key = readLine(line)
      if (key.kind === 'none') continue
      if (found.kind !== 'none') return SEVERAL
      found = key
    }
    return found
  }

  function keyOf(line: string): string | null {
    const found = readLine(line)
    if (found.kind === 'several') return trimBlanks(line)
    return found.kind === 'one' ? found.key : null
  }

  function readLine(line: string): PrefixedKey {
    const text = trimBlanks(line)
    const key = text === '' ? '' : strip(text)
    if (key === '' || (key === null && isShared)) return NONE
    if (key === null) return { kind: 'one', key: text, isWellFormed: false }
    if (SEPARATOR.test(key)) return SEVERAL
    return { kind: 'one', key, isWellFormed: key.length <= MAX_FOREIGN_KEY_LENGTH && PRINTABLE.test(key) }
  }

  /** The text after the prefix; null if the text does not begin with it. */
  function strip(text: string): string | null {
    if (schemeStart === undefined) {
      // The blank that a prefix may end in was trimmed.
      if (text === trimBlanks(prefix)) return ''
      return text.startsWith(prefix) ? trimBlanks(text.slice(prefix.length)) : null
    }
    if (text.slice(0, schemeStart.length).toLowerCase() !== schemeStart) return null
    const rest = text.slice(schemeStart.length)
    return rest === '' || rest.startsWith(' ') || rest.startsWith('\t') ? trimBlanks(rest) : null
  }

  const form = JSON.stringify(['prefixed', header, prefix])
  return { schemes: [scheme ?? 'Api-Key'], form, isUsual: false, read }
}
