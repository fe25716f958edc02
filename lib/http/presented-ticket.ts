import { headerFields, isWebHeaders, type RequestLike, type RequestParts } from './raw-request.ts'
import { type PresentedTicket, stateOf } from './request-state.ts'

/** The query parameter that carries a ticket. An `EventSource` sends nothing else. */
const PARAMETER = 'ticket='
const PROTOCOLS = 'sec-websocket-protocol'
/** How an entry of `Sec-WebSocket-Protocol` begins that carries a ticket. */
const PROTOCOL = 'latchkey.ticket.'

interface Mutable {
  method?: string
  url?: unknown
  originalUrl?: unknown
  query?: unknown
  _parsedUrl?: unknown
  _parsedOriginalUrl?: unknown
  memoizedURL?: unknown
}

/**
 * The tickets that a request presents. The first call takes them out of the request: what reads or logs it later sees none. The URL of a
 * web `Request` cannot be changed.
 */
export function presentedTicket(parts: RequestParts): PresentedTicket | undefined {
  const { raw } = parts
  const state = stateOf(raw)
  if (state.ticket) return state.ticket
  const texts = [...takeFromProtocols(raw), ...takeFromUrl(parts)]
  if (texts.length > 0) state.ticket = { texts }
  return state.ticket
}

function takeFromProtocols(raw: RequestLike): readonly string[] {
  const value = headerFields(raw)[PROTOCOLS]?.toString()
  if (!value?.includes(PROTOCOL)) return []
  const { texts, rest } = split(value)
  const { headers, rawHeaders } = raw as { headers: RequestLike['headers']; rawHeaders?: string[] }
  if (isWebHeaders(headers)) {
    rewriteWeb(headers as Partial<Headers>, rest)
    return texts
  }
  const fields = headers as Record<string, unknown>
  if (rest === '') delete fields[PROTOCOLS]
  else fields[PROTOCOLS] = rest
  for (let i = (rawHeaders?.length ?? 0) - 2; rawHeaders && i >= 0; i -= 2) {
    if (rawHeaders[i]?.toLowerCase() !== PROTOCOLS) continue
    const kept = split(rawHeaders[i + 1] as string).rest
    if (kept === '') rawHeaders.splice(i, 2)
    else rawHeaders[i + 1] = kept
  }
  return texts
}

/** Some runtimes hand out fields that cannot be changed. */
function rewriteWeb(headers: Partial<Headers>, rest: string): void {
  try {
    if (rest === '') headers.delete?.(PROTOCOLS)
    else headers.set?.(PROTOCOLS, rest)
  } catch {
    // The ticket is used up by then.
  }
}

function split(value: string): { texts: string[]; rest: string } {
  const entries = value.split(',').map((entry) => entry.trim())
  const tickets = entries.filter((entry) => entry.startsWith(PROTOCOL))
  return {
    texts: tickets.map((entry) => entry.slice(PROTOCOL.length)),
    rest: entries.filter((entry) => !entry.startsWith(PROTOCOL)).join(', '),
  }
}

function takeFromUrl({ raw, request, outer }: RequestParts): readonly string[] {
  const { method, url } = raw as Mutable
  if (method !== 'GET' || typeof url !== 'string') return []
  const texts = ticketsIn(url)
  if (texts.length === 0) return []
  hideInLines(raw)
  // Koa's context has a request of its own.
  const { request: inner } = request as { request?: object }
  for (const view of new Set([raw, request, inner, outer])) if (view) hideTicket(view as Mutable)
  return texts
}

/** In HTTP/2 the path is a field. */
function hideInLines({ rawHeaders }: RequestLike): void {
  const path = rawHeaders?.indexOf(':path') ?? -1
  if (rawHeaders && path >= 0)
    (rawHeaders as string[])[path + 1] = withoutTickets(rawHeaders[path + 1] as string)
}

function ticketsIn(url: string): string[] {
  const start = url.indexOf('?')
  if (start === -1 || !url.includes(PARAMETER)) return []
  return url
    .slice(start + 1)
    .split('&')
    .filter((part) => part.startsWith(PARAMETER))
    .map((part) => part.slice(PARAMETER.length))
}

function hideTicket(view: Mutable): void {
  for (const name of ['url', 'originalUrl'] as const) {
    const url = view[name]
    if (typeof url !== 'string' || ticketsIn(url).length === 0) continue
    // Of a web `Request`, and of Fastify's, these are getters.
    Reflect.set(view, name, withoutTickets(url))
  }
  // What Express's router has made of the URL.
  if (view._parsedUrl) view._parsedUrl = undefined
  if (view._parsedOriginalUrl) view._parsedOriginalUrl = undefined
  // What Koa has.
  if (view.memoizedURL) view.memoizedURL = undefined
  const { query } = view
  if (typeof query === 'object' && query !== null) Reflect.deleteProperty(query, 'ticket')
}

function withoutTickets(url: string): string {
  const start = url.indexOf('?')
  const kept = url
    .slice(start + 1)
    .split('&')
    .filter((part) => !part.startsWith(PARAMETER))
  return kept.length === 0 ? url.slice(0, start) : `${url.slice(0, start)}?${kept.join('&')}`
}
