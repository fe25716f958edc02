import 'reflect-metadata'
import { applyDecorators, type CanActivate, type Type, UseGuards } from '@nestjs/common'
import type { Request } from 'express'
import { type RequestPermissions, requirePermissions } from 'latchkey/express'
import { ApiKeyAuthGuard } from './api-key-auth.guard.ts'
import { Access, type RouteAccess } from './route-access.ts'
import { SessionGuard } from './session.guard.ts'
import { SessionOrKeyGuard } from './session-or-key.guard.ts'

/**
 * Requires an API key with these permissions, or with those that a function of the request returns at once, on a handler or on all handlers of a controller. A handler's requirement
 * replaces its controller's. It applies its guard.
 *
 * @throws TypeError if the requirement is invalid, when the class is loaded
 * @example
 * @RequirePermissions({ projects: ['read'] })
 * @RequirePermissions((req) => ({ [`project:${req.params.id}`]: ['read'] }))
 */
export function RequirePermissions(permissions: RequestPermissions<Request>) {
  requirePermissions(permissions) // only to have it checked
  return letIn({ by: 'apikey', permissions }, ApiKeyAuthGuard)
}

/** Requires any valid API key, and applies its guard. */
export function RequireKey() {
  return letIn({ by: 'apikey' }, ApiKeyAuthGuard)
}

/** Requires a login session and refuses keys, and applies its guard. */
export function RequireSession() {
  return letIn({ by: 'session' }, SessionGuard)
}

/** Requires a login session or any valid key, and applies its guard. */
export function RequireSessionOrKey() {
  return letIn({ by: 'either' }, SessionOrKeyGuard)
}

/**
 * Lets everybody in, past a guard of the controller or of the whole application. A guard bound with `@UseGuards()` here, or
 * on a handler of this controller, stays active.
 */
export function Public() {
  return letIn({ by: 'anybody' })
}

function letIn(access: RouteAccess, ...guards: Type<CanActivate>[]): MethodDecorator & ClassDecorator {
  return applyDecorators(refuseSecond, Access(access), ...guards.map((guard) => UseGuards(guard)))
}

/** With two on one handler or controller, the upper would silently replace the lower. */
function refuseSecond(target: object, _name?: unknown, descriptor?: PropertyDescriptor): void {
  if (!Reflect.hasOwnMetadata(Access.KEY, descriptor?.value ?? target)) return
  throw new TypeError(
    'Two decorators here say whom the route lets in, and would replace each other: give one',
  )
}
