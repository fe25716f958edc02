import type { ExecutionContext } from '@nestjs/common'
import { Reflector } from '@nestjs/core'
import type { PermissionRequirement } from 'latchkey'

/** Whom a route lets in. */
export type RouteAccess =
  | { readonly by: 'apikey'; readonly permissions: PermissionRequirement }
  | { readonly by: 'session' }
  | { readonly by: 'either' }
  | { readonly by: 'anybody' }

/** Used by `@RequirePermissions()` and its like, which bring the guard along that enforces it. */
export const Access = Reflector.createDecorator<RouteAccess>()

/**
 * How many units of every limit and of the quota a request spends; 0 spends nothing.
 *
 * @default 1
 */
export const Cost = Reflector.createDecorator<number>()

/** What the handler says of itself or, where it says nothing, its controller. The two are never mixed. */
export function accessOf(reflector: Reflector, context: ExecutionContext): RouteAccess | undefined {
  return reflector.getAllAndOverride(Access, [context.getHandler(), context.getClass()])
}

export function costOf(reflector: Reflector, context: ExecutionContext): number | undefined {
  return reflector.getAllAndOverride(Cost, [context.getHandler(), context.getClass()])
}
