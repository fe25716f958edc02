import { randomUUID } from 'node:crypto'
import { type Clock, monotonicClock } from '../../core/clock.ts'
import { periodAt } from '../../core/limits/calendar.ts'
import { type CompiledLimit, type Meter, readMeter, toldMeter } from '../../core/limits/rate-limit.ts'
import type {
  LimitAnswer,
  LimiterEvent,
  LimitRequest,
  RateLimiter,
  RefundRequest,
  VersionMark,
} from '../../core/limits/rate-limiter.ts'
import { checkFunction, checkMethods } from '../../internal/options.ts'
import { admittedAnswer, refusedAnswer } from '../limit-answers.ts'
import { memoryRateLimiter } from '../memory.ts'
import { createRedisCalls, type Question, type ScriptArguments } from './calls.ts'
import type { RedisClient } from './client.ts'
import { connectionOf } from './connection.ts'
import { createDenials } from './denials.ts'
import { createRedisNodes } from './node.ts'
import { type RedisRateLimiterOptions, resolveRedisOptions } from './options.ts'
import { CHECK, CODE, RAISE, REFUND } from './scripts.ts'

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
  const settings = resolveRedisOptions(options)
  const { keyPrefix, timeoutMs, policyOf } = settings
  const happenings = createHappenings(clock)
  const connection = connectionOf(client)
  const nodeOf = createRedisNodes(connection, clock, happenings.tell)
  const checks = createRedisCalls(connection, timeoutMs, clock)
  const changes = createRedisCalls(connection, Math.max(timeoutMs, CHANGE_TIMEOUT_MS), clock)
  const denials = createDenials(settings.denials, clock)
  /** Counts while Redis is unavailable. */
  const local = memoryRateLimiter()

  const checking: Question<LimitRequest, LimitAnswer> = {
    script: CHECK,
    argumentsOf({ keyId, version, fresh, cost, limits, retainMs }, deadline, serverTime) {
      const args: ScriptArguments = [
        `${deadline} ${cost} ${version} ${fresh ? 1 : 0} ${retainMs}`,
        `v${keyId}`,
      ]
      pushLimits(args, limits, serverTime)
      return args
    },
    read(request, reply) {
      const code = Number(reply[0])
      const now = Number(reply[1])
      const { limits, cost } = request
      const isStale = code === CODE.stale
      if (reply.length !== 2 + (isStale ? 0 : 2 * limits.length)) {
        throw new TypeError('Unexpected reply from Redis')
      }
      if (isStale) return { outcome: 'stale' }
      const meters: Meter[] = []
      let next = 2
      for (const limit of limits) {
        meters.push(toldMeter(limit, Number(reply[next]), Number(reply[next + 1]), now))
        next += 2
      }
      if (code === CODE.admitted) {
        return admittedAnswer(limits, meters, cost > 0 ? now : null, now)
      }
      denials.remember(request, meters, now)
      const readings = limits.map((limit, i) => readMeter(limit, meters[i], cost, now))
      return refusedAnswer(limits, readings, now)
    },
    recover,
  }

  function check(request: LimitRequest): LimitAnswer | Promise<LimitAnswer> {
    const denied = denials.peekStale(request)
    if (denied) return denied
    const key = keyOf(request.lineageId)
    const node = nodeOf(key)
    if (!node.isWorthAsking()) return fallBack(request, node.lastError)
    return checks.ask(checking, request, node, key)
  }

  function recover(request: LimitRequest, error: unknown): LimitAnswer {
    const answer = fallBack(request, error)
    // If `fallBack` throws, the caller reports the error.
    happenings.fault(error)
    return answer
  }

  /** The answer by policy. @throws the error of Redis if a policy is `closed` */
  function fallBack(request: LimitRequest, error: unknown): LimitAnswer {
    const { limits } = request
    const policies = limits.length > 0 ? limits.map(({ name }) => policyOf(name)) : [policyOf(null)]
    if (policies.includes('closed')) throw error
    const counted = limits.filter((_limit, i) => policies[i] === 'local')
    // Without Redis, the limiter cannot tell whether the record is the latest. The age of the cache bounds that.
    return withoutRefund(local.check({ ...request, limits: counted, fresh: true }))
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

  async function refund(request: RefundRequest): Promise<void> {
    const key = keyOf(request.lineageId)
    try {
      await changes.ask(REFUNDING, request, nodeOf(key), key)
    } finally {
      // Redis decided any refusal from the meantime before it gave the units back.
      denials.forget(request.lineageId)
    }
  }

  function keyOf(lineageId: string): string {
    return `${keyPrefix}:{${lineageId}}`
  }

  const sharedAs = `keyPrefix "${keyPrefix}"`

  /** In Redis everything expires by itself. */
  function forget(lineageId: string): void {
    denials.forget(lineageId)
    local.forget(lineageId)
  }

  return { timeoutMs, sharedAs, check, raiseVersions, refund, forget, listen: happenings.listen }
}

const RAISING: Question<ScriptArguments, void> = {
  script: RAISE,
  argumentsOf: (args) => args,
  read() {},
}

const REFUNDING: Question<RefundRequest, void> = {
  script: REFUND,
  argumentsOf({ cost, chargedAt, limits }, deadline, serverTime) {
    const args: ScriptArguments = [deadline, randomUUID(), cost, chargedAt]
    pushLimits(args, limits, serverTime)
    return args
  },
  read() {},
}

/** Each limit as the scripts read it: its field, and three numbers that depend on its kind. */
function pushLimits(args: ScriptArguments, limits: readonly CompiledLimit[], serverTime: number): void {
  for (const { field, numbers, calendar } of prepare(limits)) {
    if (calendar) {
      const { startsAt, endsAt } = periodAt(calendar.per, calendar.timeZone, serverTime)
      args.push(field, `${calendar.capacity} ${startsAt} ${endsAt}`)
    } else args.push(field, numbers)
  }
}

/** The parts that do not change from call to call. */
interface PreparedLimit {
  readonly field: string
  readonly numbers: string
  /** The limit itself, if its numbers depend on the time. */
  readonly calendar: CompiledLimit | null
}

const prepared = new WeakMap<readonly CompiledLimit[], readonly PreparedLimit[]>()

function prepare(limits: readonly CompiledLimit[]): readonly PreparedLimit[] {
  let known = prepared.get(limits)
  if (!known) {
    known = limits.map(prepareLimit)
    prepared.set(limits, known)
  }
  return known
}

function prepareLimit(limit: CompiledLimit): PreparedLimit {
  const { kind, shape, capacity, windowMs } = limit
  if (kind === 'calendar') return { field: `xc${shape}`, numbers: '', calendar: limit }
  if (kind === 'window') return { field: `xw${shape}`, numbers: `${capacity} ${windowMs} 0`, calendar: null }
  return { field: `xb${shape}`, numbers: `${capacity} ${limit.limit} ${windowMs}`, calendar: null }
}

/** Redis cannot refund a call that it did not count. */
function withoutRefund(answer: LimitAnswer): LimitAnswer {
  return answer.outcome === 'admitted' ? { ...answer, chargedAt: null } : answer
}

/** How long to wait before reporting another fault that a policy covered. */
const FAULT_EVERY_MS = 1_000

function createHappenings(clock: Clock) {
  const listeners = new Set<(happening: LimiterEvent) => void>()
  let toldAt = -Infinity

  function tell(happening: LimiterEvent): void {
    for (const listener of listeners) listener(happening)
  }

  return {
    tell,
    fault(error: unknown): void {
      if (clock.now() - toldAt < FAULT_EVERY_MS) return
      toldAt = clock.now()
      tell({ type: 'fault', error })
    },
    listen(listener: (happening: LimiterEvent) => void): () => void {
      checkFunction('listener', listener)
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
  }
}
