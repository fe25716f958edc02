/** What Passport writes into, or takes from, the session of a request. */
const SESSION_OPTIONS = [
  'failureMessage',
  'successMessage',
  'failureFlash',
  'successFlash',
  'successReturnToOrRedirect',
] as const

/**
 * Requires options of a route with which Passport leaves the session alone: a key, good or bad, would make it write there and
 * set a cookie.
 *
 * @throws TypeError naming the option.
 */
export function checkSessionOptions(options: object): void {
  const given = options as Partial<Record<(typeof SESSION_OPTIONS)[number], unknown>>
  const name = SESSION_OPTIONS.find((option) => given[option])
  if (name === undefined) return
  throw new TypeError(
    `"${name}" makes Passport change the session, which API keys never touch; use "failureRedirect", "successRedirect" or a callback`,
  )
}
