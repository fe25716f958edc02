import { isNumber } from '../internal/any-realm.ts'
import { looksLikeName } from '../internal/key-text.ts'

/**
 * The JSON of a request.
 *
 * @throws TypeError where JSON would say something else than was meant: an invalid date, of whatever library, or a number that
 * is none, becomes `null` there, and a key would never expire.
 */
export function writeJson(value: object): string {
  return JSON.stringify(value, function refuseLoss(this: Record<string, unknown>, name, shown) {
    // Dates have become texts by now, if they are any.
    if (shown === null && this[name] !== null) throw new TypeError(`"${nameOf(name)}" must be a valid Date`)
    if (isNumber(shown) && !Number.isFinite(Number(shown))) {
      throw new TypeError(`"${nameOf(name)}" must be a finite number`)
    }
    return shown
  })
}

/** What does not look like a name may be a key that somebody has put there. */
function nameOf(name: string): string {
  return looksLikeName(name) || /^\d+$/.test(name) ? name : 'request'
}
