import { type CanActivate, type ExecutionContext, Inject, Injectable, Optional } from '@nestjs/common'
import { accessOf, GUARD } from './access.ts'
import type { Gatekeeper } from './gatekeeper.ts'
import { GATEKEEPER } from './tokens.ts'

/**
 * Checks what the decorators of a route require; without any, a valid key. `LatchkeyModule` puts it on every route, and the
 * decorators on theirs, so that you name it only with `globalGuard: false`.
 *
 * @throws Error when `LatchkeyModule` is not imported.
 */
export class LatchkeyGuard implements CanActivate {
  private readonly gatekeeper: Gatekeeper

  constructor(gatekeeper?: unknown) {
    if (!gatekeeper) {
      throw new Error(
        'a route needs an API key or a session, and nothing checks them: add LatchkeyModule.forRoot({ keys }) to the imports of the root module',
      )
    }
    this.gatekeeper = gatekeeper as Gatekeeper
  }

  canActivate(context: ExecutionContext): boolean | Promise<boolean> {
    return this.gatekeeper.admit(accessOf(context), context)
  }
}

Object.defineProperty(LatchkeyGuard, GUARD, { value: true })
Injectable()(LatchkeyGuard)
Optional()(LatchkeyGuard, undefined, 0)
Inject(GATEKEEPER)(LatchkeyGuard, undefined, 0)
