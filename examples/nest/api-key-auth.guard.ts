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
 * Requests that the guard has let in, and for which route: as a global guard and as a route's own it runs twice. A handler
 * may pass its request on to another route with another requirement, and two controllers may inherit one handler.
 */
const admitted = new WeakMap<object, { readonly handler: unknown; readonly controller: unknown }>()

/** Lets in requests with a valid key that has the permissions of `@RequirePermissions()`. */
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
    // Passport also continues when a strategy decides nothing, and the whole process shares its strategies. So check that
    // these keys have verified the key of the request.
    await runMiddleware(this.requireApiKey, context)
    admitted.set(request, route)
    return true
  }

  /** What the strategy requires of the key. It refuses a key that lacks a permission before it charges it. */
  override getAuthenticateOptions(context: ExecutionContext) {
    const access = accessOf(this, 'apikey', context)
    const cost = costOf(this.reflector, context)
    return {
      ...(access.by === 'apikey' && access.permissions !== undefined && { permissions: access.permissions }),
      ...(cost !== undefined && { cost }),
    }
  }
}
