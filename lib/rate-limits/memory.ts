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
   * The time for opening windows and refilling buckets.
   *
   * @default the machine's clock
   */
  clock?: Pick<Clock, 'now'>
}

/** The counts of a lineage. */
interface Ledger {
  readonly versions: Map<string, KeptVersion>
  /** By shape: the keys of one lineage may have different shapes for a while, and must not restart each other's count. */
  readonly meters: Map<string, Meter>
  expiresAt: number
  /** From this many versions and meters on, ended ones are dropped. */
  tidyAt: number
}

interface KeptVersion {
  version: number
  keptUntil: number
}

/** Every so many calls, the limiter looks at so many ledgers and drops ended ones. */
const SWEEP_EVERY = 8
const SWEEP_STEPS = 16

/** A ledger with fewer versions and meters is not searched for ended ones. */
const TIDY_FROM = 16

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
      // A limiter that only stands in for another one hears of changes, but may never check anything.
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

/** Whether there is room for the meters that a charge would open. */
function hasRoom(ledger: Ledger, limits: readonly CompiledLimit[], now: number): boolean {
  const { meters } = ledger
  if (meters.size + limits.length <= MAX_METERS) return true
  dropEnded(ledger, now)
  return meters.size + limits.filter(({ shape }) => !meters.has(shape)).length <= MAX_METERS
}

/** Makes limits without room read as used up. */
function useUp(ledger: Ledger, { limits, cost }: LimitRequest, readings: MeterReading[], now: number): void {
  for (const [i, limit] of limits.entries()) {
    if (!ledger.meters.has(limit.shape)) readings[i] = readMeter(limit, usedUpMeter(limit, now), cost, now)
  }
}

/** Drops ended versions and meters once there are many: a search costs no more than the additions since the last one. */
function tidy(ledger: Ledger, now: number): void {
  if (ledger.versions.size + ledger.meters.size < ledger.tidyAt) return
  dropEnded(ledger, now)
  ledger.tidyAt = TIDY_FROM + 2 * (ledger.versions.size + ledger.meters.size)
}

function dropEnded({ versions, meters }: Ledger, now: number): void {
  for (const [shape, { until }] of meters) if (until <= now) meters.delete(shape)
  for (const [keyId, { keptUntil }] of versions) if (keptUntil <= now) versions.delete(keyId)
}

/** Keeps meters that a clock set back has moved, so that a refused caller does not wait for the old time. */
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
