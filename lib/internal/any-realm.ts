/**
 * What a value is, whatever realm made it: Jest and `node:vm` run code with classes of its own, of which the dates, errors and
 * arrays of the rest of the process are no instances. `instanceof` is for classes of this package alone.
 */

export function isDate(value: unknown): value is Date {
  return hasTag(value, 'Date')
}

export function isValidDate(value: unknown): value is Date {
  return isDate(value) && !Number.isNaN(value.getTime())
}

export function isRegExp(value: unknown): value is RegExp {
  return hasTag(value, 'RegExp')
}

/** A `Buffer` is one too. */
export function isUint8Array(value: unknown): value is Uint8Array {
  return ArrayBuffer.isView(value) && hasTag(value, 'Uint8Array')
}

/** A number, or the object that `new Number` makes of one. */
export function isNumber(value: unknown): boolean {
  return typeof value === 'number' || hasTag(value, 'Number')
}

export function isError(value: unknown): value is Error {
  return hasTag(value, 'Error') || hasTag(value, 'DOMException')
}

export function isTypeError(value: unknown): value is TypeError {
  return isError(value) && value.name === 'TypeError'
}

/** What an error says; empty for what says nothing. */
export function messageOf(error: unknown): string {
  const message = (error as { message?: unknown } | null | undefined)?.message
  return typeof message === 'string' ? message : ''
}

/** By what the language itself knows of an object, which no prototype changes. */
function hasTag(value: unknown, tag: string): boolean {
  return typeof value === 'object' && Object.prototype.toString.call(value) === `[object ${tag}]`
}
