import { LatchkeyError } from '../../errors.ts'
import { messageOf } from '../../internal/any-realm.ts'
import { errorWords } from '../../redis/error-words.ts'
import { createRenewal, isReadOnlyError } from '../../redis/renew-connection.ts'
import { createScriptRunner, type RunScript } from '../../redis/run-script.ts'
import type { RedisStoreClient } from './client.ts'
import type { RedisStoreSettings } from './options.ts'

/** The client, its settings, and what replies have told about the servers. */
export interface RedisLink {
  readonly client: RedisStoreClient
  readonly settings: RedisStoreSettings
  readonly runScript: RunScript
  /** Reconnects if the error says that the server has become a replica. */
  readonly noteFailure: (error: unknown) => void
  /** Every server that was written to, by slot: in a Cluster, slots move between servers. */
  readonly servers: Map<number, Server>
  /** How far a server's clock is ahead of `performance.now()`; null before the first reply. */
  clockOffset: number | null
}

/** A server as its last reply to a write showed it. */
export interface Server {
  /** How many replicas were connected; null if this user may not ask. */
  readonly online: number | null
  /** The name of the server's history, which a failover changes. */
  readonly history: string
  /** When that name last changed, by `performance.now()`. */
  readonly changedAt: number
}

export function createRedisLink(client: RedisStoreClient, settings: RedisStoreSettings): RedisLink {
  return {
    client,
    settings,
    runScript: createScriptRunner(() => client),
    noteFailure: createRenewal(
      () => client.disconnect?.(true),
      () => performance.now(),
    ),
    servers: new Map(),
    clockOffset: null,
  }
}

/**
 * The error without the command. An error about the server itself gets a code. After any other, nobody knows whether Redis made the change, and the core reads it again.
 */
export function toError(error: unknown): Error {
  const message = messageOf(error)
  const words = errorWords(error)
  const cause = new Error(words)
  if (/\bWRONGTYPE\b/.test(message)) {
    return new LatchkeyError(
      'malformed_record',
      'Redis holds a value of another type under a key of the store',
      {
        cause,
      },
    )
  }
  if (isReadOnlyError(error)) {
    return new LatchkeyError('read_only', 'This Redis is a replica: it takes no writes', { cause })
  }
  return new Error(`Redis failed: ${words}`)
}
