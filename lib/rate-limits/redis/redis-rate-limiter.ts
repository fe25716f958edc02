import { type Clock, monotonicClock } from '../../core/clock.ts'
import type {
  LimitAnswer,
  LimitRequest,
  RateLimiter,
  RefundRequest,
  VersionMark,
} from '../../core/limits/rate-limiter.ts'
import { checkMethods } from '../../internal/options.ts'
import { type MemoryRateLimiter, memoryRateLimiter } from '../memory.ts'
import type { Question, ScriptArguments } from './call.ts'
import { createRedisCalls, type RedisCalls } from './calls.ts'
import type { RedisClient } from './client.ts'
import { connectionOf } from './connection.ts'
import { createDenials, type Denials } from './denials.ts'
import { createHappenings, type Happenings } from './happenings.ts'
import { createRedisNodes, type RedisNode } from './node.ts'
import { type RedisRateLimiterOptions, resolveRedisOptions } from './options.ts'
import { createCheck, RAISING, REFUNDING } from './questions.ts'

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
    refund: (request) => refund(limiter, request),
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
  readonly question: Question<LimitRequest, LimitAnswer>
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
    question: createCheck(denials, (request, error) => recover(limiter, request, error)),
    denials,
    local: memoryRateLimiter(),
  }
  return limiter
}

function check(limiter: Limiter, request: LimitRequest): LimitAnswer | Promise<LimitAnswer> {
  const denied = limiter.denials.peekStale(request)
  if (denied) return denied
  const key = keyOf(limiter, request.lineageId)
  const node = limiter.nodeOf(key)
  if (!node.isWorthAsking()) return fallBack(limiter, request, node.lastError)
  return limiter.checks.ask(limiter.question, request, node, key)
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
  if (policies.includes('closed')) throw error
  const counted = limits.filter((_limit, i) => policies[i] === 'local')
  // Without Redis, the limiter cannot tell whether the record is the latest. The age of the cache bounds that.
  return withoutRefund(local.check({ ...request, limits: counted, fresh: true }))
}

/** Redis cannot refund a call that it did not count. */
function withoutRefund(answer: LimitAnswer): LimitAnswer {
  return answer.outcome === 'admitted' ? { ...answer, chargedAt: null } : answer
}

async function raiseVersions(
  limiter: Limiter,
  marks: readonly VersionMark[],
  retainMs: number,
): Promise<void> {
  const { local, denials, changes, nodeOf } = limiter
  local.raiseVersions(marks, retainMs)
  const argumentsByLineage = new Map<string, ScriptArguments>()
  for (const { lineageId, keyId, version } of marks) {
    denials.forget(lineageId)
    const args = argumentsByLineage.get(lineageId) ?? [retainMs]
    args.push(`v${keyId}`, version)
    argumentsByLineage.set(lineageId, args)
  }
  await Promise.all(
    [...argumentsByLineage].map(([lineageId, args]) => {
      const key = keyOf(limiter, lineageId)
      return changes.ask(RAISING, args, nodeOf(key), key)
    }),
  )
}

async function refund(limiter: Limiter, request: RefundRequest): Promise<void> {
  const { changes, nodeOf, denials } = limiter
  const key = keyOf(limiter, request.lineageId)
  try {
    await changes.ask(REFUNDING, request, nodeOf(key), key)
  } finally {
    // Redis decided any refusal from the meantime before it gave the units back.
    denials.forget(request.lineageId)
  }
}

/** In Redis everything expires by itself. */
function forget({ denials, local }: Limiter, lineageId: string): void {
  denials.forget(lineageId)
  local.forget(lineageId)
}

function keyOf({ settings }: Limiter, lineageId: string): string {
  return `${settings.keyPrefix}:{${lineageId}}`
}
