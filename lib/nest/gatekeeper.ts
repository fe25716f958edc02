import type { ExecutionContext } from '@nestjs/common'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import type { LatchkeyError } from '../errors.ts'
import { getAuth } from '../http/auth-mark.ts'
import {
  AUTHENTICATOR_OPTIONS,
  type Authenticator,
  type AuthenticatorOptions,
  createAuthenticator,
} from '../http/authenticate-request.ts'
import { type Authentication, applyOutcome } from '../http/authentication.ts'
import { keepFailureFields } from '../http/failed-response.ts'
import {
  apiKeyGuard,
  authGuard,
  checkRefuseWith,
  type Guard,
  type RefusalOptions,
  sessionGuard,
} from '../http/guards.ts'
import { setRateLimitFields } from '../http/header-fields.ts'
import { isPromiseLike } from '../internal/awaitable.ts'
import { checkBoolean, checkFunction, checkObject } from '../internal/options.ts'
import type { RouteAccess } from './access.ts'
import {
  addressOf,
  exchangeOf,
  type HttpExchange,
  type HttpRequest,
  showAuth,
  takeUser,
} from './http-exchange.ts'
import { LatchkeyException } from './latchkey-exception.ts'

/** What all routes have in common. */
export interface LatchkeyModuleOptions<User = unknown, Request = HttpRequest>
  extends AuthenticatorOptions<User>,
    RefusalOptions {
  /** Verifies the keys: the result of `createApiKeys`. */
  keys: ApiKeyVerifier
  /**
   * Whether the guard is on every route of the application: a route without a decorator then needs a valid key. With `false`, only
   * routes with a decorator of this package, or with `@UseGuards(LatchkeyGuard)`, are guarded, and all others are open.
   *
   * @default true
   */
  globalGuard?: boolean
  /**
   * Reads the client's address, for `allowedIps` and `lastUsedIp`.
   *
   * @default (req) => req.ip, which follows `trust proxy` of Express and `trustProxy` of Fastify
   */
  ip?: (request: Request) => string | undefined
}

/** One match of a route: a router makes the parameters anew each time that it hands on a request. */
interface Route {
  readonly method: object
  readonly controller: object
  readonly params: unknown
}

/** Decides for every guard of an application. */
export class Gatekeeper {
  readonly keys: ApiKeyVerifier
  readonly globalGuard: boolean
  readonly refuseWith: 'problem' | 'error'
  private readonly authenticator: Authenticator
  private readonly readIp: (request: object) => unknown
  private readonly guards: Readonly<Record<'apikey' | 'session' | 'either', Guard>>
  /** The route that each request was let in to: the guard of the application and that of the route are the same twice. */
  private readonly admitted = new WeakMap<object, Route>()

  /** @throws TypeError when an option is wrong or unknown, naming it. */
  constructor(options: LatchkeyModuleOptions<unknown, never>) {
    checkObject('options', options, [...AUTHENTICATOR_OPTIONS, 'keys', 'globalGuard', 'ip', 'refuseWith'])
    const {
      keys,
      globalGuard = true,
      ip = addressOf,
      refuseWith = 'problem',
      headers,
      scheme,
      bearer,
    } = options
    checkBoolean('globalGuard', globalGuard)
    checkFunction('ip', ip)
    checkRefuseWith(refuseWith)
    this.keys = keys
    this.globalGuard = globalGuard
    this.refuseWith = refuseWith
    this.readIp = ip as (request: object) => unknown
    this.authenticator = createAuthenticator(keys, options)
    const places = {
      keys,
      ...(headers !== undefined && { headers }),
      ...(scheme !== undefined && { scheme }),
      ...(bearer !== undefined && { bearer }),
    }
    this.guards = {
      apikey: apiKeyGuard({ keys }),
      session: sessionGuard(places),
      either: authGuard({ ...places, accept: ['session', 'apikey'] }),
    }
  }

  /**
   * Lets a request in, or throws what refuses it.
   *
   * @throws LatchkeyException the refusal.
   * @throws Error for a message that is not of HTTP, unless its handler is public.
   */
  admit(access: RouteAccess, context: ExecutionContext): true | Promise<true> {
    if (access.by === 'anybody') return true
    const exchange = exchangeOf(context)
    const { request, parts } = exchange
    takeUser(request)
    const { params } = request as { params?: unknown }
    const route = { method: context.getHandler(), controller: context.getClass(), params }
    if (access.by === 'session' || this.isAdmitted(parts.raw, route)) return this.pass(exchange, access.by)
    const outcome = this.authenticator.authenticate(
      parts,
      access.checks(request as never),
      this.readIp(request),
    )
    return isPromiseLike(outcome)
      ? Promise.resolve(outcome).then((settled) => this.conclude(exchange, settled, access.by, route))
      : this.conclude(exchange, outcome, access.by, route)
  }

  private conclude(
    exchange: HttpExchange,
    outcome: Authentication,
    by: 'apikey' | 'either',
    route: Route,
  ): true {
    const { parts, fields } = exchange
    applyOutcome(parts, this.keys, outcome)
    if (outcome.ok) {
      // While the store was asked, somebody else may have answered.
      if (!fields.headersSent) setRateLimitFields(fields, outcome.limits, this.authenticator.rateLimitHeaders)
    } else if (outcome.presented || by === 'apikey') return refuse(exchange, outcome.error)
    this.pass(exchange, by)
    this.admitted.set(parts.raw, route)
    return true
  }

  /** Checks what is known of the request by now. */
  private pass(exchange: HttpExchange, by: keyof Gatekeeper['guards']): true {
    const refusal = this.guards[by](exchange.parts.raw)
    if (refusal) return refuse(exchange, refusal)
    showAuth(exchange.request)
    return true
  }

  private isAdmitted(raw: object, { method, controller, params }: Route): boolean {
    const earlier = this.admitted.get(raw)
    return earlier?.method === method && earlier.controller === controller && earlier.params === params
  }
}

/** Whoever renders the refusal, its header fields are sent. */
function refuse({ request, parts, response }: HttpExchange, error: LatchkeyError): never {
  if (getAuth(parts.raw).method === 'rejected') showAuth(request)
  keepFailureFields(response, error)
  throw new LatchkeyException(error)
}
