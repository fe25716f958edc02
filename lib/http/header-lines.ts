import {
  type HeaderFields,
  headerFields,
  isWebHeaders,
  type RequestLike,
  type WebHeaders,
} from './raw-request.ts'

const NO_LINES: readonly string[] = Object.freeze([])

/**
 * Stands for a value that is not text. No key contains this character, so the value counts as a malformed key, never as
 * missing.
 */
const NO_TEXT = '\ufffd'

/**
 * The lines of a header field as the application has left it: a middleware that sets or deletes `req.headers[name]` is
 * heeded. Of what was sent it reads only what `headers` does not tell, that a field came twice: Node joins most
 * repeated fields and drops others.
 *
 * @param name in lower case
 * @param keyOf the key in a line, null if it holds none
 */
export function linesOf(
  request: RequestLike,
  name: string,
  keyOf: (line: string) => string | null,
): readonly string[] {
  const { headers: given, rawHeaders = NO_LINES } = request
  if (isWebHeaders(given)) return joinedLines(webField(given, name), name)
  const headers = given
  const value: unknown = headers[name] ?? (rawHeaders.length === 0 ? valueInAnyCase(headers, name) : null)
  if (value === undefined || value === null) return NO_LINES
  const left = typeof value === 'string' ? [value] : textsOf(value)
  if (!isRepeated(rawHeaders, name)) return left
  const sent = rawHeaders.filter((_line, i) => i % 2 === 1 && rawHeaders[i - 1]?.toLowerCase() === name)
  return isWhatWasSent(left, sent, keyOf) ? sent : left
}

/** `get` of a `Headers` takes a name in any case. That of what only looks like one may not. */
function webField(headers: WebHeaders, name: string): string | undefined {
  const isWhole = typeof (headers as Partial<Headers>).getSetCookie === 'function'
  return isWhole ? (headers.get(name) ?? undefined) : headerFields({ headers })[name]?.toString()
}

/**
 * The lines of a field of a web `Headers`, which joins those that were sent with commas (RFC 9110 §5.3). Nothing tells a comma that
 * was sent from one that joins: a key with a comma in it cannot be sent there. Of `Authorization` only what begins with a scheme is a
 * line: other text after a comma belongs to the credential before it.
 */
function joinedLines(value: string | undefined, name: string): readonly string[] {
  if (value === undefined) return NO_LINES
  if (!value.includes(',')) return [value]
  return value.split(name === 'authorization' ? BEFORE_SCHEME : ',')
}

/** A comma with a scheme, a blank and more after it. */
const BEFORE_SCHEME = /,(?=[ \t]*[^ \t,]+[ \t]+[^ \t,])/

/** Requests made up in tests may not spell names as Node does. */
function valueInAnyCase(headers: HeaderFields, name: string): unknown {
  const spelt = Object.keys(headers).find((other) => other.toLowerCase() === name)
  return spelt === undefined ? undefined : headers[spelt]
}

function textsOf(value: unknown): readonly string[] {
  const values: readonly unknown[] = Array.isArray(value) ? value : [value]
  return values
    .filter((entry) => entry !== undefined && entry !== null)
    .map((entry) => (typeof entry === 'string' ? entry : NO_TEXT))
}

/** Every request pays for this: it allocates nothing and compares only names of the right length. */
function isRepeated(rawHeaders: readonly string[], name: string): boolean {
  let isFound = false
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const sent = rawHeaders[i] as string
    if (sent.length !== name.length || sent.toLowerCase() !== name) continue
    if (isFound) return true
    isFound = true
  }
  return false
}

/**
 * Whether a field that came several times is as Node has made it; or somebody has rewritten it who saw several keys as one,
 * and what is left still shows one of them. Whoever puts another text in their place has decided.
 */
function isWhatWasSent(
  left: readonly string[],
  sent: readonly string[],
  keyOf: (line: string) => string | null,
): boolean {
  if (left.length === 1 && (left[0] === sent[0] || left[0] === sent.join(', '))) return true
  const keys = sent.map(keyOf).filter((key) => key !== null)
  return keys.length > 1 && keys.some((key) => left.some((line) => line.includes(key)))
}
