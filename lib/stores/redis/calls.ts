import { LatchkeyError } from '../../errors.ts'
import type { RedisStoreClient } from './client.ts'
import { createRedisLink, type RedisLink, toError } from './link.ts'
import type { RedisStoreSettings } from './options.ts'
import { confirm, learn } from './replicas.ts'
import { CLOCK, type StoreScript } from './scripts.ts'
import { groupByPlace } from './slots.ts'

export interface RedisCalls {
  readonly isCluster: boolean
  /** Runs a script. Returns its reply without the time and the replicas. */
  run(
    script: StoreScript,
    keys: readonly string[],
    args?: readonly (string | number)[],
  ): Promise<readonly unknown[]>
  /** Groups the items that one script can handle, at most 500: in a Cluster those of one slot, otherwise all. */
  byPlace<T>(items: readonly T[], keyOf: (item: T) => string): T[][]
  /**
   * Waits until enough replicas have what was written under these keys since a moment of `performance.now()`.
   *
   * @throws LatchkeyError `unavailable` if too few have it in time, or if a failover may have lost it.
   */
  confirm(keys: readonly string[], since: number): Promise<void>
  /** The time by a server's clock, in milliseconds. */
  now(): Promise<number>
}

/** Sends scripts. Every failure becomes an error without the command, which may hold values. */
export function createRedisCalls(client: RedisStoreClient, settings: RedisStoreSettings): RedisCalls {
  const link = createRedisLink(client, settings)
  return {
    isCluster: client.isCluster === true,
    run: (script, keys, args = []) => run(link, script, keys, args),
    byPlace: (items, keyOf) => groupByPlace(client, items, keyOf),
    confirm: (keys, since) => confirm(link, keys, since),
    now: () => now(link),
  }
}

async function run(
  link: RedisLink,
  script: StoreScript,
  keys: readonly string[],
  args: readonly (string | number)[],
): Promise<readonly unknown[]> {
  let reply: unknown
  try {
    reply = await link.runScript(script, keys.length, [...keys, ...args])
  } catch (error) {
    link.noteFailure(error)
    throw toError(error)
  }
  if (!Array.isArray(reply) || !Number.isFinite(Number(reply[0]))) {
    throw new LatchkeyError('malformed_record', 'Unexpected reply from Redis')
  }
  const [time, online, ...answer] = reply
  link.clockOffset = Number(time) - performance.now()
  if (script.writes) learn(link, keys[0] as string, online)
  return answer
}

async function now(link: RedisLink): Promise<number> {
  if (link.clockOffset === null) await run(link, CLOCK, [`${link.settings.keyPrefix}:w:{clock}`], [])
  return Math.floor(performance.now() + (link.clockOffset as number))
}
