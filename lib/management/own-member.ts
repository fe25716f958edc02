import { checkObject } from '../internal/options.ts'

/** Reads an object's own member. A polluted prototype must never grant a right or change a request. */
export function ownMember(object: object, name: string): unknown {
  return Object.hasOwn(object, name) ? (object as Record<string, unknown>)[name] : undefined
}

/**
 * Like `checkObject`, and also refuses known members that the object inherits from a class, such as getters: they would not count, and
 * a missing member usually means fewer bounds.
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

/** Whether a class of the object has such a member. `Object.prototype` is not a class here. */
function isOfClass(object: object, member: string): boolean {
  const prototype: object | null = Object.getPrototypeOf(object)
  if (prototype === null || Object.getPrototypeOf(prototype) === null) return false
  return Object.hasOwn(prototype, member) || isOfClass(prototype, member)
}
