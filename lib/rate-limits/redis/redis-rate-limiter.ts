import { type Clock, monotonicClock } from '../../core/clock.ts'
import type { PlacesRequest } from '../../core/limits/places.ts'
import type {
  LimitAnswer,
  LimitRequest,
  RateLimiter,
  SettleAnswer,
  SettleRequest,
  VersionMark,
} from '../../core/limits/rate-limiter.ts'
import { isNodeRedis } from '../../redis/accept-client.ts'
import { NodeRedisAdapter } from '../../redis/node-redis.ts'
import type { NodeRedisClient } from '../../redis/node-redis-client.ts'
import { type MemoryRateLimiter, memoryRateLimiter } from '../memory.ts'
import type { Question, ScriptArguments, ScriptKeys } from './call.ts'
import { createRedisCalls, type RedisCalls } from './calls.ts'
import type { RedisClient } from './client.ts'
import { connectionOf } from './connection.ts'
import { createDenials, type Denials } from './denials.ts'
import { createHappenings, type Happenings } from './happenings.ts'
import { createRedisNodes, type RedisNode } from './node.ts'
import { type RedisRateLimiterOptions, resolveRedisOptions } from './options.ts'
import {
  type CheckParts,
  createCheck,
  createPlacesCheck,
  createSharedCheck,
  RAISING,
  RELEASING,
  RENEWING,
  SETTLING,
} from './questions.ts'

/** A change may take longer than a check: if it fails, the caller must wait until every cache has expired. */
const CHANGE_TIMEOUT_MS = 1_000

/**
 * Creates a rate limiter in Redis, for all processes that share it. One script call checks the version and all limits of a key, by
 * Redis's own clock. It needs Redis 5 or later: standalone, behind Sentinel, or a Cluster. Set `maxmemory-policy noeviction`.
 *
 * `client` is one of ioredis 5 or 6, or of node-redis 5 or 6. The limiter uses a client of node-redis itself: connect it, and run no
 * blocking commands on it.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const keys = createApiKeys({
 *   store,
 *   rateLimiter: redisRateLimiter(new Redis()),
 *   prefix: 'acme_live',
 *   rateLimits: [{ name: 'minute', limit: 100, windowMs: 60_000 }],
 * })
 */
export function redisRateLimiter(
  client: RedisClient | NodeRedisClient,
  options: RedisRateLimiterOptions = {},
): RateLimiter {
  return createRedisRateLimiter(client, options, monotonicClock)
}

/** {@link redisRateLimiter} with the clock as a parameter. */
export function createRedisRateLimiter(
  given: RedisClient | NodeRedisClient,
  options: RedisRateLimiterOptions,
  clock: Clock,
): RateLimiter {
  const client = isNodeRedis(given, ['eval', 'evalsha']) ? new NodeRedisAdapter(given) : given
  const limiter = createParts(client, options, clock)
  const { timeoutMs, keyPrefix } = limiter.settings
  return {
    timeoutMs,
    sharedAs: `keyPrefix "${keyPrefix}"`,
    check: (request) => check(limiter, request),
    raiseVersions: (marks, retainMs) => raiseVersions(limiter, marks, retainMs),
    settle: (request) => settle(limiter, request),
    release: (request) => release(limiter, request),
    renew: (requests) => renew(limiter, requests),
    forget: (lineageId) => forget(limiter, lineageId),
    listen: limiter.happenings.listen,
  }
}

interface Limiter {
  readonly settings: ReturnType<typeof resolveRedisOptions>
  readonly happenings: Happenings
  readonly nodeOf: (key: string) => RedisNode
  readonly checks: RedisCalls
  readonly changes: RedisCalls
  readonly questions: Questions
  readonly denials: Denials
  /** Counts while Redis is unavailable. */
  readonly local: MemoryRateLimiter
}

function createParts(client: RedisClient, options: RedisRateLimiterOptions, clock: Clock): Limiter {
  const settings = resolveRedisOptions(options)
  const { timeoutMs } = settings
  const happenings = createHappenings(clock)
  const connection = connectionOf(client)
  const denials = createDenials(settings.denials, clock)
  const limiter: Limiter = {
    settings,
    happenings,
    nodeOf: createRedisNodes(connection, clock, happenings.tell),
    checks: createRedisCalls(connection, timeoutMs, clock),
    changes: createRedisCalls(connection, Math.max(timeoutMs, CHANGE_TIMEOUT_MS), clock),
    questions: createQuestions({ denials, recover: (request, error) => recover(limiter, request, error) }),
    denials,
    local: memoryRateLimiter(),
  }
  return limiter
}

interface Questions {
  /** For limits of a key that all cost the same. */
  readonly plain: Question<LimitRequest, LimitAnswer>
  /** For limits that cost different numbers of units, and for a key with limits of its owner. */
  readonly shared: Question<LimitRequest, LimitAnswer>
  /** For a call that takes places. */
  readonly places: Question<LimitRequest, LimitAnswer>
}

function createQuestions(parts: CheckParts): Questions {
  return {
    plain: createCheck(parts),
    shared: createSharedCheck(parts),
    places: createPlacesCheck(parts),
  }
}

function check(limiter: Limiter, request: LimitRequest): LimitAnswer | Promise<LimitAnswer> {
  const denied = limiter.denials.peekStale(request)
  if (denied) return denied
  const { checks, questions } = limiter
  const keys = keysOf(limiter, request)
  const node = limiter.nodeOf(keys[0])
  if (!node.isWorthAsking()) return markLocal(fallBack(limiter, request, node.lastError), request)
  if (request.places) {
    return checks.ask(questions.places, request, node, [...keys, ...placeKeys(keys, request.places)])
  }
  const isShared = request.owner !== undefined || request.costs !== undefined
  return checks.ask(isShared ? questions.shared : questions.plain, request, node, keys)
}

function recover(limiter: Limiter, request: LimitRequest, error: unknown): LimitAnswer {
  const answer = markUnsure(fallBack(limiter, request, error), request)
  // If `fallBack` throws, the caller reports the error.
  limiter.happenings.fault(error)
  return answer
}

/** The answer by policy. @throws the error of Redis if a policy is `closed` */
function fallBack({ settings, local }: Limiter, request: LimitRequest, error: unknown): LimitAnswer {
  const { policyOf } = settings
  const { limits, places } = request
  const all = places ? [...limits, ...places.limits] : limits
  const policies = all.length > 0 ? all.map(({ name }) => policyOf(name)) : [policyOf(null)]
  if (request.isExact || policies.includes('closed')) throw error
  const counts = (_: unknown, i: number) => policies[i] === 'local'
  const counted = { limits: limits.filter(counts), costs: request.costs?.filter(counts) }
  const held = places?.limits.filter(({ name }) => policyOf(name) === 'local')
  const here = places && held && { id: places.id, limits: held }
  // Without Redis, the limiter cannot tell whether the record is the latest. The age of the cache bounds that.
  return withoutRefund(local.check({ ...request, ...counted, places: here, fresh: true }))
}

/** Redis cannot refund a call that it did not count. */
function withoutRefund(answer: LimitAnswer): LimitAnswer {
  return answer.outcome === 'admitted' ? { ...answer, chargedAt: null } : answer
}

/** Redis was not asked. */
function markLocal(answer: LimitAnswer, { places }: LimitRequest): LimitAnswer {
  return places && answer.outcome === 'admitted' ? { ...answer, isLocal: true } : answer
}

/** Redis may have counted places of a call, or may still do so, though nobody heard of it. */
function markUnsure(answer: LimitAnswer, { places }: LimitRequest): LimitAnswer {
  return places && answer.outcome !== 'stale' ? { ...answer, isUnsure: true } : answer
}

/**
 * Raises versions in both hashes that a lineage may have: other processes may count its key with those of its owner, or no longer.
 */
async function raiseVersions(
  limiter: Limiter,
  marks: readonly VersionMark[],
  retainMs: number,
): Promise<void> {
  const { local, denials, changes, nodeOf } = limiter
  local.raiseVersions(marks, retainMs)
  const argumentsByKey = new Map<string, ScriptArguments>()
  for (const mark of marks) {
    const { lineageId, keyId, version, owner } = mark
    denials.forget(lineageId)
    const hashes = [keysOf(limiter, { lineageId })[0]]
    if (owner !== undefined) hashes.push(keysOf(limiter, mark)[0])
    for (const hash of hashes) {
      const args = argumentsByKey.get(hash) ?? [retainMs]
      args.push(`v${keyId}`, version)
      argumentsByKey.set(hash, args)
    }
  }
  await Promise.all([...argumentsByKey].map(([key, args]) => changes.ask(RAISING, args, nodeOf(key), [key])))
}

async function settle(limiter: Limiter, request: SettleRequest): Promise<SettleAnswer> {
  const { changes, nodeOf, denials } = limiter
  const keys = keysOf(limiter, request)
  try {
    return await changes.ask(SETTLING, request, nodeOf(keys[0]), keys)
  } finally {
    // Redis decided any refusal from the meantime before it gave units back.
    denials.forget(request.lineageId, request.owner)
  }
}

/** Where Redis was away, this process may have counted the places itself. */
async function release(limiter: Limiter, request: PlacesRequest): Promise<void> {
  limiter.local.release(request)
  const [first, ...others] = placeKeys(keysOf(limiter, request), request)
  if (first === undefined || request.isLocal) return
  const node = limiter.nodeOf(first)
  // As with checks: while Redis is away, its client would queue releases without a bound.
  if (!node.isWorthAsking()) throw node.lastError
  await limiter.changes.ask(RELEASING, request.id, node, [first, ...others])
}

/**
 * Keeps places, all of one limit with one command. Where Redis does not answer, this process counts them as it counts calls: from zero,
 * so they are none that were lost.
 */
async function renew(limiter: Limiter, requests: readonly PlacesRequest[]): Promise<number> {
  const batches = new Map<string, { maxHeldMs: number; ids: string[] }[]>()
  for (const request of requests) {
    const keys = placeKeys(keysOf(limiter, request), request)
    for (const [i, { maxHeldMs }] of request.limits.entries()) {
      const key = keys[i] as string
      const known = batches.get(key) ?? []
      batches.set(key, known)
      const last = known.at(-1)
      if (last?.maxHeldMs === maxHeldMs && last.ids.length < MAX_BATCH) last.ids.push(request.id)
      else known.push({ maxHeldMs, ids: [request.id] })
    }
  }
  const lost = new Set<string>()
  const asked = [...batches].flatMap(([key, renewals]) =>
    renewals.map(async (renewal) => {
      const node = limiter.nodeOf(key)
      if (node.isGone()) throw node.lastError
      const gone = await limiter.changes.ask(RENEWING, renewal, node, [key])
      for (const id of gone) lost.add(id)
    }),
  )
  const answers = await Promise.allSettled(asked)
  const failed = answers.find((answer) => answer.status === 'rejected')
  if (!failed) return lost.size
  limiter.local.renew(requests.map((request) => countedHere(limiter, request)))
  throw failed.reason
}

/** Those of its places that this process counts while Redis is away. */
function countedHere({ settings }: Limiter, request: PlacesRequest): PlacesRequest {
  return { ...request, limits: request.limits.filter(({ name }) => settings.policyOf(name) === 'local') }
}

/** How many places one command keeps. */
const MAX_BATCH = 500

/** In Redis everything expires by itself. */
function forget({ denials, local }: Limiter, lineageId: string): void {
  denials.forget(lineageId)
  local.forget(lineageId)
}

/**
 * The hash of a lineage; for a key that has limits of its owner, another one, and that of the owner. Both have the owner as hash tag, so
 * that a Cluster keeps them on one node.
 */
function keysOf({ settings }: Limiter, { lineageId, owner }: Counted): ScriptKeys {
  const { keyPrefix } = settings
  if (owner === undefined) return [`${keyPrefix}:{${lineageId}}`]
  const shared = `${keyPrefix}:{o:${owner}}`
  return [`${shared}:k:${lineageId}`, `${shared}:o`]
}

/** The sorted set of each limit, beside the hash that it would otherwise count in. */
function placeKeys(
  [own, owners = own]: ScriptKeys,
  { limits }: Pick<PlacesRequest, 'limits'>,
): readonly string[] {
  return limits.map(({ name, isOwners }) => `${isOwners ? owners : own}:c:${name}`)
}

type Counted = Pick<LimitRequest, 'lineageId' | 'owner'>
