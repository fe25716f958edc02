import { setTimeout } from 'node:timers/promises'
import { LatchkeyError } from '../../errors.ts'
import { randomBase62 } from '../../internal/base62.ts'
import type { RedisCalls } from './calls.ts'
import type { RedisLayout } from './layout.ts'
import {
  ABORT_BATCH,
  CLAIM,
  COMMIT_BATCH,
  DROP,
  END_BATCH,
  OPEN_BATCH,
  READ_BATCH,
  SETTLE,
} from './scripts.ts'

/** A record or a pointer that is to be written. */
export interface Entry {
  readonly key: string
  /** What must not hold the same id. */
  readonly rival: string
  /** A record whose id is its lookup, any other record, or a pointer from an id to a lookup. */
  readonly kind: 'n' | 'f' | 'p'
  readonly stamp: string
  /** Each name before its value. */
  readonly fields: readonly string[]
}

/** `gone` is a batch that is not to be, or whose entries are all plain. */
export type BatchState = 'open' | 'committed' | 'gone'

export interface RedisBatches {
  /**
   * Writes all entries, or none. What is in one place is written by one script. Otherwise each place takes them as pending
   * under a token; one key decides for all of them; then they are made plain, by whoever sees that they are not. What was
   * written under the keys `confirmed`, from the time `since` on, has to be safe before: a record that no index lists would
   * escape whoever revokes all keys of an owner.
   *
   * @throws LatchkeyError `duplicate_key`
   */
  write(entries: readonly Entry[], confirmed: readonly string[], since: number): Promise<void>
  /** Completes the batch if it is committed. One that is `gone` never will be: entries that still wait for it do not exist. */
  resolve(token: string): Promise<BatchState>
}

/** How long a batch whose writer is silent stands in the way of others. */
export const OPEN_MS = 3_000
const POLL_MS = 10

export interface BatchParts {
  readonly calls: RedisCalls
  readonly layout: RedisLayout
  readonly openMs: number
  /** Frees a key if it belongs to a record that is gone. */
  free(key: string): Promise<boolean>
}

export function createRedisBatches({ calls, layout, openMs, free }: BatchParts): RedisBatches {
  async function write(
    entries: readonly Entry[],
    confirmed: readonly string[],
    since: number,
  ): Promise<void> {
    const places = calls.byPlace(entries, ({ key }) => key)
    if (places.length > 1) {
      if (await writeTogether(places, entries, confirmed, since, false)) return
      // Others stand in the way, who may wait for us: in one order for everybody, nobody waits for ever.
      await writeTogether(places, entries, confirmed, since, true)
    } else if (places[0]) {
      // One server has both in one order; in a Cluster they may be on two.
      if (calls.isCluster) await calls.confirm(confirmed, since)
      await claim(places[0], '', true)
    }
  }

  /** False if another's batch stands in the way and is not to be waited for. */
  async function writeTogether(
    places: readonly Entry[][],
    entries: readonly Entry[],
    confirmed: readonly string[],
    since: number,
    isInOrder: boolean,
  ): Promise<boolean> {
    const token = randomBase62(22)
    const batch = layout.batch(token)
    const keys = entries.map(({ key }) => key)
    await calls.run(OPEN_BATCH, [batch], [openMs + entries.length])
    try {
      if (isInOrder) for (const place of places) await claim(place, token, true)
      else {
        const claims = await Promise.allSettled(places.map((place) => claim(place, token, false)))
        const failure = claims.find(({ status }) => status === 'rejected')
        if (failure) throw (failure as PromiseRejectedResult).reason
        if (claims.some((one) => one.status === 'fulfilled' && !one.value)) {
          await abort(token, keys)
          return false
        }
      }
      await calls.confirm([...keys, ...confirmed, batch], since)
    } catch (error) {
      await abort(token, keys)
      throw error
    }
    const decidedAt = performance.now()
    const [isCommitted] = await calls.run(COMMIT_BATCH, [batch], [JSON.stringify(keys)])
    if (Number(isCommitted) !== 1) {
      await drop(token, keys)
      throw new LatchkeyError('unavailable', 'Redis took too long to add the keys: none was added')
    }
    await complete(token, keys, decidedAt)
    return true
  }

  /** Writes the entries of one place; false if another's batch stands in the way and is not to be waited for. */
  async function claim(place: readonly Entry[], token: string, mayWait: boolean): Promise<boolean> {
    const keys = place.flatMap(({ key, rival }) => [key, rival])
    const words = place.flatMap(({ kind, stamp, fields }) => [kind, stamp, fields.length, ...fields])
    const dead = new Set<string>()
    const giveUpAt = performance.now() + 3 * openMs
    for (;;) {
      const reply = await calls.run(CLAIM, keys, [token, dead.size, ...dead, ...words])
      const [outcome, holder, number] = reply as [string, string, unknown]
      if (outcome === 'claimed') return true
      if (performance.now() > giveUpAt) {
        throw new LatchkeyError('unavailable', 'Other callers keep adding the same keys')
      }
      if (holder === '') {
        if (await free(keys[Number(number) - 1] as string)) continue
        throw new LatchkeyError('duplicate_key')
      }
      const state = await resolve(holder)
      if (state === 'gone') dead.add(holder)
      if (state !== 'open') continue
      if (!mayWait) return false
      await setTimeout(POLL_MS)
    }
  }

  async function resolve(token: string): Promise<BatchState> {
    const since = performance.now()
    const [state] = await calls.run(READ_BATCH, [layout.batch(token)])
    if (state === null || state === undefined) return 'gone'
    if (state === 'open') return 'open'
    await complete(token, readKeys(state), since)
    return 'committed'
  }

  /** The decision goes last: until every entry is plain, on replicas too, they are asked about it. */
  async function complete(token: string, keys: readonly string[], since: number): Promise<void> {
    const batch = layout.batch(token)
    await calls.confirm([batch], since)
    await Promise.all(calls.byPlace(keys, (key) => key).map((place) => calls.run(SETTLE, place, [token])))
    await calls.confirm(keys, since)
    await calls.run(END_BATCH, [batch])
  }

  /** As far as it can be done: a batch that nobody commits in time is not to be, whatever remains of it. */
  async function abort(token: string, keys: readonly string[]): Promise<void> {
    try {
      await calls.run(ABORT_BATCH, [layout.batch(token)])
      await drop(token, keys)
    } catch {
      // What led here is what the caller is told.
    }
  }

  async function drop(token: string, keys: readonly string[]): Promise<void> {
    await Promise.all(calls.byPlace(keys, (key) => key).map((place) => calls.run(DROP, place, [token])))
  }

  return { write, resolve }
}

function readKeys(state: unknown): string[] {
  try {
    const keys: unknown = JSON.parse(String(state))
    if (Array.isArray(keys) && keys.every((key) => typeof key === 'string')) return keys
  } catch {
    // It is none of ours, as below.
  }
  throw new LatchkeyError('malformed_record', 'Redis holds a batch of the store that is malformed')
}
