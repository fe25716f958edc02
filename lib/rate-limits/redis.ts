import { periodAt } from '../core/calendar.ts'
import { type Clock, monotonicClock } from '../core/clock.ts'
import { type CompiledLimit, lifetimeMs, type Meter, readMeter } from '../core/rate-limit.ts'
import type {
  LimitAnswer,
  LimiterHappening,
  LimitRequest,
  QuotaTold,
  RateLimiter,
  RefundRequest,
  VersionMark,
} from '../core/rate-limiter.ts'
import { checkFunction, checkMethods } from '../internal/options.ts'
import { createDenials } from './denials.ts'
import { admittedAnswer, refusedAnswer } from './limit-answers.ts'
import { memoryRateLimiter, QUOTA_RETAIN_MS } from './memory.ts'
import { createRedisCalls, type Question, type ScriptArguments } from './redis-calls.ts'
import type { RedisClient } from './redis-client.ts'
import { createRedisNodes, type RedisNode } from './redis-node.ts'
import { type RedisRateLimiterOptions, resolveRedisOptions } from './redis-options.ts'
import { createRedisQuotas, type Grant } from './redis-quotas.ts'
import { BIRTH, CHECK, CODE, RAISE, REFUND, UNSPENT } from './redis-scripts.ts'

/** A change may take longer than a check: if it fails, the caller waits for every cache to age. */
const CHANGE_TIMEOUT_MS = 1_000

/**
 * Counts in Redis, for all processes that share it: version, limits and quota of a key in one call to one script, by
 * Redis's own clock. Redis 5 or later; standalone, behind Sentinel, or a Cluster. Use `maxmemory-policy noeviction`.
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

/** The same by a clock of the caller's. */
export function createRedisRateLimiter(
  client: RedisClient,
  options: RedisRateLimiterOptions,
  clock: Clock,
): RateLimiter {
  checkMethods('client', client, ['eval', 'evalsha'])
  const settings = resolveRedisOptions(options)
  const { keyPrefix, timeoutMs, policyOf } = settings
  const happenings = createHappenings(clock)
  const nodeOf = createRedisNodes(client, clock, happenings.tell)
  const checks = createRedisCalls(client, timeoutMs, clock)
  const changes = createRedisCalls(client, Math.max(timeoutMs, CHANGE_TIMEOUT_MS), clock)
  const denials = createDenials(settings.denials, clock)
  /** While Redis is away. */
  const local = memoryRateLimiter()
  const quotas = createRedisQuotas()

  const checking: Question<Asked, LimitAnswer> = {
    script: CHECK,
    argumentsOf({ request, grants }, deadline, serverTime) {
      const { keyId, version, fresh, cost, limits, quota, retainMs } = request
      const flags = (fresh ? 1 : 0) + (quota ? 2 + 4 * grants.length : 0)
      const keepMs = Math.max(retainMs, prepare(limits).lifetimeMs, quota ? QUOTA_RETAIN_MS : 0)
      const args: ScriptArguments = [`${deadline} ${cost} ${version} ${flags} ${keepMs}`, `v${keyId}`]
      pushLimits(args, limits, serverTime)
      if (quota) args.push(...quotas.wordsOf(request, quota, grants))
      return args
    },
    read({ request, grants }, reply) {
      const code = Number(reply[0])
      const now = Number(reply[1])
      const { limits, quota, cost, lineageId } = request
      const isStale = code === CODE.stale
      let next = 2 + (isStale ? 0 : 2 * limits.length)
      if (reply.length !== next + (quota ? 4 : 0)) {
        throw new TypeError('Redis answered something that is no answer')
      }
      const [unspent, spent, epoch, born] = quota
        ? [Number(reply[next]), Number(reply[next + 1]), Number(reply[next + 2]), Number(reply[next + 3])]
        : [0, 0, null, 0]
      if (epoch !== null) quotas.answered(lineageId, grants, { born, epoch, spent })
      if (isStale) return { outcome: 'stale' }
      const meters: Meter[] = []
      next = 2
      for (const { shape } of limits) {
        meters.push({ shape, used: Number(reply[next]), since: Number(reply[next + 1]) })
        next += 2
      }
      if (code === CODE.admitted) {
        return admittedAnswer(limits, meters, unspent, cost > 0 ? { at: now, epoch } : null, now)
      }
      denials.remember(request, meters, unspent, now)
      const readings = limits.map((limit, i) => readMeter(limit, meters[i], cost, now))
      return refusedAnswer(limits, readings, unspent, now)
    },
    recover: ({ request }, error) => recover(request, error),
  }

  function check(request: LimitRequest): LimitAnswer | Promise<LimitAnswer> {
    const denied = denials.recall(request)
    if (denied) return denied
    const { lineageId, quota } = request
    const key = keyOf(lineageId)
    const node = nodeOf(key)
    if (quota && quota.granted > 0 && !quotas.isKnown(lineageId)) return tellFirst(request, quota, node, key)
    const grants = quota ? quotas.grantsFor(lineageId, quota) : NO_GRANTS
    if (!node.isWorthAsking()) return fallBack(request, node.lastError)
    return checks.ask(checking, { request, grants }, node, key)
  }

  /** A grant counts in the hash that it was first told to, so it has to be known which that is. */
  async function tellFirst(
    request: LimitRequest,
    quota: QuotaTold,
    node: RedisNode,
    key: string,
  ): Promise<LimitAnswer> {
    try {
      quotas.born(request.lineageId, quota, await checks.ask(BEARING, quota.epoch, node, key))
    } catch (error) {
      return recover(request, error)
    }
    return check(request)
  }

  function recover(request: LimitRequest, error: unknown): LimitAnswer {
    const answer = fallBack(request, error)
    // A failure that is the answer is told of by whoever gets it.
    happenings.fault(error)
    return answer
  }

  /** The answer by policy. @throws what Redis failed with, where that is to be the answer */
  function fallBack(request: LimitRequest, error: unknown): LimitAnswer {
    const { limits, quota, cost } = request
    const policies = limits.length > 0 ? limits.map(({ name }) => policyOf(name)) : [policyOf(null)]
    if ((quota && cost > 0) || policies.includes('closed')) throw error
    const counted = limits.filter((_limit, i) => policies[i] === 'local')
    // Nobody can say whether the record is the latest: its age is the bound.
    return withoutRefund(local.check({ ...request, limits: counted, quota: null, fresh: true }))
  }

  async function raiseVersions(marks: readonly VersionMark[], retainMs: number): Promise<void> {
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
        const key = keyOf(lineageId)
        return changes.ask(RAISING, args, nodeOf(key), key)
      }),
    )
  }

  async function unspentQuota(lineageId: string, epoch: number): Promise<number> {
    const key = keyOf(lineageId)
    return changes.ask(LOOKING, epoch, nodeOf(key), key)
  }

  async function refund(request: RefundRequest): Promise<void> {
    const key = keyOf(request.lineageId)
    denials.forget(request.lineageId)
    await changes.ask(REFUNDING, request, nodeOf(key), key)
  }

  function keyOf(lineageId: string): string {
    return `${keyPrefix}:{${lineageId}}`
  }

  const sharedAs = `keyPrefix "${keyPrefix}"`
  return { timeoutMs, sharedAs, check, raiseVersions, unspentQuota, refund, listen: happenings.listen }
}

/** A check, and the grants that it tells of. */
interface Asked {
  readonly request: LimitRequest
  readonly grants: readonly Grant[]
}

const NO_GRANTS: readonly Grant[] = Object.freeze([])

const RAISING: Question<ScriptArguments, void> = {
  script: RAISE,
  argumentsOf: (args) => args,
  read() {},
}

const LOOKING: Question<number, number> = {
  script: UNSPENT,
  argumentsOf: (epoch) => [epoch],
  read: (_epoch, reply) => Number(reply[2]),
}

/** When the hash of a quota was born. */
const BEARING: Question<number, number> = {
  script: BIRTH,
  argumentsOf: (epoch) => [QUOTA_RETAIN_MS, epoch],
  read: (_epoch, reply) => Number(reply[2]),
}

const REFUNDING: Question<RefundRequest, void> = {
  script: REFUND,
  argumentsOf({ cost, chargedAt, epoch, limits }, _deadline, serverTime) {
    const args: ScriptArguments = [cost, chargedAt, epoch ?? -1]
    pushLimits(args, limits, serverTime)
    return args
  },
  read() {},
}

/** Each limit as the scripts read it: its field, and three numbers by its kind. */
function pushLimits(args: ScriptArguments, limits: readonly CompiledLimit[], serverTime: number): void {
  for (const { field, numbers, calendar } of prepare(limits).words) {
    if (calendar) {
      const { startsAt, endsAt } = periodAt(calendar.per, calendar.timeZone, serverTime)
      args.push(field, `${calendar.capacity} ${startsAt} ${endsAt}`)
    } else args.push(field, numbers)
  }
}

/** What does not change from call to call. */
interface PreparedLimits {
  readonly words: readonly {
    readonly field: string
    readonly numbers: string
    /** The limit itself, where its numbers depend on the time. */
    readonly calendar: CompiledLimit | null
  }[]
  /** How long a meter of any of these limits can matter. */
  readonly lifetimeMs: number
}

const prepared = new WeakMap<readonly CompiledLimit[], PreparedLimits>()

function prepare(limits: readonly CompiledLimit[]): PreparedLimits {
  let known = prepared.get(limits)
  if (!known) {
    known = { words: limits.map(wordsOf), lifetimeMs: Math.max(0, ...limits.map(lifetimeMs)) }
    prepared.set(limits, known)
  }
  return known
}

function wordsOf(limit: CompiledLimit): PreparedLimits['words'][number] {
  const { kind, shape, capacity, windowMs } = limit
  if (kind === 'calendar') return { field: `c${shape}`, numbers: '', calendar: limit }
  if (kind === 'window') return { field: `w${shape}`, numbers: `${capacity} ${windowMs} 0`, calendar: null }
  return { field: `b${shape}`, numbers: `${capacity} ${limit.limit} ${windowMs}`, calendar: null }
}

/** What was counted elsewhere cannot be given back to Redis. */
function withoutRefund(answer: LimitAnswer): LimitAnswer {
  return answer.outcome === 'admitted' ? { ...answer, chargedAt: null, chargedEpoch: null } : answer
}

/** How often a fault that was survived is told of, at most. */
const FAULT_EVERY_MS = 1_000

function createHappenings(clock: Clock) {
  const listeners = new Set<(happening: LimiterHappening) => void>()
  let toldAt = -Infinity

  function tell(happening: LimiterHappening): void {
    for (const listener of listeners) listener(happening)
  }

  return {
    tell,
    fault(error: unknown): void {
      if (clock.now() - toldAt < FAULT_EVERY_MS) return
      toldAt = clock.now()
      tell({ type: 'fault', error })
    },
    listen(listener: (happening: LimiterHappening) => void): () => void {
      checkFunction('listener', listener)
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
  }
}
