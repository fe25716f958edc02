/** The warnings that were given. */
const given = new Set<string>()

/**
 * Tells the programmer of a mistake, once in the life of the process: clients choose what they send, and an application
 * may make a guard for every request, so that any second warning would let them fill the log.
 */
export function warnOnce(code: string, message: string): void {
  const warning = `${code} ${message}`
  if (given.has(warning)) return
  given.add(warning)
  process.emitWarning(message, { code })
}

/** For tests, which share a process. */
export function forgetWarnings(): void {
  given.clear()
}
