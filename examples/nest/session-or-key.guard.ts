import { type ExecutionContext, Inject, Injectable } from '@nestjs/common'
import { Reflector } from '@nestjs/core'
import { AuthGuard } from '@nestjs/passport'
import type { RequestHandler } from 'express'
import { type ApiKeys, isLatchkeyError } from 'latchkey'
import { requireAuth } from 'latchkey/express'
import { accessOf, costOf } from './route-access.ts'
import { httpOf, runMiddleware } from './run-middleware.ts'
import { API_KEYS } from './tokens.ts'

/** Lets in a login session or a valid key. If the request has a key, it decides: a bad one is refused, with any cookie. */
@Injectable()
export class SessionOrKeyGuard extends AuthGuard('apikey') {
  private readonly requireEither: RequestHandler

  constructor(
    @Inject(Reflector) private readonly reflector: Reflector,
    @Inject(API_KEYS) keys: ApiKeys,
  ) {
    super()
    this.requireEither = requireAuth({ accept: ['session', 'apikey'], keys, refuseWith: 'error' })
  }

  override async canActivate(context: ExecutionContext): Promise<boolean> {
    if (accessOf(this, 'either', context).by !== 'either') return true
    httpOf(context)
    // Through the strategy, so that `validate()` runs on every route that takes keys.
    try {
      await super.canActivate(context)
    } catch (error) {
      // Without a key, the session counts. Every other refusal stands.
      if (!isLatchkeyError(error) || error.code !== 'missing_key') throw error
    }
    await runMiddleware(this.requireEither, context)
    return true
  }

  override getAuthenticateOptions(context: ExecutionContext) {
    const cost = costOf(this.reflector, context)
    return cost === undefined ? {} : { cost }
  }
}
