/** When each warning was given last, by its code and what it is about. */
const given = new Map<string, number>()

/**
 * Tells the programmer of a mistake, once in the life of the process: clients choose what they send, and an application
 * may make a guard for every request, so that any second warning would let them fill the log.
 */
export function warnOnce(code: string, message: string): void {
  const warning = `${code} ${message}`
  if (given.has(warning)) return
  given.set(warning, 0)
  process.emitWarning(message, { code })
}

/**
 * Tells of what goes on failing, once within `everyMs` for each code and subject, of which there must be few.
 *
 * @param now by whichever clock: where it was set back, the warning is given
 */
export function warnEvery(
  everyMs: number,
  now: number,
  code: string,
  subject: string,
  message: string,
): void {
  const warning = `${code} ${subject}`
  const sinceMs = now - (given.get(warning) ?? -Infinity)
  if (sinceMs >= 0 && sinceMs < everyMs) return
  given.set(warning, now)
  process.emitWarning(message, { code })
}

/** For tests, which share a process. */
export function forgetWarnings(): void {
  given.clear()
}
