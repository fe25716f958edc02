import 'reflect-metadata'
import type { CanActivate, ExecutionContext } from '@nestjs/common'
import { GUARDS_METADATA } from '@nestjs/common/constants.js'
import { Reflector } from '@nestjs/core'
import type { Request } from 'express'
import type { RequestPermissions } from 'latchkey/express'

/** What a route lets in. */
export type RouteAccess =
  | { readonly by: 'apikey'; readonly permissions?: RequestPermissions<Request> }
  | { readonly by: 'session' }
  | { readonly by: 'either' }
  | { readonly by: 'anybody' }

/** For `@RequirePermissions()` and similar decorators, which apply the guard that enforces them. */
export const Access = Reflector.createDecorator<RouteAccess>()

const Units = Reflector.createDecorator<number>()

/**
 * How many units of every limit and of the quota a request with a key spends; 0 spends nothing. Without it, 1.
 *
 * @throws TypeError if the number is invalid, when the class is loaded
 */
export function Cost(units: number): MethodDecorator & ClassDecorator {
  if (!Number.isSafeInteger(units) || units < 0) {
    throw new TypeError(`@Cost() takes an integer of 0 or more, received ${String(units)}`)
  }
  return Units(units)
}

/**
 * What `guard`, which handles the method `by`, requires of a request: the handler's requirement or, without one, its
 * controller's. The two are never combined. A controller does not switch off a guard on its handler.
 */
export function accessOf(guard: CanActivate, by: RouteAccess['by'], context: ExecutionContext): RouteAccess {
  let isBound = false
  for (const target of levelsOf(context)) {
    isBound ||= isBoundOn(target, guard)
    const said: RouteAccess | undefined = Reflect.getOwnMetadata(Access.KEY, target)
    if (said) return isBound && said.by !== by ? { by } : said
  }
  return { by }
}

export function costOf(reflector: Reflector, context: ExecutionContext): number | undefined {
  return reflector.getAllAndOverride(Units, [context.getHandler(), context.getClass()])
}

/** The handler, its controller, and the classes that the controller extends. */
function* levelsOf(context: ExecutionContext): Generator<object> {
  yield context.getHandler()
  let level: unknown = context.getClass()
  while (typeof level === 'function') {
    yield level
    level = Object.getPrototypeOf(level)
  }
}

/** Whether `@UseGuards()` here names this guard. Nest puts the guards of a base class before those of the class itself. */
function isBoundOn(target: object, guard: CanActivate): boolean {
  const bound: unknown[] = Reflect.getOwnMetadata(GUARDS_METADATA, target) ?? []
  const inherited: unknown[] = Reflect.getMetadata(GUARDS_METADATA, Object.getPrototypeOf(target)) ?? []
  return bound
    .slice(inherited.length)
    .some((each) => each === guard || (typeof each === 'function' && guard instanceof each))
}
