import { isWebHeaders } from '../http/raw-request.ts'
import { OptionError } from '../internal/option-error.ts'
import { fail, isPlainObject } from '../internal/options.ts'

/**
 * Requires header fields that can be read, all of them: an object by names in lower case as Node has it, or a `Headers`, of
 * whatever realm or package. A key in anything else would not be seen, and a login beside it would pass.
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

/** An instance of a class may keep its fields where nobody looks. `Object.prototype` of another realm is one as well. */
function hasOwnMembersOnly(object: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(object)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}
