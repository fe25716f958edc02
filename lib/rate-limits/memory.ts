import { type Clock, systemClock } from '../core/clock.ts'
import {
  type CompiledLimit,
  chargeMeter,
  MAX_METERS,
  type Meter,
  type MeterReading,
  readMeter,
  refundMeter,
  usedUpMeter,
} from '../core/limits/rate-limit.ts'
import type {
  LimitAnswer,
  LimitRequest,
  RateLimiter,
  RefundRequest,
  VersionMark,
} from '../core/limits/rate-limiter.ts'
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
  readonly versions: Map<string, KeptVersion>
  /** By shape: keys of one lineage may differ in it for a while, and must not restart each other's count. */
  readonly meters: Map<string, Meter>
  expiresAt: number
  /** With so many versions and meters, those that have ended are dropped. */
  tidyAt: number
}

interface KeptVersion {
  version: number
  keptUntil: number
}

/** So often are ledgers looked at, so many at once, to drop those that have ended. */
const SWEEP_EVERY = 8
const SWEEP_STEPS = 16

/** A ledger with fewer versions and meters is not looked through for those that have ended. */
const TIDY_FROM = 16

/** The limiter of one process: it answers at once. */
export interface MemoryRateLimiter extends RateLimiter {
  check(request: LimitRequest): LimitAnswer
  raiseVersions(marks: readonly VersionMark[], retainMs: number): void
  refund(request: RefundRequest): void
  forget(lineageId: string): void
}

/**
 * Counts in the memory of the process: exact for one process, and its own count in each of several.
 * It sets no timers, so a window may last for months; what has ended is swept a little with every call.
 *
 * It holds one ledger for each key and its successors that were used or changed lately, about 500 bytes, until the last of
 * its limits has ended. In it are at most 256 running meters; a limit that there is no room for is refused. Ended meters, and
 * versions that nobody asks for any more, are at most as many as those that matter, and 16.
 */
export function memoryRateLimiter(options: MemoryRateLimiterOptions = {}): MemoryRateLimiter {
  const { clock = systemClock } = checkObject('options', options, ['clock']) as MemoryRateLimiterOptions
  checkFunction('clock.now', clock?.now)
  const ledgers = new Map<string, Ledger>()
  let sweep = ledgers.entries()
  let calls = 0

  return { check, raiseVersions, refund, forget: (lineageId) => void ledgers.delete(lineageId) }

  function check(request: LimitRequest): LimitAnswer {
    const now = clock.now()
    sweepSome(now)
    const ledger = ledgerOf(request.lineageId)
    if (!acceptVersion(ledger, request, now)) {
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

  function raiseVersions(marks: readonly VersionMark[], retainMs: number): void {
    const now = clock.now()
    for (const { lineageId, keyId, version } of marks) {
      // It may be that nothing is ever checked here: a limiter that others stand in for hears of changes all the same.
      sweepSome(now)
      const ledger = ledgerOf(lineageId)
      const kept = ledger.versions.get(keyId)
      keepVersion(ledger, keyId, Math.max(version, kept?.version ?? 0), now + retainMs)
      keepFor(ledger, retainMs, now)
      tidy(ledger, now)
    }
  }

  function refund({ lineageId, cost, chargedAt, limits }: RefundRequest): void {
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

  function ledgerOf(lineageId: string): Ledger {
    let ledger = ledgers.get(lineageId)
    if (!ledger) {
      ledger = { versions: new Map(), meters: new Map(), expiresAt: 0, tidyAt: TIDY_FROM }
      ledgers.set(lineageId, ledger)
    }
    return ledger
  }

  function sweepSome(now: number): void {
    calls += 1
    if (calls % SWEEP_EVERY !== 0) return
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

function acceptVersion(
  ledger: Ledger,
  { keyId, version, fresh, retainMs }: LimitRequest,
  now: number,
): boolean {
  const kept = ledger.versions.get(keyId)
  if (kept?.version !== version && (kept === undefined ? !fresh : version < kept.version)) return false
  keepVersion(ledger, keyId, version, now + retainMs)
  return true
}

function keepVersion(ledger: Ledger, keyId: string, version: number, until: number): void {
  const kept = ledger.versions.get(keyId)
  if (!kept) {
    ledger.versions.set(keyId, { version, keptUntil: until })
    return
  }
  kept.version = version
  kept.keptUntil = Math.max(kept.keptUntil, until)
}

/** Whether the meters that a charge would open can be kept beside those that are running. */
function hasRoom(ledger: Ledger, limits: readonly CompiledLimit[], now: number): boolean {
  const { meters } = ledger
  if (meters.size + limits.length <= MAX_METERS) return true
  dropEnded(ledger, now)
  return meters.size + limits.filter(({ shape }) => !meters.has(shape)).length <= MAX_METERS
}

/** Has the limits that there is no room for read as used up. */
function useUp(ledger: Ledger, { limits, cost }: LimitRequest, readings: MeterReading[], now: number): void {
  for (const [i, limit] of limits.entries()) {
    if (!ledger.meters.has(limit.shape)) readings[i] = readMeter(limit, usedUpMeter(limit, now), cost, now)
  }
}

/** Drops what has ended once there is much of it: every look costs no more than what has come since the last. */
function tidy(ledger: Ledger, now: number): void {
  if (ledger.versions.size + ledger.meters.size < ledger.tidyAt) return
  dropEnded(ledger, now)
  ledger.tidyAt = TIDY_FROM + 2 * (ledger.versions.size + ledger.meters.size)
}

function dropEnded({ versions, meters }: Ledger, now: number): void {
  for (const [shape, { until }] of meters) if (until <= now) meters.delete(shape)
  for (const [keyId, { keptUntil }] of versions) if (keptUntil <= now) versions.delete(keyId)
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
