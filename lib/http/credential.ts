import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import { OptionError } from '../internal/option-error.ts'
import { checkArray, checkBoolean, fail } from '../internal/options.ts'
import { linesOf } from './header-lines.ts'
import type { RequestLike } from './raw-request.ts'

/** Where a request carries its key. Keys come only in header fields, never in the query, the body or a cookie. */
export interface CredentialOptions {
  /**
   * The names of the header fields that carry a bare key, in any case.
   *
   * @default ['X-Api-Key']
   */
  headers?: readonly string[]
  /**
   * The scheme of `Authorization` that carries a key, in any case. `false` does not read that scheme.
   *
   * @default 'Api-Key'
   */
  scheme?: string | false
  /**
   * Which tokens of `Authorization: Bearer` count as keys. By default, those that begin with the prefix of `keys`;
   * other tokens, such as JWTs, are ignored. `true` also accepts tokens in the shape of one of the `formats` of `keys`.
   * An array lists other prefixes instead. `false` reads no Bearer token.
   *
   * @default tokens with the prefix of `keys`
   */
  bearer?: boolean | readonly string[]
}

/** What a request presents. */
export type Credential =
  | { readonly kind: 'none' }
  | { readonly kind: 'one'; readonly key: string }
  | { readonly kind: 'several' }

export interface CredentialReader {
  /** The schemes named in challenges. */
  readonly schemes: readonly string[]
  /** Identifies what it reads: two readers of one form read the same. */
  readonly form: string
  /** Whether it reads keys from the default places. */
  readonly isUsual: boolean
  read(request: RequestLike): Credential
  /**
   * Where to send keys: for a request without a key whose `Authorization: Bearer` begins like one of the application's
   * keys. Null for any other request. It looks only at the text, not whether such a key exists.
   */
  hintFor(request: RequestLike): string | null
}

const NONE: Credential = Object.freeze({ kind: 'none' })
const SEVERAL: Credential = Object.freeze({ kind: 'several' })

/** The name of a header field or a scheme (RFC 9110 §5.6.2). */
export const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$/

/** Whether a text names a header field, rather than a property that every object has. */
export function isFieldName(text: string): boolean {
  return TOKEN.test(text) && !(text.toLowerCase() in Object.prototype)
}

const DEFAULT_HEADERS = Object.freeze(['X-Api-Key'])
const DEFAULT_SCHEME = 'Api-Key'

/** The names of {@link CredentialOptions}. */
export const CREDENTIAL_OPTIONS: readonly (keyof CredentialOptions)[] = Object.freeze([
  'headers',
  'scheme',
  'bearer',
])

/** How keys are read in this process. */
interface ReadersInUse {
  /** By their form. */
  readonly byForm: Map<string, NotedReaders>
  /** Numbers the recognisers of imported keys, for use in forms. */
  readonly recognisers: WeakMap<object, number>
  recogniserCount: number
}

interface NotedReaders extends Pick<CredentialReader, 'read'> {
  readonly isUsual?: boolean
  add?(reader: Pick<CredentialReader, 'read'>): void
}

/** Under `Symbol.for`: a guard of one copy of the package sees the keys that the middleware of another reads. */
const READERS = Symbol.for('latchkey.readers')

const inUse = sharedReaders()
/** Held apart: Jest deletes the members of globals after a test file, and readers are dropped later. */
const { byForm } = inUse

function sharedReaders(): ReadersInUse {
  const scope = globalThis as { [READERS]?: ReadersInUse }
  if (!scope[READERS]) {
    const value: ReadersInUse = { byForm: new Map(), recognisers: new WeakMap(), recogniserCount: 0 }
    Object.defineProperty(scope, READERS, { value })
  }
  return scope[READERS] as ReadersInUse
}

/**
 * Tells guards where this process reads keys: a middleware may read keys where a guard would not look. A form is known
 * while any reader of it is in use: an application may create middlewares for every request.
 */
export function registerReader(reader: Pick<CredentialReader, 'form' | 'isUsual' | 'read'>): void {
  const known = byForm.get(reader.form)
  if (!known) byForm.set(reader.form, readersOfOneForm(reader))
  // That of a release which held every reader for ever has no such method.
  else known.add?.(reader)
}

/** Reads with any reader of this form that is still in use; they are all alike. */
function readersOfOneForm(first: Pick<CredentialReader, 'form' | 'isUsual' | 'read'>): NotedReaders {
  const { form, isUsual } = first
  const readers = new Set<WeakRef<Pick<CredentialReader, 'read'>>>()
  const dropped = new FinalizationRegistry<WeakRef<Pick<CredentialReader, 'read'>>>((reader) => {
    readers.delete(reader)
    if (readers.size === 0 && byForm.get(form) === noted) byForm.delete(form)
  })
  const noted = {
    isUsual,
    read(request: RequestLike) {
      for (const reader of readers) {
        const held = reader.deref()
        if (held) return held.read(request)
      }
      return NONE
    },
    add(reader: Pick<CredentialReader, 'read'>) {
      const reference = new WeakRef(reader)
      readers.add(reference)
      dropped.register(reader, reference)
    },
  }
  noted.add(first)
  return noted
}

/** Whether any middleware of this process reads a key from the request: by default, or only because of its options. */
export function presentsAnyKey(request: RequestLike): 'by default' | 'by options' | null {
  let found: 'by options' | null = null
  for (const { read, isUsual } of byForm.values()) {
    if (read(request).kind === 'none') continue
    if (isUsual) return 'by default'
    found = 'by options'
  }
  return found
}

/**
 * Prepares reading.
 *
 * @throws TypeError naming the option.
 */
export function createCredentialReader(
  options: CredentialOptions,
  keys: Pick<ApiKeyVerifier, 'prefix' | 'isImportedKey'> | undefined,
): CredentialReader {
  const names = checkHeaders(options.headers ?? DEFAULT_HEADERS)
  const scheme = checkScheme(options.scheme ?? DEFAULT_SCHEME)
  const prefixes = checkBearer(options.bearer ?? keys?.prefix !== undefined, keys?.prefix)
  const isImportedKey = options.bearer === true ? keys?.isImportedKey : undefined
  const readsAuthorization = scheme !== false || prefixes.length > 0
  const schemeStart = scheme === false ? null : scheme.toLowerCase()
  const fields = [...names, ...(readsAuthorization ? ['authorization'] : [])].map((name) => ({
    name,
    keyOf: (line: string) => readLine(name, line),
  }))

  /** The credential in one header line; null if there is none. */
  function readLine(name: string, value: string): string | null {
    const text = trimBlanks(value)
    if (text === '') return null
    if (name !== 'authorization') return text
    const space = text.search(/[ \t]/)
    const given = (space === -1 ? text : text.slice(0, space)).toLowerCase()
    const rest = space === -1 ? '' : trimBlanks(text.slice(space))
    if (rest === '') return null
    if (given === schemeStart) return rest
    if (given !== 'bearer' || prefixes.length === 0) return null
    return prefixes.some((start) => rest.startsWith(start)) || isImportedKey?.(rest) ? rest : null
  }

  function read(request: RequestLike): Credential {
    let found = NONE
    for (const { name, keyOf } of fields) {
      for (const line of linesOf(request, name, keyOf)) {
        const key = keyOf(line)
        if (key === null) continue
        if (found.kind !== 'none') return SEVERAL
        found = { kind: 'one', key }
      }
    }
    return found
  }

  const ownStart = keys?.prefix === undefined ? null : `${keys.prefix}_`
  const hint = describePlaces(options.headers ?? DEFAULT_HEADERS, scheme)

  function hintFor(request: RequestLike): string | null {
    if (ownStart === null) return null
    const isKeyLike = (line: string) => bearerToken(line)?.startsWith(ownStart)
    return linesOf(request, 'authorization', bearerToken).some(isKeyLike) ? hint : null
  }

  const form = JSON.stringify([names, scheme, prefixes, isImportedKey && numberOf(isImportedKey)])
  const schemes = [...(scheme === false ? [] : [scheme]), ...(prefixes.length > 0 ? ['Bearer'] : [])]
  // A 401 has to name one (RFC 9110 §15.5.2), also where keys come in fields of their own alone.
  const usualPrefixes = ownStart === null ? [] : [ownStart]
  const isUsual = form === JSON.stringify([['x-api-key'], DEFAULT_SCHEME, usualPrefixes, undefined])
  return { schemes: schemes.length > 0 ? schemes : [DEFAULT_SCHEME], form, isUsual, read, hintFor }
}

function bearerToken(line: string): string | null {
  return /^[ \t]*bearer[ \t]+(.+)$/i.exec(line)?.[1] ?? null
}

function describePlaces(names: readonly string[], scheme: string | false): string {
  const places = [
    ...names.map((name) => `"${name}: <key>"`),
    ...(scheme === false ? [] : [`"Authorization: ${scheme} <key>"`]),
  ]
  const advice = places.length > 0 ? `; send the key as ${places.join(' or ')}` : ''
  return `API keys with this prefix are not read from "Authorization: Bearer"${advice}`
}

function numberOf(recogniser: object): number {
  const number = inUse.recognisers.get(recogniser) ?? ++inUse.recogniserCount
  inUse.recognisers.set(recogniser, number)
  return number
}

/**
 * Removes the spaces and tabs that may surround a value (RFC 9110 §5.6.3). `trim()` would also remove non-ASCII white
 * space, and a value with that is not a key.
 */
export function trimBlanks(text: string): string {
  let start = 0
  let end = text.length
  while (start < end && isBlank(text.charCodeAt(start))) start += 1
  while (end > start && isBlank(text.charCodeAt(end - 1))) end -= 1
  return text.slice(start, end)
}

/** Space or tab. */
function isBlank(charCode: number): boolean {
  return charCode === 0x20 || charCode === 0x09
}

function checkHeaders(value: unknown): readonly string[] {
  const names = checkArray('headers', value, 16).map((name, i) => {
    if (typeof name !== 'string' || !isFieldName(name)) {
      return fail(`headers[${i}]`, 'the name of a header field', name)
    }
    const lower = name.toLowerCase()
    if (['authorization', 'cookie', 'proxy-authorization'].includes(lower)) {
      throw new OptionError(`headers[${i}]`, `not be "${lower}"; see "scheme" and "bearer"`)
    }
    return lower
  })
  return [...new Set(names)]
}

function checkScheme(value: unknown): string | false {
  if (value === false) return false
  if (typeof value !== 'string' || !TOKEN.test(value)) {
    return fail('scheme', 'an authentication scheme or false', value)
  }
  if (['bearer', 'basic', 'digest', 'negotiate'].includes(value.toLowerCase())) {
    throw new OptionError('scheme', `not be "${value}"; see "bearer"`)
  }
  return value
}

function checkBearer(value: unknown, prefix: string | undefined): readonly string[] {
  if (Array.isArray(value)) {
    if (value.length > 0 && value.every((entry) => typeof entry === 'string' && entry !== '')) {
      return value.map((entry) => `${entry}_`)
    }
    throw new OptionError('bearer', 'be true, false or a non-empty array of prefixes')
  }
  if (!checkBoolean('bearer', value)) return []
  if (prefix === undefined) {
    throw new OptionError('bearer', 'list the prefixes, because these keys have no "prefix"')
  }
  return [`${prefix}_`]
}
