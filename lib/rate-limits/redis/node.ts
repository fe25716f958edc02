import { LRUCache } from 'lru-cache'
import type { Clock } from '../../core/clock.ts'
import type { LimiterEvent } from '../../core/limits/rate-limiter.ts'
import { primaryOf } from '../../redis/primary-of.ts'
import { isQueueing } from '../../redis/renew-connection.ts'
import type { RedisConnection } from './connection.ts'

/** A Redis server: what is known of its clock, and whether to ask it. */
export interface RedisNode {
  /** A time that the server's clock has certainly not passed when it is `at` here; null before its first reply. */
  toServerTime(at: number): number | null
  /** Notes a reply: at some moment between `sentAt` and `receivedAt`, the server's clock showed `serverTime`. */
  answered(sentAt: number, receivedAt: number, serverTime: number): void
  /** Notes an error or a timeout. */
  failed(error: unknown): void
  /** Whether to ask it now. While it keeps failing, only an occasional call tests whether it answers again. */
  isWorthAsking(): boolean
  /** Whether it keeps failing and its client is not connected, so that a command would only wait in the client. */
  isGone(): boolean
  /** Its last error. */
  readonly lastError: unknown
}

/** The share of failed calls from which a server is suspended. */
const MAX_FAILURES = 0.5
const MIN_CALLS = 20
const COUNTED_MS = 10_000
/** How long to wait between two calls that test a suspended server. */
const PAUSE_MS = 500
/** How many nodes of a Cluster to remember. Nodes may get new addresses again and again. */
const MAX_NODES = 1_000

/** Returns a function that finds the node for a key. */
export function createRedisNodes(
  connection: RedisConnection,
  clock: Clock,
  tell: (happening: LimiterEvent) => void,
): (key: string) => RedisNode {
  const nodes = new LRUCache<string, RedisNode>({ max: MAX_NODES })
  if (!connection.current().isCluster) {
    const only = createRedisNode(connection, clock, tell)
    return () => only
  }

  // In a Cluster, each primary has its own clock and fails on its own.
  return function nodeOf(key) {
    const name = primaryOf(connection.current(), key)
    let node = nodes.get(name)
    if (!node) {
      node = createRedisNode(connection, clock, tell)
      nodes.set(name, node)
    }
    return node
  }
}

function createRedisNode(
  connection: RedisConnection,
  clock: Clock,
  tell: (happening: LimiterEvent) => void,
): RedisNode {
  const offset = createOffset()
  let countedFrom = clock.now()
  let calls = 0
  let failures = 0
  let suspended: { readonly since: number; askAgainAt: number } | null = null
  let lastError: unknown

  function count(failure: 0 | 1, now: number): void {
    if (now - countedFrom >= COUNTED_MS) {
      countedFrom = now
      calls = 0
      failures = 0
    }
    calls += 1
    failures += failure
  }

  return {
    toServerTime: offset.toServerTime,
    answered(sentAt, receivedAt, serverTime) {
      offset.learn(sentAt, receivedAt, serverTime)
      count(0, receivedAt)
      if (!suspended) return
      tell({ type: 'resumed', afterMs: Math.round(receivedAt - suspended.since) })
      suspended = null
      calls = 0
      failures = 0
    },
    failed(error) {
      const now = clock.now()
      count(1, now)
      lastError = error
      if (suspended || calls < MIN_CALLS || failures < calls * MAX_FAILURES) return
      suspended = { since: now, askAgainAt: now + PAUSE_MS }
      tell({ type: 'suspended', error })
    },
    isWorthAsking() {
      if (!suspended) return true
      const now = clock.now()
      if (now < suspended.askAgainAt) return false
      suspended.askAgainAt = now + PAUSE_MS
      return !isQueueing(connection.current())
    },
    isGone: () => suspended !== null && isQueueing(connection.current()),
    get lastError() {
      return lastError
    },
  }
}

/**
 * How far a server's clock is ahead, as an interval. The server read its clock between sending and receiving, so each reply narrows the
 * interval. A reply outside the interval means that a clock was set, or that another server answers: then only that reply counts.
 */
function createOffset() {
  let least = -Infinity
  let most = Infinity

  return {
    toServerTime: (at: number) => (least === -Infinity ? null : at + least),
    learn(sentAt: number, receivedAt: number, serverTime: number): void {
      const low = serverTime - receivedAt
      // The server rounds down to whole milliseconds.
      const high = serverTime + 1 - sentAt
      if (low > most || high < least) {
        least = low
        most = high
        return
      }
      least = Math.max(least, low)
      most = Math.min(most, high)
    },
  }
}
