import { type Clock, systemClock } from '../core/clock.ts'
import {
  type CompiledLimit,
  chargeMeter,
  lifetimeMs,
  type Meter,
  type MeterReading,
  readMeter,
  refundMeter,
} from '../core/rate-limit.ts'
import type {
  LimitAnswer,
  LimitRequest,
  RateLimiter,
  RefundRequest,
  VersionMark,
} from '../core/rate-limiter.ts'
import { checkFunction, checkObject } from '../internal/options.ts'
import { admittedAnswer, refusedAnswer } from './limit-answers.ts'

export interface MemoryRateLimiterOptions {
  /**
   * The time by which windows open and buckets refill.
   *
   * @default the machine's clock
   */
  clock?: Pick<Clock, 'now'>
}

/** What is kept for a lineage. */
interface Ledger {
  readonly versions: Map<string, number>
  /** By shape: keys of one lineage may differ in it for a while, and must not restart each other's count. */
  readonly meters: Map<string, Meter>
  expiresAt: number
}

/** How many ledgers every call looks at to drop those that no longer matter. */
const SWEEP_STEPS = 2

/** The limiter of one process: it answers at once. */
export interface MemoryRateLimiter extends RateLimiter {
  check(request: LimitRequest): LimitAnswer
  raiseVersions(marks: readonly VersionMark[], retainMs: number): void
  refund(request: RefundRequest): void
}

/**
 * Counts in the memory of the process: exact for one process, and its own count in each of several.
 * It sets no timers, so a window may last for months; what has run out is swept a little with every call.
 */
export function memoryRateLimiter(options: MemoryRateLimiterOptions = {}): MemoryRateLimiter {
  const { clock = systemClock } = checkObject('options', options, ['clock']) as MemoryRateLimiterOptions
  checkFunction('clock.now', clock?.now)
  const ledgers = new Map<string, Ledger>()
  let sweep = ledgers.entries()

  return { check, raiseVersions, refund }

  function check(request: LimitRequest): LimitAnswer {
    const now = clock.now()
    sweepSome(now)
    const ledger = ledgerOf(request.lineageId)
    if (!acceptVersion(ledger, request)) {
      keepFor(ledger, request.retainMs, now)
      return { outcome: 'stale' }
    }
    const { limits, cost } = request
    const readings: MeterReading[] = []
    let fits = true
    for (const limit of limits) {
      const reading = readMeter(limit, ledger.meters.get(limit.shape), cost, now)
      readings.push(reading)
      fits &&= reading.fits
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
      const charged = chargeMeter((readings[i] as MeterReading).meter, cost)
      meters.push(charged)
      if (cost === 0) continue
      ledger.meters.set(limit.shape, charged)
      keepMs = Math.max(keepMs, lifetimeMs(limit))
    }
    keepFor(ledger, keepMs, now)
    return admittedAnswer(limits, meters, cost > 0 ? now : null, now)
  }

  function raiseVersions(marks: readonly VersionMark[], retainMs: number): void {
    const now = clock.now()
    for (const { lineageId, keyId, version } of marks) {
      // It may be that nothing is ever checked here: a limiter that others stand in for hears of changes all the same.
      sweepSome(now)
      const ledger = ledgerOf(lineageId)
      ledger.versions.set(keyId, Math.max(version, ledger.versions.get(keyId) ?? 0))
      keepFor(ledger, retainMs, now)
    }
  }

  function refund({ lineageId, cost, chargedAt, limits }: RefundRequest): void {
    const ledger = ledgers.get(lineageId)
    if (!ledger) return
    for (const limit of limits) {
      const meter = refundMeter(limit, ledger.meters.get(limit.shape), cost, chargedAt, clock.now())
      if (meter) ledger.meters.set(limit.shape, meter)
    }
  }

  function ledgerOf(lineageId: string): Ledger {
    let ledger = ledgers.get(lineageId)
    if (!ledger) {
      ledger = { versions: new Map(), meters: new Map(), expiresAt: 0 }
      ledgers.set(lineageId, ledger)
    }
    return ledger
  }

  function sweepSome(now: number): void {
    for (let step = 0; step < SWEEP_STEPS; step++) {
      const entry = sweep.next()
      if (entry.done) {
        sweep = ledgers.entries()
        return
      }
      const [lineageId, ledger] = entry.value
      if (ledger.expiresAt <= now) ledgers.delete(lineageId)
    }
  }
}

function acceptVersion(ledger: Ledger, { keyId, version, fresh }: LimitRequest): boolean {
  const kept = ledger.versions.get(keyId)
  if (kept === version) return true
  if (kept === undefined ? !fresh : version < kept) return false
  ledger.versions.set(keyId, version)
  return true
}

/** Keeps meters that went back with the clock, so that a refused caller does not wait for the time before. */
function followClock(
  ledger: Ledger,
  limits: readonly CompiledLimit[],
  readings: readonly MeterReading[],
): void {
  for (const [i, limit] of limits.entries()) {
    const { meter } = readings[i] as MeterReading
    const kept = ledger.meters.get(limit.shape)
    if (kept && meter.since < kept.since) ledger.meters.set(limit.shape, meter)
  }
}

function keepFor(ledger: Ledger, durationMs: number, now: number): void {
  ledger.expiresAt = Math.max(ledger.expiresAt, now + durationMs)
}
