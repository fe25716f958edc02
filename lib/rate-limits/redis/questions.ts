import { randomUUID } from 'node:crypto'
import { periodAt } from '../../core/limits/calendar.ts'
import { type CompiledLimit, type Meter, readMeter, toldMeter } from '../../core/limits/rate-limit.ts'
import type { LimitAnswer, LimitRequest, RefundRequest } from '../../core/limits/rate-limiter.ts'
import { admittedAnswer, refusedAnswer } from '../limit-answers.ts'
import type { Question, ScriptArguments } from './call.ts'
import type { Denials } from './denials.ts'
import { CHECK, CODE, RAISE, REFUND } from './scripts.ts'

/** Checks the version and all limits of a key. */
export function createCheck(
  denials: Denials,
  recover: (request: LimitRequest, error: unknown) => LimitAnswer,
): Question<LimitRequest, LimitAnswer> {
  return {
    script: CHECK,
    argumentsOf({ keyId, version, fresh, cost, limits, retainMs }, deadline, serverTime) {
      const args: ScriptArguments = [
        `${deadline} ${cost} ${version} ${fresh ? 1 : 0} ${retainMs}`,
        `v${keyId}`,
      ]
      pushLimits(args, limits, serverTime)
      return args
    },
    read: (request, reply) => readCheck(denials, request, reply),
    recover,
  }
}

function readCheck(denials: Denials, request: LimitRequest, reply: readonly unknown[]): LimitAnswer {
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
  if (code === CODE.admitted) return admittedAnswer(limits, meters, cost > 0 ? now : null, now)
  denials.remember(request, meters, now)
  const readings = limits.map((limit, i) => readMeter(limit, meters[i], cost, now))
  return refusedAnswer(limits, readings, now)
}

/** Raises versions of a lineage, given as arguments of the script. */
export const RAISING: Question<ScriptArguments, void> = {
  script: RAISE,
  argumentsOf: (args) => args,
  read() {},
}

export const REFUNDING: Question<RefundRequest, void> = {
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
