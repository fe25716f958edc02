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

/** A record or a pointer to write. */
export interface Entry {
  readonly key: string
  /** The key that must not hold the same id. */
  readonly rival: string
  /** A record whose id is its lookup, any other record, or a pointer from an id to a lookup. */
  readonly kind: 'n' | 'f' | 'p'
  readonly stamp: string
  /** Each name, followed by its value. */
  readonly fields: readonly string[]
}

export interface Batch {
  readonly entries: readonly Entry[]
  /** Keys written since `since` that replicas must have first. A record without an index entry would escape a revocation of all keys. */
  readonly confirmed: readonly string[]
  readonly since: number
}

/** A batch is `gone` when it was aborted, or when all its entries are final. */
export type BatchState = 'open' | 'committed' | 'gone'

export interface RedisBatches {
  /**
   * Writes all entries, or none. If they are in one place, one script writes them. Otherwise each place holds its entries as pending,
   * under a token. A single key then commits the batch, and whoever finds a pending entry of a committed batch makes it final.
   *
   * @throws LatchkeyError `duplicate_key`
   */
  write(batch: Batch): Promise<void>
  /** Completes the batch if it is committed. Pending entries of a batch that is `gone` do not exist. */
  resolve(token: string): Promise<BatchState>
}

/** How long a batch blocks others after its writer has gone silent. */
export const OPEN_MS = 3_000
const POLL_MS = 10

export interface BatchParts {
  readonly calls: RedisCalls
  readonly layout: RedisLayout
  readonly openMs: number
  /** Frees a key if it belongs to a record that is gone. */
  free(key: string): Promise<boolean>
}

export function createRedisBatches(parts: BatchParts): RedisBatches {
  return {
    write: (batch) => write(parts, batch),
    resolve: (token) => resolve(parts, token),
  }
}

async function write(parts: BatchParts, batch: Batch): Promise<void> {
  const { calls } = parts
  const places = calls.byPlace(batch.entries, ({ key }) => key)
  if (places.length > 1) {
    if (await writeTogether(parts, batch, places, false)) return
    // Another batch is in the way, and may be waiting for this one. If all claim in one order, nobody waits forever.
    await writeTogether(parts, batch, places, true)
  } else if (places[0]) {
    // One server replicates index entries and records in order. In a Cluster they may be on two servers.
    if (calls.isCluster) await calls.confirm(batch.confirmed, batch.since)
    await claim(parts, places[0], '', true)
  }
}

/** Returns false if another batch is in the way, unless `isInOrder`: then it waits for that. */
async function writeTogether(
  parts: BatchParts,
  { entries, confirmed, since }: Batch,
  places: readonly Entry[][],
  isInOrder: boolean,
): Promise<boolean> {
  const { calls, layout, openMs } = parts
  const token = randomBase62(22)
  const batch = layout.batch(token)
  const keys = entries.map(({ key }) => key)
  await calls.run(OPEN_BATCH, [batch], [openMs + entries.length])
  try {
    if (!(await claimAll(parts, places, token, isInOrder))) {
      await abort(parts, token, keys)
      return false
    }
    await calls.confirm([...keys, ...confirmed, batch], since)
  } catch (error) {
    await abort(parts, token, keys)
    throw error
  }
  const decidedAt = performance.now()
  const [isCommitted] = await calls.run(COMMIT_BATCH, [batch], [JSON.stringify(keys)])
  if (Number(isCommitted) !== 1) {
    await drop(parts, token, keys)
    throw new LatchkeyError('unavailable', 'Redis took too long to add the keys: none was added')
  }
  await complete(parts, token, keys, decidedAt)
  return true
}

async function claimAll(
  parts: BatchParts,
  places: readonly Entry[][],
  token: string,
  isInOrder: boolean,
): Promise<boolean> {
  if (isInOrder) {
    for (const place of places) await claim(parts, place, token, true)
    return true
  }
  // Every claim must have ended before the batch may be aborted.
  const claims = await Promise.allSettled(places.map((place) => claim(parts, place, token, false)))
  for (const one of claims) if (one.status === 'rejected') throw one.reason
  return claims.every((one) => one.status === 'fulfilled' && one.value)
}

/** Writes the entries of one place. Returns false if another batch is in the way, unless it may wait for that. */
async function claim(
  parts: BatchParts,
  place: readonly Entry[],
  token: string,
  mayWait: boolean,
): Promise<boolean> {
  const { calls, openMs, free } = parts
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
    const state = await resolve(parts, holder)
    if (state === 'gone') dead.add(holder)
    if (state !== 'open') continue
    if (!mayWait) return false
    await setTimeout(POLL_MS)
  }
}

async function resolve(parts: BatchParts, token: string): Promise<BatchState> {
  const { calls, layout } = parts
  const since = performance.now()
  const [state] = await calls.run(READ_BATCH, [layout.batch(token)])
  if (state === null || state === undefined) return 'gone'
  if (state === 'open') return 'open'
  await complete(parts, token, readKeys(state), since)
  return 'committed'
}

function readKeys(state: unknown): string[] {
  try {
    const keys: unknown = JSON.parse(String(state))
    if (Array.isArray(keys) && keys.every((key) => typeof key === 'string')) return keys
  } catch {
    // Not JSON: malformed, as below.
  }
  throw new LatchkeyError('malformed_record', 'Redis holds a batch of the store that is malformed')
}

/** Removes the decision last: pending entries, on replicas too, depend on it until all are final. */
async function complete(
  { calls, layout }: BatchParts,
  token: string,
  keys: readonly string[],
  since: number,
): Promise<void> {
  const batch = layout.batch(token)
  await calls.confirm([batch], since)
  await Promise.all(calls.byPlace(keys, (key) => key).map((place) => calls.run(SETTLE, place, [token])))
  await calls.confirm(keys, since)
  await calls.run(END_BATCH, [batch])
}

/** Never fails. What it cannot remove stays pending, and its batch expires uncommitted. */
async function abort(parts: BatchParts, token: string, keys: readonly string[]): Promise<void> {
  try {
    await parts.calls.run(ABORT_BATCH, [parts.layout.batch(token)])
    await drop(parts, token, keys)
  } catch {
    // The caller reports the error that led here.
  }
}

async function drop({ calls }: BatchParts, token: string, keys: readonly string[]): Promise<void> {
  await Promise.all(calls.byPlace(keys, (key) => key).map((place) => calls.run(DROP, place, [token])))
}
