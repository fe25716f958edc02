import { type CanActivate, type ExecutionContext, Inject, Injectable } from '@nestjs/common'
import { Reflector } from '@nestjs/core'
import type { RequestHandler } from 'express'
import type { ApiKeys } from 'latchkey'
import { apiKeyAuth, requireAuth } from 'latchkey/express'
import { accessOf } from './route-access.ts'
import { runMiddleware } from './run-middleware.ts'
import { API_KEYS, USERS } from './tokens.ts'
import { ownerFinder, type Users } from './users.ts'

/** Lets a login session or a good key pass. Where a key is sent it decides: a bad one is refused, whatever cookie comes with it. */
@Injectable()
export class SessionOrKeyGuard implements CanActivate {
  private readonly readKey: RequestHandler
  private readonly requireEither: RequestHandler

  constructor(
    @Inject(Reflector) private readonly reflector: Reflector,
    @Inject(API_KEYS) keys: ApiKeys,
    @Inject(USERS) users: Users,
  ) {
    const resolveUser = ownerFinder(users)
    this.readKey = apiKeyAuth(keys, { required: false, resolveUser, refuseWith: 'error' })
    this.requireEither = requireAuth({ accept: ['session', 'apikey'], keys, refuseWith: 'error' })
  }

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const access = accessOf(this.reflector, context)
    if (access && access.by !== 'either') return true
    await runMiddleware(this.readKey, context)
    await runMiddleware(this.requireEither, context)
    return true
  }
}
