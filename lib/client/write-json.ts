/**
 * The JSON of a request.
 *
 * @throws TypeError where JSON would say something else than was meant: an invalid date, or a number that is none, becomes
 * `null` there, and a key would never expire.
 */
export function writeJson(value: object): string {
  return JSON.stringify(value, function refuseLoss(this: Record<string, unknown>, name, shown) {
    const isInvalidDate = this[name] instanceof Date && shown === null
    if (isInvalidDate) throw new TypeError(`"${name}" must be a valid Date`)
    if (typeof shown === 'number' && !Number.isFinite(shown)) {
      throw new TypeError(`"${name}" must be a finite number`)
    }
    return shown
  })
}
