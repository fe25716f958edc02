import type { ExecutionContext } from '@nestjs/common'
import { GUARDS_METADATA } from '@nestjs/common/constants.js'
import type { CheckOptions } from '../http/authenticate-request.ts'
import { checksFor } from '../http/middleware.ts'
import { defineMetadata, inheritedMetadata, ownMetadata } from './metadata.ts'

/** What a route lets in. */
export type RouteAccess =
  | {
      readonly by: 'apikey' | 'either'
      /** What a request is asked for. */
      readonly checks: (request: never) => CheckOptions
    }
  | { readonly by: 'session' }
  | { readonly by: 'anybody' }

/** On a guard class of this package: whichever copy of it the class is from. */
export const GUARD = Symbol.for('latchkey.nest.guard')

const ACCESS = 'latchkey:access'

const ANY_KEY: RouteAccess = Object.freeze({ by: 'apikey', checks: checksFor({}) })

/** Says on a controller, or on one of its methods, what it lets in. */
export function saysAccess(
  name: string,
  access: RouteAccess,
): (target: object, member?: string | symbol, descriptor?: PropertyDescriptor) => void {
  return (target, member, descriptor) => {
    const place: unknown = member === undefined ? target : descriptor?.value
    if (typeof place !== 'function') {
      throw new TypeError(
        `@${name}() belongs on a controller or on one of its methods, with "experimentalDecorators" in tsconfig.json`,
      )
    }
    const said = member === undefined ? undefined : ownMetadata(accessOfMember(member), target)
    if ((said ?? ownMetadata(ACCESS, place)) !== undefined) {
      throw new TypeError(
        `@${name}() meets another decorator here that says whom the route lets in, and one would replace the other: keep one`,
      )
    }
    defineMetadata(ACCESS, access, place)
    if (member !== undefined) defineMetadata(accessOfMember(member), access, target)
  }
}

/** Also by its name: another decorator may put a function of its own in the place of a method, without its metadata. */
function accessOfMember(member: string | symbol): string {
  return `${ACCESS}:${String(member)}`
}

/** By method, then by controller: two controllers may inherit one method. */
const known = new WeakMap<object, WeakMap<object, RouteAccess>>()

/**
 * What a route lets in: what its method says or, without a word there, its controller. The two are never combined. Without any, a
 * valid key. `@Public()` does not switch off a guard that `@UseGuards()` binds in the same place or nearer to the method.
 */
export function accessOf(context: ExecutionContext): RouteAccess {
  const [method, controller] = [context.getHandler(), context.getClass()]
  let byController = known.get(method)
  if (!byController) {
    byController = new WeakMap()
    known.set(method, byController)
  }
  let access = byController.get(controller)
  if (!access) {
    access = findAccess(method, controller)
    byController.set(controller, access)
  }
  return access
}

function findAccess(handler: object, controller: object): RouteAccess {
  const classes = classesOf(controller)
  const { method, said: saidByName } = declarationOf(handler, classes)
  let isBound = false
  for (const place of [handler, method, ...classes]) {
    isBound ||= isBoundOn(place)
    const said = (ownMetadata(ACCESS, place) ?? (place === method && saidByName)) as RouteAccess | false
    if (said) return isBound && said.by === 'anybody' ? ANY_KEY : said
  }
  return ANY_KEY
}

/** A method of a controller, and what was said of its name. */
interface Declaration {
  readonly name: string
  readonly method: object
  readonly said?: unknown
}

/**
 * The method that a handler is, or stands for: a constructor may have put another function in its place, as with `bind`, which keeps the
 * name.
 *
 * @throws Error if it may stand for any method, and some let in other requests than their controller.
 */
function declarationOf(handler: object, classes: readonly ControllerClass[]): Declaration {
  const all = classes.flatMap(declarationsIn)
  const name = String((handler as { name?: unknown }).name).replace(/^(?:bound )+/, '')
  const found = all.find(({ method }) => method === handler) ?? all.find((declared) => declared.name === name)
  if (found) return found
  const isNothingSaid = all.every(({ method, said }) => said === undefined && !isBoundOn(method))
  if (isNothingSaid || ownMetadata(ACCESS, handler) !== undefined) return { name, method: handler }
  throw new Error(
    `one route of ${classes[0]?.name} runs a function that is not one of its methods, so the guard cannot find its requirements: ` +
      'give the function the name of its method, or copy the metadata of the method',
  )
}

function declarationsIn({ prototype }: ControllerClass): Declaration[] {
  return Object.entries(Object.getOwnPropertyDescriptors(prototype)).flatMap(([name, { value: method }]) =>
    typeof method === 'function' ? { name, method, said: ownMetadata(accessOfMember(name), prototype) } : [],
  )
}

/** The name of a method that needs a guard, and has lost it to another function in its place. */
export function methodWithoutGuard(instance: object, controller: object): string | undefined {
  if (guardsOn(inheritedMetadata(GUARDS_METADATA, controller)).some(isGuard)) return undefined
  const seen = new Set<string>()
  for (const { name, method, said } of classesOf(controller).flatMap(declarationsIn)) {
    const handler = (instance as Record<string, unknown>)[name]
    const isGuarded = isBoundOn(method) || (said !== undefined && (said as RouteAccess).by !== 'anybody')
    if (isGuarded && !seen.has(name) && typeof handler === 'function' && !isBoundOn(handler)) return name
    seen.add(name)
  }
  return undefined
}

interface ControllerClass {
  readonly name: string
  readonly prototype: object
}

/** A class, and those that it extends. */
function classesOf(controller: object): ControllerClass[] {
  const parent: unknown = Object.getPrototypeOf(controller)
  const parents = typeof parent === 'function' && Object.hasOwn(parent, 'prototype') ? classesOf(parent) : []
  return [controller as ControllerClass, ...parents]
}

/** Whether `@UseGuards()` here names our guard. Nest puts the guards of a base class before those of the class itself. */
function isBoundOn(place: object): boolean {
  const bound = guardsOn(ownMetadata(GUARDS_METADATA, place))
  const inherited = guardsOn(inheritedMetadata(GUARDS_METADATA, Object.getPrototypeOf(place)))
  return bound.slice(inherited.length).some(isGuard)
}

function guardsOn(guards: unknown): readonly unknown[] {
  return Array.isArray(guards) ? guards : []
}

function isGuard(guard: unknown): boolean {
  const type = typeof guard === 'function' ? guard : (guard as object | null)?.constructor
  return type !== undefined && GUARD in type
}
