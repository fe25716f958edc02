import { type Clock, systemClock } from '../core/clock.ts'
import {
  type CompiledLimit,
  chargeMeter,
  limitState,
  type Meter,
  type MeterReading,
  readMeter,
  refundMeter,
} from '../core/limits/rate-limit.ts'
import type {
  LimitAnswer,
  LimitRequest,
  RateLimiter,
  RefundRequest,
  VersionMark,
} from '../core/limits/rate-limiter.ts'
import { checkFunction, checkObject } from '../internal/options.ts'
import {
  acceptVersion,
  createLedger,
  followClock,
  hasRoom,
  isOpenWindow,
  keepFor,
  type Ledger,
  raiseVersion,
  tidy,
  useUp,
} from './ledger.ts'
import { admittedAnswer, refusedAnswer } from './limit-answers.ts'

export interface MemoryRateLimiterOptions {
  /**
   * The time for opening windows and refilling buckets.
   *
   * @default the machine's clock
   */
  clock?: Pick<Clock, 'now'>
}

/** A limiter for one process. Its methods return at once, without promises. */
export interface MemoryRateLimiter extends RateLimiter {
  check(request: LimitRequest): LimitAnswer
  raiseVersions(marks: readonly VersionMark[], retainMs: number): void
  refund(request: RefundRequest): void
  forget(lineageId: string): void
}

/**
 * Creates a rate limiter in the memory of the process. It is exact for one process; several processes count separately.
 * It sets no timers, so a window may last for months. Calls drop ended windows, a few at a time.
 *
 * It keeps one ledger, about 500 bytes, for each recently used or changed key and its successors, until the last of its limits has
 * ended. A ledger holds at most 256 running meters and refuses a limit beyond that. It holds at most as many ended meters and unused
 * versions as those still in use, plus 16.
 */
export function memoryRateLimiter(options: MemoryRateLimiterOptions = {}): MemoryRateLimiter {
  const { clock = systemClock } = checkObject('options', options, ['clock']) as MemoryRateLimiterOptions
  checkFunction('clock.now', clock?.now)
  const ledgers = new Map<string, Ledger>()
  const counts: Counts = { clock, ledgers, sweep: ledgers.entries(), calls: 0 }
  return {
    check: (request) => check(counts, request),
    raiseVersions: (marks, retainMs) => raiseVersions(counts, marks, retainMs),
    refund: (request) => refund(counts, request),
    forget: (lineageId) => void counts.ledgers.delete(lineageId),
  }
}

interface Counts {
  readonly clock: Pick<Clock, 'now'>
  readonly ledgers: Map<string, Ledger>
  /** Where the next sweep goes on. */
  sweep: MapIterator<[string, Ledger]>
  calls: number
}

function check(counts: Counts, request: LimitRequest): LimitAnswer {
  const now = counts.clock.now()
  sweepSome(counts, now)
  const ledger = ledgerOf(counts, request.lineageId)
  if (!acceptVersion(ledger, request, now)) {
    keepFor(ledger, request.retainMs, now)
    return { outcome: 'stale' }
  }
  const charged = chargeOpenWindow(ledger, request, now)
  if (charged) return charged
  const { limits, cost } = request
  const readings: MeterReading[] = []
  let fits = true
  for (const limit of limits) {
    const reading = readMeter(limit, ledger.meters.get(limit.shape), cost, now)
    readings.push(reading)
    fits &&= reading.fits
  }
  if (fits && cost > 0 && !hasRoom(ledger, limits, now)) {
    fits = false
    useUp(ledger, request, readings, now)
  }
  if (fits) return admit(ledger, request, readings, now)
  followClock(ledger, limits, readings)
  keepFor(ledger, request.retainMs, now)
  return refusedAnswer(limits, readings, now)
}

function admit(
  ledger: Ledger,
  request: LimitRequest,
  readings: readonly MeterReading[],
  now: number,
): LimitAnswer {
  const { cost, limits } = request
  const meters: Meter[] = []
  let keepMs = request.retainMs
  for (let i = 0; i < limits.length; i++) {
    const limit = limits[i] as CompiledLimit
    const { meter } = readings[i] as MeterReading
    if (cost === 0) {
      meters.push(meter)
      continue
    }
    const charged = chargeMeter(limit, meter, cost)
    meters.push(charged)
    ledger.meters.set(limit.shape, charged)
    keepMs = Math.max(keepMs, charged.until - now)
  }
  keepFor(ledger, keepMs, now)
  tidy(ledger, now)
  return admittedAnswer(limits, meters, cost > 0 ? now : null, now)
}

/**
 * The common case, with nothing to decide but whether the cost fits: one window, which is open. Null where the case is
 * another one.
 */
function chargeOpenWindow(ledger: Ledger, request: LimitRequest, now: number): LimitAnswer | null {
  const { limits, cost, retainMs } = request
  const limit = limits.length === 1 ? (limits[0] as CompiledLimit) : null
  if (limit?.kind !== 'window' || cost === 0) return null
  const meter = ledger.meters.get(limit.shape)
  if (!meter || !isOpenWindow(meter, now) || meter.used + cost > limit.capacity) return null
  const charged = chargeMeter(limit, meter, cost)
  ledger.meters.set(limit.shape, charged)
  keepFor(ledger, Math.max(retainMs, charged.until - now), now)
  tidy(ledger, now)
  return { outcome: 'admitted', limits: [limitState(limit, charged, false, now)], chargedAt: now }
}

function raiseVersions(counts: Counts, marks: readonly VersionMark[], retainMs: number): void {
  const now = counts.clock.now()
  for (const { lineageId, keyId, version } of marks) {
    // A limiter that only stands in for another one hears of changes, but may never check anything.
    sweepSome(counts, now)
    const ledger = ledgerOf(counts, lineageId)
    raiseVersion(ledger, keyId, version, now + retainMs)
    keepFor(ledger, retainMs, now)
    tidy(ledger, now)
  }
}

function refund({ clock, ledgers }: Counts, { lineageId, cost, chargedAt, limits }: RefundRequest): void {
  const ledger = ledgers.get(lineageId)
  if (!ledger) return
  const now = clock.now()
  for (const limit of limits) {
    const meter = refundMeter(limit, ledger.meters.get(limit.shape), cost, chargedAt, now)
    if (!meter) continue
    ledger.meters.set(limit.shape, meter)
    keepFor(ledger, meter.until - now, now)
  }
}

function ledgerOf({ ledgers }: Counts, lineageId: string): Ledger {
  let ledger = ledgers.get(lineageId)
  if (!ledger) {
    ledger = createLedger()
    ledgers.set(lineageId, ledger)
  }
  return ledger
}

/** Every so many calls, the limiter looks at so many ledgers and drops ended ones. */
const SWEEP_EVERY = 8
const SWEEP_STEPS = 16

function sweepSome(counts: Counts, now: number): void {
  counts.calls += 1
  if (counts.calls % SWEEP_EVERY !== 0) return
  for (let step = 0; step < SWEEP_STEPS; step++) {
    const entry = counts.sweep.next()
    if (entry.done) {
      counts.sweep = counts.ledgers.entries()
      return
    }
    const [lineageId, ledger] = entry.value
    if (ledger.expiresAt <= now) counts.ledgers.delete(lineageId)
  }
}
