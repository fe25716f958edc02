import keySlot from 'cluster-key-slot'
import { LatchkeyError } from '../../errors.ts'
import { messageOf } from '../../internal/any-realm.ts'
import { createRenewal, isReadOnlyError } from '../../redis/renew-connection.ts'
import { createScriptRunner } from '../../redis/run-script.ts'
import type { RedisStoreClient } from './client.ts'
import type { RedisStoreSettings } from './options.ts'
import { CLOCK, type StoreScript, TOUCH } from './scripts.ts'

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
   * Waits until replicas have what was written under these keys since a moment of `performance.now()`.
   *
   * @throws LatchkeyError `unavailable` where too few of them have it in time, or a failover may have lost it.
   */
  confirm(keys: readonly string[], since: number): Promise<void>
  /** The time by a server's clock, in milliseconds. */
  now(): Promise<number>
}

/** Sends scripts; every failure becomes an error of ours, without what was sent. */
export function createRedisCalls(client: RedisStoreClient, settings: RedisStoreSettings): RedisCalls {
  const { keyPrefix, replicas, waitMs } = settings
  /** What is known of the servers that were written to: in a Cluster by slot, since slots change servers. */
  const servers = new Map<number, Server>()
  let clockOffset: number | null = null
  const runScript = createScriptRunner(() => client)
  const noteFailure = createRenewal(
    () => client.disconnect?.(true),
    () => performance.now(),
  )

  async function run(script: StoreScript, keys: readonly string[], args: readonly (string | number)[] = []) {
    let reply: unknown
    try {
      reply = await runScript(script, keys.length, [...keys, ...args])
    } catch (error) {
      noteFailure(error)
      throw toError(error)
    }
    if (!Array.isArray(reply) || !Number.isFinite(Number(reply[0]))) {
      throw new LatchkeyError('malformed_record', 'Unexpected reply from Redis')
    }
    const [time, online, ...answer] = reply
    clockOffset = Number(time) - performance.now()
    if (script.writes) learn(keys[0] as string, online)
    return answer
  }

  function byPlace<T>(items: readonly T[], keyOf: (item: T) => string): T[][] {
    const places = new Map<number, T[]>()
    for (const item of items) {
      const slot = slotOf(keyOf(item))
      const place = places.get(slot)
      if (place) place.push(item)
      else places.set(slot, [item])
    }
    return [...places].toSorted(([a], [b]) => a - b).flatMap(([, place]) => inChunks(place))
  }

  function learn(key: string, online: unknown): Server {
    const slot = slotOf(key)
    const known = servers.get(slot)
    const [, count, history = ''] = /^(\d+) (\w*)$/.exec(String(online)) ?? []
    const isAnother = known !== undefined && known.history !== history
    const server = {
      online: count === undefined ? null : Number(count),
      history,
      changedAt: isAnother ? performance.now() : (known?.changedAt ?? -Infinity),
    }
    servers.set(slot, server)
    return server
  }

  async function confirm(keys: readonly string[], since: number): Promise<void> {
    if (replicas === 0) return
    const keysByServer = new Map<string, string[]>()
    for (const key of new Set(keys)) {
      const name = serverOf(key)
      const together = keysByServer.get(name)
      if (together) together.push(key)
      else keysByServer.set(name, [key])
    }
    await Promise.all([...keysByServer.values()].map((some) => confirmTogether(some, since)))
  }

  async function confirmTogether(keys: readonly string[], since: number): Promise<void> {
    const [first] = keys as [string]
    const online = servers.get(slotOf(first))?.online
    if (replicas === null && online === null) {
      throw new LatchkeyError(
        'unavailable',
        'This Redis user may not run INFO replication: set "replicas" to how many replicas must confirm a change',
      )
    }
    const needed = replicas ?? Math.min(online ?? 0, 1)
    if (needed === 0) return
    const { acknowledged, history } = await wait(first, needed)
    for (const key of keys) {
      const known = servers.get(slotOf(key))
      if (known && (known.history !== history || known.changedAt >= since)) {
        throw new LatchkeyError('unavailable', 'Another server has taken over and may not have the change')
      }
    }
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
  async function wait(key: string, needed: number) {
    const touched = `${keyPrefix}:w:${/\{[^}]*\}/.exec(key)?.[0]}`
    const commands = [
      ['eval', TOUCH.source, '1', touched],
      ['wait', String(needed), String(waitMs)],
    ]
    let replies: Awaited<ReturnType<ReturnType<RedisStoreClient['pipeline']>['exec']>>
    try {
      replies = await client.pipeline(commands).exec()
    } catch (error) {
      throw toError(error)
    }
    const failure = replies?.find(([error]) => error)
    if (failure) {
      noteFailure(failure[0])
      throw toError(failure[0])
    }
    const touch = replies?.[0]?.[1]
    const { history } = learn(key, Array.isArray(touch) ? touch[1] : '')
    return { acknowledged: Number(replies?.[1]?.[1] ?? 0), history }
  }

  /** In a Cluster its name or, where that is not known, the slot. */
  function serverOf(key: string): string {
    if (!client.isCluster) return ''
    const slot = keySlot(key)
    return client.slots?.[slot]?.[0] ?? String(slot)
  }

  function slotOf(key: string): number {
    return client.isCluster ? keySlot(key) : 0
  }

  async function now(): Promise<number> {
    if (clockOffset === null) await run(CLOCK, [`${keyPrefix}:w:{clock}`])
    return Math.floor(performance.now() + (clockOffset as number))
  }

  return { isCluster: client.isCluster === true, run, byPlace, confirm, now }
}

/** What one script does at most: the server does nothing else meanwhile, and a call has only so many arguments. */
const MAX_ITEMS = 500

function inChunks<T>(items: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(items.length / MAX_ITEMS) }, (_, i) =>
    items.slice(i * MAX_ITEMS, (i + 1) * MAX_ITEMS),
  )
}

interface Server {
  /** How many replicas were connected when it was last written to; null where that may not be asked. */
  readonly online: number | null
  /** The name of what it has written, which a failover changes. */
  readonly history: string
  /** When that name was last seen to be another than before. */
  readonly changedAt: number
}

/**
 * Errors of ioredis contain the whole command: this keeps only their words. An error about the server itself gets a code. After any
 * other, nobody knows whether Redis made the change, and the core reads it again.
 */
function toError(error: unknown): Error {
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
  if (isReadOnlyError(error)) {
    return new LatchkeyError('read_only', 'This Redis is a replica: it takes no writes', { cause })
  }
  return new Error(`Redis failed: ${words}`)
}
