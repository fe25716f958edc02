import { isDate, isValidDate } from './any-realm.ts'
import { holdsKey, looksLikeName } from './key-text.ts'
import { OptionError } from './option-error.ts'

/**
 * Checks of what a programmer hands in. Every message names the option and the kind of value received. The text of a string is
 * repeated only where a number, a boolean or one of a few words belongs, and only a short word: anything else may be a secret in the wrong place.
 */

/** The kind of a value, and the value itself only where it cannot be a secret. */
export function describe(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'an array'
  if (isDate(value)) return isValidDate(value) ? 'a date' : 'an invalid date'
  switch (typeof value) {
    case 'undefined':
      return 'undefined'
    case 'number':
    case 'boolean':
      return String(value)
    case 'string':
      return value === '' ? 'an empty string' : 'a string'
    case 'object':
      return 'an object'
    default:
      return `a ${typeof value}`
  }
}

/** Refuses the value of an option, which `received` describes. @throws TypeError always */
export function fail(name: string, expected: string, value: unknown, received = describe(value)): never {
  const must = `be ${expected}`
  throw new OptionError(name, must, `"${name}" must ${must}, received ${received}`)
}

const SHORT_WORD = /^[\w .-]{1,12}$/

/** The same as `describe`, for a value in place of a number, a boolean or one of a few words: `'5m'` and `'yes'` are shown. */
export function describePlain(value: unknown): string {
  return typeof value === 'string' && SHORT_WORD.test(value) ? `the string '${value}'` : describe(value)
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** An object that is meant as a record: a Map, a date or a promise has members of another kind, and would read as empty. */
export function isPlainObject(value: unknown): value is Record<string, unknown> {
  return isObject(value) && Object.prototype.toString.call(value) === '[object Object]'
}

/**
 * Requires an object that has none but the `known` members. An unknown one is refused with its new name, if it has been `renamed`,
 * or with the nearest known name.
 */
export function checkObject(
  name: string,
  value: unknown,
  known: readonly string[],
  renamed: Readonly<Record<string, string>> = {},
): Record<string, unknown> {
  if (!isPlainObject(value)) fail(name, 'an object', value)
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue
    throw new OptionError(
      name,
      'have no members but those that it is known to have',
      Object.hasOwn(renamed, key)
        ? `"${name}" has no option "${key}": it is called "${renamed[key]}" now`
        : unknownOption(name, key, known),
    )
  }
  return value
}

function unknownOption(name: string, key: string, known: readonly string[]): string {
  if (!looksLikeName(key)) return `"${name}" has an option whose name is unknown and not shown`
  const near = nearest(key, known)
  return `"${name}" has no option "${key}"${near ? `; did you mean "${near}"?` : ''}`
}

export function checkFunction(name: string, value: unknown): void {
  if (typeof value !== 'function') fail(name, 'a function', value)
}

/** Requires an object with these methods: a part that an application hands in. */
export function checkMethods(name: string, value: unknown, methods: readonly string[]): void {
  for (const method of methods) {
    if (typeof (value as Record<string, unknown> | null | undefined)?.[method] !== 'function') {
      throw new OptionError(name, `have a method "${method}"`)
    }
  }
}

export function checkBoolean(name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') fail(name, 'true or false', value, describePlain(value))
  return value
}

/** Requires one of a few values, such as words or false. */
export function checkOneOf<T extends string | false>(
  name: string,
  value: unknown,
  known: readonly T[],
  note = '',
): T {
  const found = known.find((one) => one === value)
  return found ?? fail(name, oneOf(known) + note, value, describePlain(value))
}

function oneOf(known: readonly (string | false)[]): string {
  const shown = known.map((one) => (one === false ? 'false' : `"${one}"`))
  return `${shown.slice(0, -1).join(', ')} or ${shown.at(-1)}`
}

export function checkInteger(name: string, value: unknown, min: number, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
  if (min === 1 && typeof value === 'number' && value < 1) fail(name, 'a positive integer', value)
  return fail(name, `an integer from ${min} to ${max}`, value, describePlain(value))
}

/** Requires a positive integer, or `false`, which switches off what it is about: 0 never does. */
export function checkIntegerOrFalse(name: string, value: unknown, max: number): number | false {
  if (value === false) return false
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= max) return value
  if (typeof value === 'number' && value < 1) fail(name, 'a positive integer or false', value)
  return fail(name, `an integer from 1 to ${max}, or false`, value, describePlain(value))
}

/** Requires a positive integer in a group of options. For 0, the error says that `false` switches off the whole group. */
export function checkIntegerOfGroup(group: string, member: string, value: unknown, max: number): number {
  const name = `${group}.${member}`
  if (value === 0) fail(name, 'a positive integer', value, `0; to switch it off, set "${group}" to false`)
  return checkInteger(name, value, 1, max)
}

export function checkText(name: string, value: unknown, maxLength: number): string {
  if (typeof value !== 'string' || value === '') fail(name, 'a non-empty string', value)
  if (isLonger(value, maxLength)) throw new OptionError(name, `be at most ${maxLength} characters long`)
  if (!isStorable(value)) throw new OptionError(name, 'be well-formed Unicode without NUL')
  return value
}

/** Whether a text has more characters. As JSON Schema counts them, an emoji is one, though two units of UTF-16. */
export function isLonger(text: string, maxLength: number): boolean {
  if (text.length <= maxLength) return false
  return text.length > 2 * maxLength || [...text].length > maxLength
}

/** The same for a text of people, which is stored and shown: nobody is to find a key in it. @throws TypeError */
export function checkShownText(name: string, value: unknown, maxLength: number): string {
  const text = checkText(name, value, maxLength)
  if (holdsKey(text)) throw new OptionError(name, 'not hold the text of a key')
  return text
}

/** Whether every database can hold a text as it is: none of its surrogates is alone, and there is no NUL. */
export function isStorable(text: string): boolean {
  // Nearly all texts pass the first test, which is the quicker one.
  return !/[\0\ud800-\udfff]/.test(text) || !/[\0\ud800-\udfff]/u.test(text)
}

export function checkDate(name: string, value: unknown): Date {
  if (!isValidDate(value)) fail(name, 'a valid Date', value)
  return value
}

export function checkArray(name: string, value: unknown, maxLength: number): readonly unknown[] {
  if (!Array.isArray(value)) fail(name, 'an array', value)
  if (value.length > maxLength) throw new OptionError(name, `have at most ${maxLength} entries`)
  // A hole becomes undefined, which every check of the entries sees.
  return [...value]
}

/** The known name within two edits of `key`, if there is one: every name of two letters is two edits from every other. */
export function nearest(key: string, known: readonly string[]): string | undefined {
  const ranked = known
    .map((name) => ({ name, distance: editDistance(key.toLowerCase(), name.toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)
  const best = ranked[0]
  return best && best.distance <= 2 && best.distance < best.name.length ? best.name : undefined
}

function editDistance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2) return 3
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const swap = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(swap, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? 0
}
