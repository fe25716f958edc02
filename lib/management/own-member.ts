/** A member that an object has itself; what somebody has put on a prototype is no right and no wish of anybody. */
export function ownMember(object: object, name: string): unknown {
  return Object.hasOwn(object, name) ? (object as Record<string, unknown>)[name] : undefined
}
