import { type CanActivate, type ExecutionContext, Inject, Injectable } from '@nestjs/common'
import { Reflector } from '@nestjs/core'
import { requireSession } from 'latchkey/express'
import { accessOf } from './route-access.ts'
import { runMiddleware } from './run-middleware.ts'

/** Lets login sessions pass that `markSession()` has marked, and no request that presents a key. */
@Injectable()
export class SessionGuard implements CanActivate {
  private readonly requireSession = requireSession({ refuseWith: 'error' })

  constructor(@Inject(Reflector) private readonly reflector: Reflector) {}

  async canActivate(context: ExecutionContext): Promise<boolean> {
    const access = accessOf(this.reflector, context)
    if (access && access.by !== 'session') return true
    await runMiddleware(this.requireSession, context)
    return true
  }
}
