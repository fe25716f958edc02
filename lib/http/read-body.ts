import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import type { ReadableStream as WebStream } from 'node:stream/web'
import getRawBody from 'raw-body'
import { isLatchkeyError } from '../errors.ts'
import { isUint8Array } from '../internal/any-realm.ts'
import { checkInteger } from '../internal/options.ts'
import { invalidRequest, refusal } from './refused-request.ts'

export const DEFAULT_MAX_BODY_BYTES = 65_536

/** A body as received, or as a middleware of the application has parsed it. */
export interface BodySource {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  /** Unread, unless a middleware was here before. */
  readonly stream: object
  /** The body as that middleware parsed it. */
  readonly parsed: unknown
}

export function checkMaxBodyBytes(value: unknown = DEFAULT_MAX_BODY_BYTES): number {
  return checkInteger('maxBodyBytes', value, 1, 16_777_216)
}

/**
 * Reads the JSON of a request; `{}` if it has no body. Even then it refuses a content type other than JSON: a form on another site
 * cannot send one.
 *
 * @throws LatchkeyError `unsupported_media_type`, `body_too_large`, `invalid_request`
 * @throws Error when a middleware read the body and did not keep it: a fault.
 */
export async function readBody({ headers, stream, parsed }: BodySource, maxBytes: number): Promise<unknown> {
  if (!isJson(headers['content-type']) || !isPlain(headers['content-encoding'])) {
    throw refusal('unsupported_media_type', { accepted: 'application/json' })
  }
  if (Number(headers['content-length'] ?? 0) > maxBytes) throw tooLarge(maxBytes)
  if (isUnreadRequest(stream)) return parseJson(await readWebBody(stream.body, headers, maxBytes))
  const incoming = stream as IncomingMessage
  if (!isRead(incoming)) return parseJson(await readBytes(incoming, headers, maxBytes))
  if (parsed === undefined) {
    // Without a length and without chunks, there was nothing to read. A web `Request` says so itself.
    if (isEmpty(headers) && !hasBody(stream)) return {}
    throw new Error('a middleware read the body and did not keep it')
  }
  if (typeof parsed !== 'string' && !isUint8Array(parsed)) return parsed
  // The request may not have declared its length.
  if (Buffer.byteLength(parsed) > maxBytes) throw tooLarge(maxBytes)
  return parseJson(parsed)
}

async function readBytes(
  stream: IncomingMessage,
  headers: BodySource['headers'],
  maxBytes: number,
): Promise<Uint8Array> {
  // A destroyed stream emits nothing, not even its end.
  if (stream.destroyed) throw incomplete()
  try {
    return await getRawBody(stream, {
      limit: maxBytes,
      ...(typeof headers['content-length'] === 'string' && { length: headers['content-length'] }),
    })
  } catch (error) {
    const { type } = error as { type?: unknown }
    if (type === 'entity.too.large') throw tooLarge(maxBytes)
    if (type === 'request.aborted' || type === 'request.size.invalid') throw incomplete()
    throw error
  }
}

/** A body of a web `Request`. It fails only where its client has gone away. */
async function readWebBody(
  body: WebStream,
  headers: BodySource['headers'],
  maxBytes: number,
): Promise<Uint8Array> {
  try {
    return await readBytes(Readable.fromWeb(body) as IncomingMessage, headers, maxBytes)
  } catch (error) {
    throw isLatchkeyError(error) ? error : incomplete()
  }
}

function parseJson(body: string | Uint8Array): unknown {
  if (body.length === 0) return {}
  try {
    return JSON.parse(typeof body === 'string' ? body : DECODER.decode(body))
  } catch {
    throw invalidRequest('body', 'JSON in UTF-8')
  }
}

const DECODER = new TextDecoder('utf-8', { fatal: true })

function isJson(contentType: unknown): boolean {
  if (typeof contentType !== 'string') return false
  const [type = '', ...parameters] = contentType.toLowerCase().split(';')
  if (type.trim() !== 'application/json') return false
  return parameters
    .map((parameter) => parameter.trim())
    .filter((text) => /^charset\s*=/.test(text))
    .every((charset) => /^charset=(?:utf-8|us-ascii|"(?:utf-8|us-ascii)")$/.test(charset))
}

function isPlain(encoding: unknown): boolean {
  return encoding === undefined || encoding === '' || encoding === 'identity'
}

/** Whether this is a web `Request` whose body nobody has read or holds. */
function isUnreadRequest(stream: object): stream is { readonly body: WebStream } {
  // Nobody looks into what a middleware has parsed on a request of Node.
  if (typeof (stream as Partial<IncomingMessage>).on === 'function') return false
  const { body, bodyUsed } = stream as Partial<Request>
  return typeof body?.getReader === 'function' && bodyUsed === false && !body.locked
}

function isRead(stream: IncomingMessage): boolean {
  // A web `Request` is not a Node stream: the caller has already read it.
  if (typeof stream.on !== 'function') return true
  return stream.readableDidRead || stream.readableEnded
}

function isEmpty(headers: BodySource['headers']): boolean {
  return headers['transfer-encoding'] === undefined && Number(headers['content-length'] ?? 0) === 0
}

function hasBody(stream: object): boolean {
  const { body } = stream as { body?: unknown }
  return body !== undefined && body !== null
}

function incomplete() {
  return invalidRequest('body', 'a complete body')
}

function tooLarge(maxBytes: number) {
  return refusal('body_too_large', { accepted: `at most ${maxBytes} bytes` })
}
