import keySlot from 'cluster-key-slot'
import { LatchkeyError } from '../errors.ts'
import type { RedisStoreClient } from './redis-client.ts'
import type { RedisStoreSettings } from './redis-options.ts'
import { CLOCK, type Script } from './redis-scripts.ts'

export interface RedisCalls {
  /** Runs a script, and answers what it does behind the time and the replicas. */
  run(
    script: Script,
    keys: readonly string[],
    args?: readonly (string | number)[],
  ): Promise<readonly unknown[]>
  /** Puts together what one script can do: in a Cluster what is in one slot, otherwise everything. */
  byPlace<T>(items: readonly T[], keyOf: (item: T) => string): T[][]
  /**
   * Waits until replicas have what was written on the servers of these keys.
   *
   * @throws LatchkeyError `unavailable` where too few of them have it in time.
   */
  confirm(keys: readonly string[]): Promise<void>
  /** The time by a server's clock, in milliseconds. */
  now(): Promise<number>
}

/** Sends scripts; every failure becomes an error of ours, without what was sent. */
export function createRedisCalls(client: RedisStoreClient, settings: RedisStoreSettings): RedisCalls {
  const { keyPrefix, replicas, waitMs } = settings
  /** Of each server, how many replicas it had when it last wrote; -1 if it may not say. */
  const connected = new Map<string, number>()
  let clockOffset: number | null = null

  async function run(script: Script, keys: readonly string[], args: readonly (string | number)[] = []) {
    const given = [...keys, ...args]
    let reply: unknown
    try {
      reply = await client.evalsha(script.sha, keys.length, ...given).catch((error: unknown) => {
        if (!messageOf(error).startsWith('NOSCRIPT')) throw error
        return client.eval(script.source, keys.length, ...given)
      })
    } catch (error) {
      throw toError(error)
    }
    if (!Array.isArray(reply) || !Number.isFinite(Number(reply[0]))) {
      throw new LatchkeyError('malformed_record', 'Redis answered something that is no answer')
    }
    const [time, online, ...answer] = reply
    clockOffset = Number(time) - performance.now()
    if (Number(online) >= -1) connected.set(serverOf(keys[0] as string), Number(online))
    return answer
  }

  function byPlace<T>(items: readonly T[], keyOf: (item: T) => string): T[][] {
    if (!client.isCluster) return items.length > 0 ? [[...items]] : []
    const places = new Map<number, T[]>()
    for (const item of items) {
      const slot = keySlot(keyOf(item))
      places.set(slot, [...(places.get(slot) ?? []), item])
    }
    return [...places].toSorted(([a], [b]) => a - b).map(([, place]) => place)
  }

  async function confirm(keys: readonly string[]): Promise<void> {
    if (replicas === 0) return
    const keyByServer = new Map(keys.map((key) => [serverOf(key), key]))
    await Promise.all([...keyByServer].map(([server, key]) => confirmOne(server, key)))
  }

  async function confirmOne(server: string, key: string): Promise<void> {
    const online = connected.get(server) ?? 0
    if (replicas === null && online === -1) {
      throw new LatchkeyError(
        'unavailable',
        'Redis may not be asked for its replicas (INFO replication): set "replicas" to how many must have a change',
      )
    }
    const needed = replicas ?? Math.min(online, 1)
    if (needed === 0) return
    const acknowledged = await wait(key, needed)
    if (acknowledged >= needed) return
    throw new LatchkeyError(
      'unavailable',
      `The change is made, but only ${acknowledged} of ${needed} replicas have confirmed it within ${waitMs} ms`,
    )
  }

  /**
   * WAIT speaks of what its own connection wrote last, and answers at once on one that wrote nothing, as a new one: so it
   * goes together with a write, which comes after all others on that server.
   */
  async function wait(key: string, needed: number): Promise<number> {
    const touched = `${keyPrefix}:w:${/\{[^}]*\}/.exec(key)?.[0]}`
    const commands = [
      ['set', touched, '1', 'PX', '1'],
      ['wait', String(needed), String(waitMs)],
    ]
    let replies: Awaited<ReturnType<ReturnType<RedisStoreClient['pipeline']>['exec']>>
    try {
      replies = await client.pipeline(commands).exec()
    } catch (error) {
      throw toError(error)
    }
    const failure = replies?.find(([error]) => error)
    if (failure) throw toError(failure[0])
    return Number(replies?.[1]?.[1] ?? 0)
  }

  /** In a Cluster its name or, where that is not known, the slot. */
  function serverOf(key: string): string {
    if (!client.isCluster) return ''
    const slot = keySlot(key)
    return client.slots?.[slot]?.[0] ?? String(slot)
  }

  async function now(): Promise<number> {
    if (clockOffset === null) await run(CLOCK, [`${keyPrefix}:w:{clock}`])
    return Math.floor(performance.now() + (clockOffset as number))
  }

  return { run, byPlace, confirm, now }
}

/** The errors of ioredis carry the command with all that was sent: only their words are kept. */
function toError(error: unknown): LatchkeyError {
  const message = messageOf(error)
  const [words = ''] = message.split(/,? with args/)
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
  if (/\bREADONLY\b/.test(message)) {
    return new LatchkeyError('read_only', 'This Redis is a replica: it takes no writes', { cause })
  }
  return new LatchkeyError('unavailable', `Redis failed: ${words}`, { cause })
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : ''
}
