/** Options with which Passport writes to, or reads from, a request's session. */
const SESSION_OPTIONS = [
  'failureMessage',
  'successMessage',
  'failureFlash',
  'successFlash',
  'successReturnToOrRedirect',
] as const

/**
 * Refuses route options that make Passport write to the session: any key, valid or not, would then change it and set a
 * cookie.
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
