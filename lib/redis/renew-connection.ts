/** How long to wait before reconnecting again. */
const RENEW_EVERY_MS = 5_000

/**
 * Reconnects when the server takes no writes. Behind some addresses another server takes over, and a connection to the old one would
 * stay with a replica that refuses every write.
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

/** Whether Redis refused to write because it is a replica. Redis 5 and 6 put that inside a script error. */
export function isReadOnlyError(error: unknown): boolean {
  return /\bREADONLY\b/.test(String((error as { message?: unknown } | null | undefined)?.message))
}

const UNCONNECTED = new Set(['connecting', 'connect', 'close', 'reconnecting'])

/** Whether a Redis client queues commands because it is not connected. A client that retries forever queues without a bound. */
export function isQueueing({ status }: { readonly status?: string }): boolean {
  return status !== undefined && UNCONNECTED.has(status)
}
