import { inTime, systemClock } from '../core/clock.ts'
import type { ApiKey } from '../core/keys/record.ts'
import { type Cost, checkCost } from '../core/limits/cost.ts'
import type { RedeemedTicket } from '../core/tickets/sealed-ticket.ts'
import { type ApiKeyVerifier, checkVerifyOptions, type VerifyOptions } from '../core/verify/key-verifier.ts'
import type { RefusedKey } from '../core/verify/verify-result.ts'
import { type Awaitable, isPromiseLike } from '../internal/awaitable.ts'
import { OptionError } from '../internal/option-error.ts'
import { checkFunction, checkMethods, checkText } from '../internal/options.ts'
import type { Authentication } from './authentication.ts'
import {
  CREDENTIAL_OPTIONS,
  type CredentialOptions,
  type CredentialReader,
  createCredentialReader,
  registerReader,
} from './credential.ts'
import {
  type Challenges,
  checkRateLimitHeaders,
  createChallenges,
  isQuotable,
  type RateLimitSyntax,
} from './header-fields.ts'
import { presentedTicket } from './presented-ticket.ts'
import type { RequestLike, RequestParts } from './raw-request.ts'
import { Refusals } from './refusals.ts'
import { type MisplacedKey, type PresentedTicket, type RequestState, stateOf } from './request-state.ts'
import { askInTime, originOf, type TicketRedeemer } from './tickets.ts'
import { type AdmittedRequest, type AskedOnce, verifyOnce } from './verify-once.ts'

/**
 * The options that `apiKeyAuth` of Express and Koa and `ApiKeyStrategy` share, under the same names. Write those that
 * every route shares once, and spread them.
 *
 * @example
 * const shared: AuthenticatorOptions = { realm: 'Acme', resolveUser: (apiKey) => users.find(apiKey.owner.id) }
 * app.use('/api', apiKeyAuth(keys, shared))
 * app.get('/v2', apiKeyAuth(keys, { ...shared, required: false }), show)
 */
export interface AuthenticatorOptions<User = unknown> extends CredentialOptions {
  /**
   * Finds the user that a key belongs to; it becomes `req.user`. Null or undefined is a 401, as for an invalid key; a
   * failure is a 503. Latchkey sets no timeout on it: set one on its queries.
   *
   * @default `req.user` is the key's owner, a frozen `{ type, id }`
   */
  resolveUser?: (apiKey: ApiKey) => Awaitable<User | null | undefined>
  /**
   * The protection space that challenges name (RFC 9110 §11.5), in ASCII.
   *
   * @default 'Users'
   */
  realm?: string
  /** Accepts only keys with this prefix, or one of these. */
  prefix?: string | readonly string[]
  /**
   * Which revision of draft-ietf-httpapi-ratelimit-headers the `RateLimit` fields follow. Draft 11 shows every limit;
   * `'draft-10'` is another name for it, because the syntax is the same. Drafts 7 and 6, for older clients, show one
   * limit: the one with the fewest calls left, and never a quota without a refill. `false` sends none of these fields;
   * `Retry-After` stays.
   *
   * With draft 11, `rate_limited` also has the problem type of the draft, and `violated-policies`. Drafts change:
   * programs read `code`, which stays.
   *
   * ```http
   * RateLimit: "minute";r=9;t=42, "day";r=412;t=38262
   * RateLimit-Policy: "minute";q=10;w=60, "day";q=1000;w=86400
   * ```
   * As `'draft-7'`:
   * ```http
   * RateLimit: limit=10, remaining=9, reset=42
   * RateLimit-Policy: 10;w=60, 1000;w=86400
   * ```
   * As `'draft-6'`:
   * ```http
   * RateLimit-Limit: 10
   * RateLimit-Remaining: 9
   * RateLimit-Reset: 42
   * RateLimit-Policy: 10;w=60, 1000;w=86400
   * ```
   *
   * @default 'draft-11'
   */
  rateLimitHeaders?: RateLimitSyntax | false
  /**
   * Also takes one-time tickets of `createTickets()`, from browsers: as the query parameter `ticket` of a GET request, or as an entry
   * `latchkey.ticket.<ticket>` of `Sec-WebSocket-Protocol`. A ticket is taken out of the request, so that nothing later logs it. A wrong,
   * used or expired one, or one of another origin, is a 401, as an invalid key is.
   *
   * @default takes no tickets
   */
  tickets?: TicketRedeemer
}

/** What a route requires of a key. */
export interface CheckOptions extends Pick<VerifyOptions, 'permissions'> {
  /** What the request costs, or a function that tells it once the key is proven. */
  cost?: Cost | (() => Awaitable<Cost>)
  /** Whether a request without a key passes. */
  isOptional?: boolean
}

export interface Authenticator {
  readonly keys: ApiKeyVerifier
  /** How to show the limits of an admitted request. */
  readonly rateLimitHeaders: RateLimitSyntax | false
  /**
   * Never throws or rejects, and returns synchronously if there is nothing to wait for.
   *
   * @param ip what an application's own reader of addresses answered: anything, if it is careless
   */
  authenticate(parts: RequestParts, asked: CheckOptions, ip: unknown): Awaitable<Authentication>
  readonly refuse: Refusals
}

/** The names of {@link AuthenticatorOptions}. */
export const AUTHENTICATOR_OPTIONS = Object.freeze([
  ...CREDENTIAL_OPTIONS,
  'resolveUser',
  'realm',
  'prefix',
  'rateLimitHeaders',
  'tickets',
])

/**
 * Does the same for every framework: reads the credential, verifies it once, finds the user.
 *
 * @param challengesFor writes the challenges, where they differ from the usual ones
 * @throws TypeError naming the option.
 */
export function createAuthenticator(
  keys: ApiKeyVerifier,
  options: AuthenticatorOptions,
  challengesFor: (schemes: readonly string[], realm: string) => Challenges = createChallenges,
): Authenticator {
  checkKeys(keys)
  const { resolveUser, realm = 'Users', prefix, rateLimitHeaders = 'draft-11', tickets } = options
  if (resolveUser !== undefined) checkFunction('resolveUser', resolveUser)
  if (typeof realm === 'string' && !isQuotable(realm)) throw new OptionError('realm', 'be printable ASCII')
  checkText('realm', realm, 255)
  checkVerifyOptions({ prefix })
  checkRateLimitHeaders(rateLimitHeaders)
  if (tickets !== undefined) checkMethods('tickets', tickets, ['redeem'])
  const reader = createCredentialReader(options, keys)
  registerReader(reader)
  const challenges = challengesFor(reader.schemes, realm)
  return new RequestAuthenticator(
    keys,
    { resolveUser, prefix, rateLimitHeaders, tickets },
    reader,
    challenges,
  )
}

function checkKeys(keys: ApiKeyVerifier): void {
  if (typeof keys?.verify === 'function') return
  const isWrapped = typeof (keys as { keys?: ApiKeyVerifier } | undefined)?.keys?.verify === 'function'
  throw isWrapped
    ? new TypeError('"keys" comes first and by itself: pass (keys, options), not ({ keys })')
    : new OptionError('keys', 'be what createApiKeys() returned')
}

type ResolveUser = NonNullable<AuthenticatorOptions['resolveUser']>

/** The options that matter once the credential is read. */
interface Settings extends Pick<AuthenticatorOptions, 'resolveUser' | 'prefix' | 'tickets'> {
  readonly rateLimitHeaders: RateLimitSyntax | false
}

class RequestAuthenticator implements Authenticator {
  readonly keys: ApiKeyVerifier
  readonly rateLimitHeaders: RateLimitSyntax | false
  readonly refuse: Refusals
  private readonly resolveUser: ResolveUser | undefined
  private readonly prefix: VerifyOptions['prefix']
  private readonly tickets: TicketRedeemer | undefined
  private readonly reader: CredentialReader
  private readonly challenges: Challenges

  constructor(keys: ApiKeyVerifier, settings: Settings, reader: CredentialReader, challenges: Challenges) {
    this.keys = keys
    this.rateLimitHeaders = settings.rateLimitHeaders
    this.refuse = new Refusals(challenges, keys, settings.rateLimitHeaders)
    this.resolveUser = settings.resolveUser
    this.prefix = settings.prefix
    this.tickets = settings.tickets
    this.reader = reader
    this.challenges = challenges
  }

  authenticate(parts: RequestParts, asked: CheckOptions, address: unknown): Awaitable<Authentication> {
    const { raw } = parts
    const state = stateOf(raw)
    state.challenges = this.challenges
    state.rateLimitHeaders = this.rateLimitHeaders
    const credential = this.reader.read(raw)
    const ip = isAddress(address) ? address : undefined
    const ticket = this.tickets && presentedTicket(parts)
    if (ticket && (credential.kind !== 'none' || ticket.texts.length > 1)) return this.refuse.several(ip)
    if (ticket) return this.redeem(parts, state, asked, ip, ticket)
    if (credential.kind === 'none') {
      // An earlier middleware has taken a ticket. It is known by that key, whose permissions would not be checked here.
      if (state.ticket) return this.refuse.missing(undefined, true)
      return this.withoutKey(raw, ip, asked.isOptional)
    }
    if (credential.kind === 'several') return this.refuse.several(ip)
    return this.check(parts, state, credential.key, asked, ip)
  }

  private check(
    parts: RequestParts,
    state: RequestState,
    key: string,
    { permissions, cost }: CheckOptions,
    ip: string | undefined,
  ): Awaitable<Authentication> {
    const { keys, prefix } = this
    if (typeof cost === 'function') {
      return this.price({ parts, state, keys, key, options: { permissions, ip, prefix } }, cost)
    }
    return this.verify({ parts, state, keys, key, options: { permissions, cost, ip, prefix } })
  }

  /** Lets in whoever has a ticket as if they had sent its key, unless the key has changed since. */
  private async redeem(
    parts: RequestParts,
    state: RequestState,
    asked: CheckOptions,
    ip: string | undefined,
    ticket: PresentedTicket,
  ): Promise<Authentication> {
    const { keys, prefix, tickets } = this
    let redeemed: RedeemedTicket | null
    try {
      ticket.redeemed ??= askInTime(
        keys,
        async () => tickets?.redeem(ticket.texts[0] as string, originOf(parts.raw)) ?? null,
      )
      redeemed = await ticket.redeemed
    } catch (error) {
      return this.refuse.fault('tickets', error)
    }
    if (!redeemed) return this.refuse.ticket(null, ip)
    const { key, keyId, version } = redeemed
    try {
      const { permissions } = asked
      const looked = await verifyOnce({
        parts,
        state,
        keys,
        key,
        options: { permissions, ip, prefix, cost: 0 },
      })
      if (!looked.ok) return this.refuse.key(looked)
      const { apiKey } = looked.admission
      if (apiKey.id !== keyId || apiKey.version !== version) return this.refuse.ticket(apiKey, ip)
      if (asked.cost === 0) return this.conclude(looked, ip)
    } catch (error) {
      return this.refuse.fault('verify', error)
    }
    return this.check(parts, state, key, asked, ip)
  }

  /** Asks the route what this request costs, once the key is good: strangers do not run the application's code. */
  private async price(asked: AskedOnce, costOf: () => Awaitable<Cost>): Promise<Authentication> {
    const { keys, options } = asked
    let looked: AdmittedRequest | RefusedKey
    try {
      looked = await verifyOnce({ ...asked, options: { ...options, cost: 0 } })
      if (!looked.ok) return this.refuse.key(looked)
    } catch (error) {
      return this.refuse.fault('verify', error)
    }
    try {
      const { clock = systemClock, timeoutMs = 5_000 } = keys
      options.cost = checkCost('cost', await inTime(clock, timeoutMs, costOf))
    } catch (error) {
      return this.refuse.fault('cost', error)
    }
    return options.cost === 0 ? this.conclude(looked, options.ip) : this.verify(asked)
  }

  private verify(asked: AskedOnce): Awaitable<Authentication> {
    const { options } = asked
    try {
      const verified = verifyOnce(asked)
      if (!isPromiseLike(verified)) return this.conclude(verified, options.ip)
      return verified
        .then((checked) => this.conclude(checked, options.ip))
        .then(undefined, (error) => this.refuse.fault('verify', error))
    } catch (error) {
      return this.refuse.fault('verify', error)
    }
  }

  private withoutKey(
    raw: RequestLike & object,
    ip: string | undefined,
    isOptional: boolean | undefined,
  ): Authentication {
    const hint = this.reader.hintFor(raw)
    if (hint === null) return this.refuse.missing()
    const misplaced = createMisplacedKey(this.keys, hint, ip)
    stateOf(raw).misplaced = misplaced
    if (!isOptional) misplaced.report()
    return this.refuse.missing(hint)
  }

  private conclude(
    verified: AdmittedRequest | RefusedKey,
    ip: string | undefined,
  ): Awaitable<Authentication> {
    if (!verified.ok) return this.refuse.key(verified)
    const { resolveUser } = this
    const { admission } = verified
    if (!resolveUser) return admit(verified, admission.apiKey.owner)
    if (admission.resolvedBy === resolveUser) return admit(verified, admission.user)
    return this.findUser(verified, ip, resolveUser)
  }

  private async findUser(
    verified: AdmittedRequest,
    ip: string | undefined,
    find: ResolveUser,
  ): Promise<Authentication> {
    const { admission } = verified
    try {
      const user: unknown = await find(admission.apiKey)
      if (user === null || user === undefined || user === false) {
        return this.refuse.user(admission.apiKey, ip)
      }
      admission.resolvedBy = find
      admission.user = user
      return admit(verified, user)
    } catch (error) {
      return this.refuse.fault('resolve_user', error)
    }
  }
}

function createMisplacedKey(keys: ApiKeyVerifier, hint: string, ip: string | undefined): MisplacedKey {
  let isReported = false
  return {
    hint,
    report() {
      if (isReported) return
      isReported = true
      keys.report?.({ type: 'refused', code: 'missing_key', reason: 'bearer_not_read', apiKey: null, ip })
    },
  }
}

function admit({ admission, limits }: AdmittedRequest, user: unknown): Authentication {
  return { ok: true, apiKey: admission.apiKey, user, limits }
}

/** A proxy that is trusted too far lets clients write anything. A text too long for an address counts as missing. */
const MAX_IP_LENGTH = 255

function isAddress(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && value.length <= MAX_IP_LENGTH
}
