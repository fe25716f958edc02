import { isErrorCode } from '../errors.ts'
import { isObject } from '../internal/options.ts'
import { ApiKeysClientError, isApiKeysClientError } from './client-error.ts'
import {
  type ApiKeysClientOptions,
  type ConnectionSettings,
  checkHeaders,
  checkKey,
  resolveOptions,
} from './connection-options.ts'
import { type Deadline, startDeadline } from './deadline.ts'
import { readApiKey } from './read-answers.ts'
import { readText } from './read-text.ts'

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

/** @throws TypeError naming the option. */
export function createConnection(options: ApiKeysClientOptions): Send {
  const settings = resolveOptions(options)
  return (call) => send(settings, call)
}

async function send<T>(settings: ConnectionSettings, call: Call<T>): Promise<T> {
  const { timeoutMs, retries } = settings
  const deadline = startDeadline(timeoutMs, call.signal)
  try {
    for (let attempt = 1; ; attempt++) {
      try {
        return await deadline.race(sendOnce(settings, call, deadline.signal))
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

async function sendOnce<T>(
  settings: ConnectionSettings,
  call: Call<T>,
  signal: Deadline['signal'],
): Promise<T> {
  const { baseUrl, fetch } = settings
  const fields = await fieldsOf(settings, call)
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
  const url = urlOf(baseUrl, call)
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

async function fieldsOf(
  { key, headers }: ConnectionSettings,
  { method, headers: own }: Call<unknown>,
): Promise<Record<string, string>> {
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
