import { checkObject } from '../internal/options.ts'

/** A member that an object has itself; what somebody has put on a prototype is no right and no wish of anybody. */
export function ownMember(object: object, name: string): unknown {
  return Object.hasOwn(object, name) ? (object as Record<string, unknown>)[name] : undefined
}

/**
 * Requires an object as `checkObject` does, whose members are its own: those of a class, such as a getter, would not count, and what
 * is left out is as a rule less bounded.
 *
 * @throws TypeError
 */
export function checkOwnMembers(
  name: string,
  value: unknown,
  known: readonly string[],
): Record<string, unknown> {
  const given = checkObject(name, value, known)
  const inherited = known.find((member) => !Object.hasOwn(given, member) && isOfClass(given, member))
  if (inherited === undefined) return given
  throw new TypeError(`"${name}.${inherited}" must be a member of the object itself, and not of its class`)
}

/** Whether a class of the object has such a member; what somebody has put on `Object.prototype` is of no class. */
function isOfClass(object: object, member: string): boolean {
  const prototype: object | null = Object.getPrototypeOf(object)
  if (prototype === null || Object.getPrototypeOf(prototype) === null) return false
  return Object.hasOwn(prototype, member) || isOfClass(prototype, member)
}
