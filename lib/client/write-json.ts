import { isNumber } from '../internal/any-realm.ts'
import { looksLikeName } from '../internal/key-text.ts'

/**
 * Writes the JSON of a request.
 *
 * @throws TypeError for values that JSON would change: an invalid date, of any library, and `NaN` would become `null`, and the key
 * would never expire.
 */
export function writeJson(value: object): string {
  return JSON.stringify(value, function refuseLoss(this: Record<string, unknown>, name, shown) {
    // Valid dates are strings by now.
    if (shown === null && this[name] !== null) throw new TypeError(`"${nameOf(name)}" must be a valid Date`)
    if (isNumber(shown) && !Number.isFinite(Number(shown))) {
      throw new TypeError(`"${nameOf(name)}" must be a finite number`)
    }
    return shown
  })
}

/** A text that does not look like a name may be a key in the wrong place. */
function nameOf(name: string): string {
  return looksLikeName(name) || /^\d+$/.test(name) ? name : 'request'
}
