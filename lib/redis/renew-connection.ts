/** How often, at most, a connection is made anew. */
const RENEW_EVERY_MS = 5_000

/**
 * Leaves a connection to a server that takes no writes, and has another one made: behind some addresses another server takes
 * over, and the old one stays, as a replica that refuses every write for ever.
 *
 * Call the function with every error of the connection.
 */
export function createRenewal(renew: () => void, now: () => number): (error: unknown) => void {
  let renewedAt = -Infinity

  return (error) => {
    if (!isReadOnlyError(error) || now() - renewedAt < RENEW_EVERY_MS) return
    renewedAt = now()
    renew()
  }
}

/** Whether a Redis has refused to write because it is a replica. Redis 5 and 6 say so within what they say of a script. */
export function isReadOnlyError(error: unknown): boolean {
  return /\bREADONLY\b/.test(String((error as { message?: unknown } | null | undefined)?.message))
}

const UNCONNECTED = new Set(['connecting', 'connect', 'close', 'reconnecting'])

/** Whether a client of Redis queues what it is given: it is not connected. One that retries for ever queues without a bound. */
export function isQueueing({ status }: { readonly status?: string }): boolean {
  return status !== undefined && UNCONNECTED.has(status)
}
