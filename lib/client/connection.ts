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

/** How to reach the service, and as whom. */
export interface ApiKeysClientOptions {
  /**
   * Where the routes of the service are, such as `https://auth.example.com/api-keys`. In a browser it may be relative to
   * the page. Use `https:` wherever others could listen: keys travel on it.
   */
  baseUrl: string | URL
  /**
   * The key of this program, sent as `X-Api-Key` with every call; a function is asked each time, so that keys can be
   * replaced while the program runs; where it fails, so does the call, with `unavailable`. In a browser leave it out, and let
   * the login speak.
   *
   * @default none
   */
  key?: string | (() => Awaitable<string>)
  /**
   * Further header fields, such as an `Authorization` or a CSRF token; a function is asked each time.
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
   * How long a call may take in milliseconds, its repetitions and the pauses between them included; at most an hour.
   *
   * @default 5_000
   */
  timeoutMs?: number
  /**
   * How often a call is repeated at most, 0 to 10. Only what is safe to repeat is: reading, verifying without `charge`, revoking one
   * key, and issuing and rotating, which carry an idempotency key. It is repeated where the service could not be reached, or
   * answered 502, 503 or 504, after some 100 ms and then twice as long each time, or when `Retry-After` says, if that is within 2 s.
   *
   * @default 2
   */
  retries?: number
}

/** The names of {@link ApiKeysClientOptions}. */
const CLIENT_OPTIONS = ['baseUrl', 'key', 'headers', 'fetch', 'timeoutMs', 'retries']

/** One thing to ask the service for. */
export interface Call<T> {
  readonly method: 'GET' | 'POST' | 'PATCH'
  /** Behind the base, with a slash before it; empty for the base itself. */
  readonly path: string
  readonly query?: Readonly<Record<string, string | undefined>>
  /** The JSON to send. */
  readonly body?: string
  readonly headers?: Readonly<Record<string, string>>
  /** Whether to send it twice does what sending it once does. */
  readonly isRepeatable: boolean
  readonly signal: AbortSignal | undefined
  /** Reads what a good answer holds. Throws where it is none. */
  read(body: unknown): T
}

/** @throws ApiKeysClientError for everything that is no good answer; what `signal` was aborted with. */
export type Send = <T>(call: Call<T>) => Promise<T>

const FIRST_PAUSE_MS = 100
const MAX_PAUSE_MS = 2_000

/** A service that may be there again in a moment. A limit, 429, is not waited out: that would only pile calls up. */
const PASSING = new Set([502, 503, 504])

/** What a header field can carry and no trimming changes. */
const VISIBLE = /^[\x21-\x7e]+$/

/** @throws TypeError naming the option. */
export function createConnection(options: ApiKeysClientOptions): Send {
  checkObject('options', options, CLIENT_OPTIONS)
  const { key, timeoutMs = 5_000, retries = 2 } = options
  const base = checkBaseUrl(options.baseUrl)
  // It is looked up with every call: what traces or fakes requests replaces it later.
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
    // A `fetch` that knows no signals would still send it.
    signal.throwIfAborted()
    const init: RequestInit = {
      method: call.method,
      headers: fields,
      signal,
      // What is sent here, a key above all, is for this service and no other.
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
      // It keeps forms of other sites out, and so is asked for even where there is no body.
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

/** Where the program cannot say who it is, the service cannot be asked. */
async function askFor(name: string, ask: () => unknown): Promise<unknown> {
  try {
    return await ask()
  } catch (cause) {
    throw new ApiKeysClientError('unavailable', { message: `"${name}" has failed`, cause })
  }
}

function readResponse<T>(call: Call<T>, response: Response, text: string): T {
  const { status } = response
  if (status < 200 || status > 299) throw refusalIn(response, text)
  try {
    const body = parse(text)
    if (body === undefined) throw new Error('the service answered no JSON')
    return call.read(body)
  } catch (cause) {
    throw new ApiKeysClientError('unavailable', { message: (cause as Error).message, responseStatus: status })
  }
}

/** The problem (RFC 9457) that a response tells of; one that tells of none of ours does not come from the service. */
function refusalIn({ status, headers, type }: Response, text: string): ApiKeysClientError {
  const retryAfterMs = readRetryAfter(headers.get('Retry-After'))
  const common = { responseStatus: status, ...(retryAfterMs !== undefined && { retryAfterMs }) }
  const problem = parse(text)
  const code = isObject(problem) ? problem.code : undefined
  if (!isObject(problem) || !isErrorCode(code)) {
    // Browsers tell no more of a redirect than that it is one.
    const isRedirect = type === 'opaqueredirect' || (status > 300 && status < 400 && status !== 304)
    const message = isRedirect
      ? 'the service answered with a redirect, and none is followed'
      : `the service answered ${status} without a problem of Latchkey`
    return new ApiKeysClientError('unavailable', { ...common, message })
  }
  const { type: _type, title: _title, status: _status, code: _code, ...details } = problem
  return new ApiKeysClientError(code, { ...common, details: withKey(details) })
}

/** The key that a repeated request has made before, as all others. */
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

/** How long to wait before the call is repeated, in milliseconds; null where it is not. */
function pauseBefore(call: Call<unknown>, error: unknown, attempt: number): number | null {
  if (!call.isRepeatable || !isApiKeysClientError(error)) return null
  const { code, responseStatus, retryAfterMs = 0 } = error
  const isUnreached = responseStatus === null && code === 'unavailable'
  // The first request, whose answer was lost, may still be under way.
  const isOwnConflict = attempt > 1 && code === 'conflict' && call.headers?.['Idempotency-Key'] !== undefined
  if (!isUnreached && !isOwnConflict && !PASSING.has(responseStatus ?? 0)) return null
  const pauseMs = Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (attempt - 1))
  // Nor is a service waited for that is away for longer: whoever asked has the error, which says how long.
  if (retryAfterMs > MAX_PAUSE_MS) return null
  // Many that fail at one moment do not come back at one moment.
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

/** Without the slash at its end. */
function checkBaseUrl(value: unknown): string {
  const page = (globalThis as { location?: { href?: string } }).location?.href
  // In a browser whatever is none would be read as a path.
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
  // Its `href` keeps a lone `?` or `#`, behind which no path would be one.
  return url.origin + url.pathname.replace(/\/+$/, '')
}

/** What cannot be sent is refused here: the error of a header field would show it. */
function checkKey(value: unknown): string {
  if (typeof value === 'string' && VISIBLE.test(value)) return value
  return fail('key', 'a key, visible ASCII throughout', value)
}

const FIELD_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const FIELD_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/

/** A copy: what becomes of the given one later has not been looked at. */
function checkHeaders(value: unknown): Record<string, string> {
  // Of a `Headers` object nothing would be sent.
  if (!isPlainObject(value)) fail('headers', 'a plain object', value)
  for (const [name, text] of Object.entries(value)) {
    if (!FIELD_NAME.test(name)) throw new OptionError('headers', 'have names of header fields')
    if (typeof text === 'string' && FIELD_VALUE.test(text)) continue
    fail(memberPath('headers', name), 'what a header field can carry', text)
  }
  return { ...value } as Record<string, string>
}
