import { type Clock, monotonicClock } from '../../core/clock.ts'
import type {
  LimitAnswer,
  LimitRequest,
  RateLimiter,
  SettleAnswer,
  SettleRequest,
  VersionMark,
} from '../../core/limits/rate-limiter.ts'
import { checkMethods } from '../../internal/options.ts'
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
  createSharedCheck,
  RAISING,
  SETTLING,
  SETTLING_SHARED,
} from './questions.ts'

/** A change may take longer than a check: if it fails, the caller must wait until every cache has expired. */
const CHANGE_TIMEOUT_MS = 1_000

/**
 * Creates a rate limiter in Redis, for all processes that share it. One script call checks the version and all limits of a key, by
 * Redis's own clock. It needs Redis 5 or later: standalone, behind Sentinel, or a Cluster. Set `maxmemory-policy noeviction`.
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
export function redisRateLimiter(client: RedisClient, options: RedisRateLimiterOptions = {}): RateLimiter {
  return createRedisRateLimiter(client, options, monotonicClock)
}

/** {@link redisRateLimiter} with the clock as a parameter. */
export function createRedisRateLimiter(
  client: RedisClient,
  options: RedisRateLimiterOptions,
  clock: Clock,
): RateLimiter {
  checkMethods('client', client, ['eval', 'evalsha'])
  const limiter = createParts(client, options, clock)
  const { timeoutMs, keyPrefix } = limiter.settings
  return {
    timeoutMs,
    sharedAs: `keyPrefix "${keyPrefix}"`,
    check: (request) => check(limiter, request),
    raiseVersions: (marks, retainMs) => raiseVersions(limiter, marks, retainMs),
    settle: (request) => settle(limiter, request),
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
  /** For limits that cost different numbers of units. */
  readonly costed: Question<LimitRequest, LimitAnswer>
  /** For a key with limits of its owner. */
  readonly owned: Question<LimitRequest, LimitAnswer>
}

function createQuestions(parts: CheckParts): Questions {
  return {
    plain: createCheck(parts),
    costed: createSharedCheck(parts, 1),
    owned: createSharedCheck(parts, 2),
  }
}

function check(limiter: Limiter, request: LimitRequest): LimitAnswer | Promise<LimitAnswer> {
  const denied = limiter.denials.peekStale(request)
  if (denied) return denied
  const { checks, questions } = limiter
  const keys = keysOf(limiter, request)
  const node = limiter.nodeOf(keys[0])
  if (!node.isWorthAsking()) return fallBack(limiter, request, node.lastError)
  if (request.owner !== undefined) return checks.ask(questions.owned, request, node, keys)
  return checks.ask(request.costs ? questions.costed : questions.plain, request, node, keys)
}

function recover(limiter: Limiter, request: LimitRequest, error: unknown): LimitAnswer {
  const answer = fallBack(limiter, request, error)
  // If `fallBack` throws, the caller reports the error.
  limiter.happenings.fault(error)
  return answer
}

/** The answer by policy. @throws the error of Redis if a policy is `closed` */
function fallBack({ settings, local }: Limiter, request: LimitRequest, error: unknown): LimitAnswer {
  const { policyOf } = settings
  const { limits } = request
  const policies = limits.length > 0 ? limits.map(({ name }) => policyOf(name)) : [policyOf(null)]
  if (request.isExact || policies.includes('closed')) throw error
  const counts = (_: unknown, i: number) => policies[i] === 'local'
  const counted = { limits: limits.filter(counts), costs: request.costs?.filter(counts) }
  // Without Redis, the limiter cannot tell whether the record is the latest. The age of the cache bounds that.
  return withoutRefund(local.check({ ...request, ...counted, fresh: true }))
}

/** Redis cannot refund a call that it did not count. */
function withoutRefund(answer: LimitAnswer): LimitAnswer {
  return answer.outcome === 'admitted' ? { ...answer, chargedAt: null } : answer
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
    const question = request.owner === undefined ? SETTLING : SETTLING_SHARED
    return await changes.ask(question, request, nodeOf(keys[0]), keys)
  } finally {
    // Redis decided any refusal from the meantime before it gave units back.
    denials.forget(request.lineageId, request.owner)
  }
}

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

type Counted = Pick<LimitRequest, 'lineageId' | 'owner'>
