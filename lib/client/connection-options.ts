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

export type ConnectionSettings = ReturnType<typeof resolveOptions>

/** @throws TypeError naming the option. */
export function resolveOptions(options: ApiKeysClientOptions) {
  checkObject('options', options, CLIENT_OPTIONS)
  const { key, timeoutMs = 5_000, retries = 2 } = options
  const baseUrl = checkBaseUrl(options.baseUrl)
  // Look up the global `fetch` with every call: tools that trace or fake requests replace it later.
  const { fetch = (url: string, init: RequestInit) => globalThis.fetch(url, init) } = options
  checkFunction('fetch', fetch)
  checkInteger('timeoutMs', timeoutMs, 1, 3_600_000)
  checkInteger('retries', retries, 0, 10)
  if (key !== undefined && typeof key !== 'function') checkKey(key)
  const headers =
    typeof options.headers === 'function' ? options.headers : checkHeaders(options.headers ?? {})
  return { baseUrl, key, headers, fetch, timeoutMs, retries }
}

/** Characters that a header field can carry and that trimming does not change. */
const VISIBLE = /^[\x21-\x7e]+$/

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
export function checkKey(value: unknown): string {
  if (typeof value === 'string' && VISIBLE.test(value)) return value
  return fail('key', 'a key of visible ASCII characters', value)
}

const FIELD_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const FIELD_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/

/** Returns a copy: later changes to the given object are not checked. */
export function checkHeaders(value: unknown): Record<string, string> {
  // A copy of a `Headers` object would be empty.
  if (!isPlainObject(value)) fail('headers', 'a plain object', value)
  for (const [name, text] of Object.entries(value)) {
    if (!FIELD_NAME.test(name)) throw new OptionError('headers', 'have valid names of header fields')
    if (typeof text === 'string' && FIELD_VALUE.test(text)) continue
    fail(memberPath('headers', name), 'a valid value of a header field', text)
  }
  return { ...value } as Record<string, string>
}
