import { isWebHeaders } from '../http/raw-request.ts'
import { OptionError } from '../internal/option-error.ts'
import { fail, isPlainObject } from '../internal/options.ts'

/**
 * Requires readable header fields: an object with lower-case names, as in Node, or a `Headers` object of any realm or package.
 * Latchkey would not see a key in anything else, and a login beside it would pass.
 *
 * @throws TypeError
 */
export function checkHeaderFields(headers: unknown): void {
  if (isWebHeaders(headers)) return
  if (!isPlainObject(headers) || !hasOwnMembersOnly(headers)) {
    fail('headers', 'an object of header fields, or a Headers', headers)
  }
  for (const [name, value] of Object.entries(headers)) {
    if (name !== name.toLowerCase()) throw new OptionError('headers', 'have its names in lower case')
    for (const line of Array.isArray(value) ? value : [value]) {
      if (typeof line !== 'string' && line !== undefined)
        fail('headers', 'an object of strings and arrays of strings', line)
    }
  }
}

/** An instance of a class may keep its fields elsewhere. Accepts the `Object.prototype` of another realm. */
function hasOwnMembersOnly(object: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(object)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}
