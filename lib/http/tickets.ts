import { type Clock, inTime, systemClock } from '../core/clock.ts'
import {
  isTicket,
  newTicket,
  openTicket,
  type RedeemedTicket,
  sealTicket,
  ticketId,
} from '../core/tickets/sealed-ticket.ts'
import type { TicketStore } from '../core/tickets/ticket-store.ts'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import { LatchkeyError } from '../errors.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import { checkFunction, checkInteger, checkMethods, checkObject, checkText } from '../internal/options.ts'
import { readMark } from './auth-mark.ts'
import { apiKeyGuard } from './guards.ts'
import { headerFields, type RequestLike, rawRequest } from './raw-request.ts'
import { type Admission, stateOf } from './request-state.ts'

export interface TicketsOptions {
  /** Where tickets wait: `redisTicketStore(redis)` for several processes, `memoryTicketStore()` for one. */
  store: TicketStore
  /**
   * How long a ticket can be redeemed, in milliseconds, at most 5 minutes.
   *
   * @default 30_000
   */
  ttlMs?: number
  /**
   * The source of time, for tests.
   *
   * @default the machine's clock
   */
  clock?: Pick<Clock, 'now'>
}

export interface IssueTicketOptions {
  /**
   * The origin of the page that will redeem the ticket, such as `https://app.example.com`. Give it if your page has its backend fetch
   * the ticket. `null` means that the redeeming request has no `Origin`: browsers send none with an `EventSource` of the same
   * origin.
   *
   * @default the `Origin` of the request
   */
  origin?: string | null
}

/** A ticket that was issued. */
export interface IssuedTicket {
  /** 43 letters, digits, `-` and `_`. It works once. */
  readonly ticket: string
  readonly expiresAt: Date
}

/** Issues and redeems one-time tickets. */
export interface Tickets {
  /**
   * Issues a ticket to the caller of a request that an API key has authenticated. Whoever redeems it is let in as with that key, if the
   * key has not changed since.
   *
   * @param request the request of your framework, or Koa's context
   * @throws LatchkeyError `missing_key`, `invalid_key` or `api_key_required` when no key has authenticated the request, or only a
   * ticket has.
   * @throws LatchkeyError `invalid_request` when the request has an `Origin` of more than 512 characters.
   * @throws LatchkeyError `unavailable` when the store of tickets cannot be reached.
   * @throws TypeError when an option is wrong or unknown, naming it.
   */
  issue(request: object, options?: IssueTicketOptions): Promise<IssuedTicket>
  /**
   * Redeems a ticket: it is gone then, whatever the answer. Null if there is none, or it has expired, or is another origin's. The option
   * `tickets` of the guards calls it, and verifies the key.
   *
   * @param origin the `Origin` of the request; null if it has none
   * @throws what the store throws.
   */
  redeem(ticket: string, origin: string | null): Promise<RedeemedTicket | null>
}

/** The members of {@link Tickets} that guards use. */
export type TicketRedeemer = Pick<Tickets, 'redeem'>

const MAX_ORIGIN_LENGTH = 512

/**
 * One-time tickets, for browsers: a `WebSocket` and an `EventSource` cannot send a key. A request with a key gets a ticket, and the page
 * redeems it when it opens the connection. A ticket works once, for 30 seconds, for one origin, and while the key stays as it is.
 *
 * The store holds a ticket's SHA-256, and the key encrypted so that only the ticket opens it.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const tickets = createTickets({ store: redisTicketStore(redis) })
 *
 * app.post('/tickets', apiKeyAuth(keys), async (req, res) => res.json(await tickets.issue(req)))
 * app.get('/events', apiKeyAuth(keys, { tickets }), stream) // new EventSource(`/events?ticket=${ticket}`)
 */
export function createTickets(options: TicketsOptions): Tickets {
  checkObject('options', options, ['store', 'ttlMs', 'clock'])
  const { store, ttlMs = 30_000, clock = systemClock } = options
  checkMethods('store', store, ['put', 'take'])
  checkInteger('ttlMs', ttlMs, 1, 300_000)
  checkFunction('clock.now', clock?.now)

  return Object.freeze({
    async issue(request: object, issueOptions: IssueTicketOptions = {}) {
      const marked = markedRequest(request)
      const { keys, key, apiKey } = presentedKey(marked)
      const origin = originFor(marked, issueOptions)
      const ticket = newTicket()
      const expiresAt = clock.now() + ttlMs
      const contents = { key, keyId: apiKey.id, version: apiKey.version, origin, expiresAt }
      try {
        await askInTime(keys, () => store.put(ticketId(ticket), sealTicket(ticket, contents), ttlMs))
      } catch (cause) {
        keys.report?.({ type: 'fault', operation: 'tickets', error: cause })
        throw new LatchkeyError('unavailable', undefined, { cause, stack: false })
      }
      return { ticket, expiresAt: new Date(expiresAt) }
    },
    async redeem(ticket: string, origin: string | null) {
      if (typeof ticket !== 'string' || !isTicket(ticket)) return null
      const sealed = await store.take(ticketId(ticket))
      const contents = sealed === null ? null : openTicket(ticket, sealed)
      if (!contents || contents.expiresAt <= clock.now() || contents.origin !== origin) return null
      const { key, keyId, version } = contents
      return { key, keyId, version }
    },
  })
}

/** The answer of a store of tickets, which has as long as other parts of `keys`. */
export function askInTime<T>(keys: ApiKeyVerifier, ask: () => Awaitable<T>): Promise<T> {
  const { clock = systemClock, timeoutMs = 5_000 } = keys
  return inTime(clock, timeoutMs, ask)
}

/** The origin that a request comes from; null if it does not say. */
export function originOf(request: RequestLike): string | null {
  return headerFields(request).origin?.toString() ?? null
}

/** What was marked: Fastify and Hono have it as `raw` of their requests. */
function markedRequest(request: object): object {
  const { raw } = request as { raw?: unknown }
  const isOuter = readMark(request) === undefined && typeof raw === 'object' && raw !== null
  return isOuter ? raw : request
}

const requireKey = apiKeyGuard()

/** The key that a request presented itself: a ticket does not beget tickets. */
function presentedKey(request: object): Admission {
  const refusal = requireKey(request)
  if (refusal) throw refusal
  const { mark, admissions, ticket } = stateOf(rawRequest(request))
  const admission = admissions?.find(({ apiKey }) => mark?.method === 'apikey' && apiKey === mark.apiKey)
  if (admission && !ticket) return admission
  throw new LatchkeyError('api_key_required', undefined, { stack: false })
}

function originFor(request: object, options: IssueTicketOptions): string | null {
  checkObject('options', options, ['origin'])
  const { origin } = options
  if (origin === null) return null
  if (origin !== undefined) return checkText('origin', origin, MAX_ORIGIN_LENGTH)
  const sent = originOf(rawRequest(request))
  if (sent === null || sent.length <= MAX_ORIGIN_LENGTH) return sent
  throw new LatchkeyError('invalid_request', undefined, { stack: false })
}
