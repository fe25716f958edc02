import { type CanActivate, type ExecutionContext, Injectable } from '@nestjs/common'
import { requireSession } from 'latchkey/express'
import { accessOf } from './route-access.ts'
import { runMiddleware } from './run-middleware.ts'

/** Lets in login sessions that `markSession()` has marked, and no request that presents a key. */
@Injectable()
export class SessionGuard implements CanActivate {
  private readonly requireSession = requireSession({ refuseWith: 'error' })

  async canActivate(context: ExecutionContext): Promise<boolean> {
    if (accessOf(this, 'session', context).by !== 'session') return true
    await runMiddleware(this.requireSession, context)
    return true
  }
}
