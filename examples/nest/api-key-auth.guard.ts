import { type ExecutionContext, Inject, Injectable } from '@nestjs/common'
import { Reflector } from '@nestjs/core'
import { AuthGuard } from '@nestjs/passport'
import type { RequestHandler } from 'express'
import type { ApiKeys } from 'latchkey'
import { requireApiKey } from 'latchkey/express'
import { accessOf, costOf } from './route-access.ts'
import { httpOf, runMiddleware } from './run-middleware.ts'
import { API_KEYS } from './tokens.ts'

/**
 * Requests that the guard has let pass, and to which route: as a global guard and a route's own it runs twice. A handler
 * may pass its request on to another route, which asks for something else, and two controllers may inherit one handler.
 */
const admitted = new WeakMap<object, { readonly handler: unknown; readonly controller: unknown }>()

/** Lets requests with a good key pass that holds what `@RequirePermissions()` asks for. */
@Injectable()
export class ApiKeyAuthGuard extends AuthGuard('apikey') {
  private readonly requireApiKey: RequestHandler

  constructor(
    @Inject(Reflector) private readonly reflector: Reflector,
    @Inject(API_KEYS) keys: ApiKeys,
  ) {
    super()
    this.requireApiKey = requireApiKey({ keys, refuseWith: 'error' })
  }

  override async canActivate(context: ExecutionContext): Promise<boolean> {
    if (accessOf(this, 'apikey', context).by !== 'apikey') return true
    const request: object = httpOf(context).getRequest()
    const route = { handler: context.getHandler(), controller: context.getClass() }
    const earlier = admitted.get(request)
    if (earlier?.handler === route.handler && earlier.controller === route.controller) return true
    await super.canActivate(context)
    // Passport also goes on where a strategy decides nothing, and its strategies are shared by all of a process: what
    // counts is that these keys have verified the request's.
    await runMiddleware(this.requireApiKey, context)
    admitted.set(request, route)
    return true
  }

  /** What the strategy is to ask of the key; a key that lacks a permission is refused before it is charged. */
  override getAuthenticateOptions(context: ExecutionContext) {
    const access = accessOf(this, 'apikey', context)
    const cost = costOf(this.reflector, context)
    return {
      ...(access.by === 'apikey' && access.permissions !== undefined && { permissions: access.permissions }),
      ...(cost !== undefined && { cost }),
    }
  }
}
