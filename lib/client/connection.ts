import { isErrorCode } from '../errors.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import { memberPath } from '../internal/key-text.ts'
import { OptionError } from '../internal/option-error.ts'
import {
  checkFunction,
  checkInteger,
  checkObject,
  fail,
  isObject,
  isPlainObject,
} from '../internal/options.ts'
import { ApiKeysClientError, isApiKeysClientError } from './client-error.ts'
import { type Deadline, startDeadline } from './deadline.ts'
import { readApiKey } from './read-answers.ts'
import { readText } from './read-text.ts'

/** How to reach the service, and which key to use. */
export interface ApiKeysClientOptions {
  /**
   * The URL of the service's routes, such as `https://auth.example.com/api-keys`. In a browser it may be relative to the page. Use
   * `https:` wherever others could listen: requests and responses contain keys.
   */
  baseUrl: string | URL
  /**
   * The key of this program, sent as `X-Api-Key` with every call. The client calls a function each time, so that you can replace the
   * key while the program runs; if the function fails, the call fails with `unavailable`. In a browser, leave it out: the login
   * session authenticates the request.
   *
   * @default none
   */
  key?: string | (() => Awaitable<string>)
  /**
   * Additional header fields, such as `Authorization` or a CSRF token. The client calls a function each time.
   *
   * @default none
   */
  headers?: Readonly<Record<string, string>> | (() => Awaitable<Readonly<Record<string, string>>>)
  /**
   * Sends requests: for a proxy, for credentials in a browser, or in tests.
   *
   * @default globalThis.fetch
   */
  fetch?: (url: string, init: RequestInit) => Promise<Response>
  /**
   * How long a call may take in milliseconds, including retries and the pauses between them; at most an hour.
   *
   * @default 5_000
   */
  timeoutMs?: number
  /**
   * How often the client retries a call, 0 to 10. It retries only what is safe to repeat: reading, verifying without `charge`,
   * revoking one key, and issuing and rotating, which send an idempotency key. It retries if it could not reach the service, or if
   * the response was 502, 503 or 504. It waits about 100 ms, then twice as long each time, at most 2 s. It waits for `Retry-After` if
   * that is within 2 s, and does not retry if it is later.
   *
   * @default 2
   */
  retries?: number
}

/** The names of {@link ApiKeysClientOptions}. */
const CLIENT_OPTIONS = ['baseUrl', 'key', 'headers', 'fetch', 'timeoutMs', 'retries']

/** One call to the service. */
export interface Call<T> {
  readonly method: 'GET' | 'POST' | 'PATCH'
  /** The path after the base URL, with a leading slash; empty for the base URL itself. */
  readonly path: string
  readonly query?: Readonly<Record<string, string | undefined>>
  /** The JSON to send. */
  readonly body?: string
  readonly headers?: Readonly<Record<string, string>>
  /** Whether sending it twice has the same effect as sending it once. */
  readonly isRepeatable: boolean
  readonly signal: AbortSignal | undefined
  /** Reads the body of a successful response. Throws if the body is not valid. */
  read(body: unknown): T
}

/** @throws ApiKeysClientError for everything but a successful response. Throws the reason of `signal` if that is aborted. */
export type Send = <T>(call: Call<T>) => Promise<T>

const FIRST_PAUSE_MS = 100
const MAX_PAUSE_MS = 2_000

/** Statuses of a service that may be back in a moment. The client does not wait for a rate limit (429): calls would only pile up. */
const PASSING = new Set([502, 503, 504])

/** Characters that a header field can carry and that trimming does not change. */
const VISIBLE = /^[\x21-\x7e]+$/

/** @throws TypeError naming the option. */
export function createConnection(options: ApiKeysClientOptions): Send {
  checkObject('options', options, CLIENT_OPTIONS)
  const { key, timeoutMs = 5_000, retries = 2 } = options
  const base = checkBaseUrl(options.baseUrl)
  // Look up the global `fetch` with every call: tools that trace or fake requests replace it later.
  const { fetch = (url: string, init: RequestInit) => globalThis.fetch(url, init) } = options
  checkFunction('fetch', fetch)
  checkInteger('timeoutMs', timeoutMs, 1, 3_600_000)
  checkInteger('retries', retries, 0, 10)
  if (key !== undefined && typeof key !== 'function') checkKey(key)
  const headers =
    typeof options.headers === 'function' ? options.headers : checkHeaders(options.headers ?? {})

  return async function send(call) {
    const deadline = startDeadline(timeoutMs, call.signal)
    try {
      for (let attempt = 1; ; attempt++) {
        try {
          return await deadline.race(sendOnce(call, deadline.signal))
        } catch (error) {
          // The reason is the caller's own, or that the time is up.
          if (deadline.signal.aborted) throw deadline.signal.reason
          const pauseMs = attempt <= retries ? pauseBefore(call, error, attempt) : null
          if (pauseMs === null || pauseMs >= deadline.leftMs()) throw error
          await deadline.pause(pauseMs)
        }
      }
    } finally {
      deadline.end()
    }
  }

  async function sendOnce<T>(call: Call<T>, signal: Deadline['signal']): Promise<T> {
    const fields = await fieldsOf(call)
    // A `fetch` without support for signals would still send the request.
    signal.throwIfAborted()
    const init: RequestInit = {
      method: call.method,
      headers: fields,
      signal,
      // The request, and above all its key, is for this service and no other.
      redirect: 'manual',
      ...(call.body !== undefined && { body: call.body }),
    }
    const url = urlOf(base, call)
    let response: Response
    let text: string
    try {
      response = await fetch(url, init)
      text = await readText(response)
    } catch (cause) {
      if (isApiKeysClientError(cause)) throw cause
      throw new ApiKeysClientError('unavailable', { message: 'the service could not be reached', cause })
    }
    return readResponse(call, response, text)
  }

  async function fieldsOf({ method, headers: own }: Call<unknown>): Promise<Record<string, string>> {
    const given = typeof headers === 'function' ? checkHeaders(await askFor('headers', headers)) : headers
    const apiKey = typeof key === 'function' ? checkKey(await askFor('key', key)) : key
    const fixed: Record<string, string> = {
      Accept: 'application/json',
      // The service needs it even without a body: it keeps out forms on other sites.
      ...(method !== 'GET' && { 'Content-Type': 'application/json' }),
      ...own,
      ...(apiKey !== undefined && { 'X-Api-Key': apiKey }),
    }
    // Two spellings of one name would be sent as one field with both values.
    const names = new Set(Object.keys(fixed).map((name) => name.toLowerCase()))
    const further = Object.entries(given).filter(([name]) => !names.has(name.toLowerCase()))
    return { ...Object.fromEntries(further), ...fixed }
  }
}

/** Without its key or header fields, the program cannot call the service. */
async function askFor(name: string, ask: () => unknown): Promise<unknown> {
  try {
    return await ask()
  } catch (cause) {
    throw new ApiKeysClientError('unavailable', { message: `"${name}" failed`, cause })
  }
}

function readResponse<T>(call: Call<T>, response: Response, text: string): T {
  const { status } = response
  if (status < 200 || status > 299) throw refusalIn(response, text)
  try {
    const body = parse(text)
    if (body === undefined) throw new Error('the response of the service is not JSON')
    return call.read(body)
  } catch (cause) {
    throw new ApiKeysClientError('unavailable', { message: (cause as Error).message, responseStatus: status })
  }
}

/** Reads the problem (RFC 9457) of a response. A response without one of Latchkey's codes does not come from the service. */
function refusalIn({ status, headers, type }: Response, text: string): ApiKeysClientError {
  const retryAfterMs = readRetryAfter(headers.get('Retry-After'))
  const common = { responseStatus: status, ...(retryAfterMs !== undefined && { retryAfterMs }) }
  const problem = parse(text)
  const code = isObject(problem) ? problem.code : undefined
  if (!isObject(problem) || !isErrorCode(code)) {
    // Browsers say nothing about a redirect except that it is one.
    const isRedirect = type === 'opaqueredirect' || (status > 300 && status < 400 && status !== 304)
    const message = isRedirect
      ? 'the service answered with a redirect, which the client does not follow'
      : `the service answered ${status} without a Latchkey error`
    return new ApiKeysClientError('unavailable', { ...common, message })
  }
  const { type: _type, title: _title, status: _status, code: _code, ...details } = problem
  return new ApiKeysClientError(code, { ...common, details: withKey(details) })
}

/** Reads the key that an earlier request created. */
function withKey({ apiKey, ...details }: Record<string, unknown>): Record<string, unknown> {
  try {
    return apiKey === undefined ? details : { ...details, apiKey: readApiKey(apiKey) }
  } catch {
    return details
  }
}

/** Leaves out the message of `JSON.parse`: it quotes part of the text, which may hold a key. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** How long to wait before the retry, in milliseconds; null if there is no retry. */
function pauseBefore(call: Call<unknown>, error: unknown, attempt: number): number | null {
  if (!call.isRepeatable || !isApiKeysClientError(error)) return null
  const { code, responseStatus, retryAfterMs = 0 } = error
  const isUnreached = responseStatus === null && code === 'unavailable'
  // The first request, whose answer was lost, may still be under way.
  const isOwnConflict = attempt > 1 && code === 'conflict' && call.headers?.['Idempotency-Key'] !== undefined
  if (!isUnreached && !isOwnConflict && !PASSING.has(responseStatus ?? 0)) return null
  const pauseMs = Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (attempt - 1))
  // Do not wait for a service that is away for longer: the caller gets the error, which says how long.
  if (retryAfterMs > MAX_PAUSE_MS) return null
  // Spread retries out, so that clients that failed together do not return together.
  return Math.max(retryAfterMs, pauseMs * (0.5 + Math.random() / 2))
}

/** RFC 9110 §10.2.3: seconds, or a date. */
function readRetryAfter(value: string | null): number | undefined {
  if (value === null) return undefined
  const ms = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - Date.now()
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(0, ms), Number.MAX_SAFE_INTEGER)
}

function urlOf(base: string, { path, query = {} }: Call<unknown>): string {
  const params = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) params.set(name, value)
  }
  const search = params.toString()
  return search === '' ? base + path : `${base}${path}?${search}`
}

/** The URL without a trailing slash. */
function checkBaseUrl(value: unknown): string {
  const page = (globalThis as { location?: { href?: string } }).location?.href
  // A browser would read any other value as a path.
  const text = isObject(value) ? value.href : value
  if (typeof text !== 'string' || text === '') fail('baseUrl', 'an absolute URL', value)
  let url: URL
  try {
    url = new URL(text, page)
  } catch {
    return fail('baseUrl', 'an absolute URL', value)
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    throw new OptionError('baseUrl', 'begin with https:// or http://')
  }
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
    throw new OptionError('baseUrl', 'have no credentials, no query and no fragment')
  }
  // `href` keeps a lone `?` or `#`, and a path after that would not be a path.
  return url.origin + url.pathname.replace(/\/+$/, '')
}

/** Refuses a key that a header field cannot carry: the error from `fetch` would show the key. */
function checkKey(value: unknown): string {
  if (typeof value === 'string' && VISIBLE.test(value)) return value
  return fail('key', 'a key of visible ASCII characters', value)
}

const FIELD_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const FIELD_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/

/** Returns a copy: later changes to the given object are not checked. */
function checkHeaders(value: unknown): Record<string, string> {
  // A copy of a `Headers` object would be empty.
  if (!isPlainObject(value)) fail('headers', 'a plain object', value)
  for (const [name, text] of Object.entries(value)) {
    if (!FIELD_NAME.test(name)) throw new OptionError('headers', 'have valid names of header fields')
    if (typeof text === 'string' && FIELD_VALUE.test(text)) continue
    fail(memberPath('headers', name), 'a valid value of a header field', text)
  }
  return { ...value } as Record<string, string>
}
