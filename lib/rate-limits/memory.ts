import { type Clock, systemClock } from '../core/clock.ts'
import {
  type CompiledLimit,
  chargeMeter,
  type LimitState,
  lifetimeMs,
  limitState,
  type Meter,
  type MeterReading,
  readMeter,
} from '../core/rate-limit.ts'
import type { LimitAnswer, LimitRequest, QuotaTold, RateLimiter, VersionMark } from '../core/rate-limiter.ts'
import { checkFunction, checkObject } from '../internal/options.ts'

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
  quota: { epoch: number; unspent: number } | null
  expiresAt: number
}

/** How many ledgers every call looks at to drop those that no longer matter. */
const SWEEP_STEPS = 2

/**
 * Counts in the memory of the process: exact for one process, and its own count in each of several.
 * It sets no timers, so a window may last for months; what has run out is swept a little with every call. Some 300 bytes
 * stay for each lineage that holds unspent units of a quota: the units would be lost with them.
 */
export function memoryRateLimiter(options: MemoryRateLimiterOptions = {}): RateLimiter {
  const { clock = systemClock } = checkObject('options', options, ['clock']) as MemoryRateLimiterOptions
  checkFunction('clock.now', clock?.now)
  const ledgers = new Map<string, Ledger>()
  let sweep = ledgers.entries()

  return { check, raiseVersions, unspentQuota }

  function check(request: LimitRequest): LimitAnswer {
    const now = clock.now()
    sweepSome(now)
    const ledger = ledgerOf(request.lineageId)
    // Units come from the store and are not told twice: they count even where the record is stale.
    if (request.quota) hearOfQuota(ledger, request.quota)
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
    const unspent = request.quota ? (ledger.quota?.unspent ?? 0) : 0
    const isShort = request.quota !== null && unspent < cost
    if (fits && !isShort) return admit(ledger, request, readings, now)
    followClock(ledger, limits, readings)
    keepFor(ledger, request.retainMs, now)
    const states = limits.map((limit, i) => stateOf(limit, readings[i], now))
    if (fits) return { outcome: 'short_of_quota', limits: states, unspentQuota: unspent }
    return { outcome: 'limited', limits: states, unspentQuota: unspent, retryAfterMs: longestWait(readings) }
  }

  function admit(
    ledger: Ledger,
    request: LimitRequest,
    readings: readonly MeterReading[],
    now: number,
  ): LimitAnswer {
    const { cost, quota } = request
    const states: LimitState[] = []
    let keepMs = request.retainMs
    for (const [i, { meter }] of readings.entries()) {
      const limit = request.limits[i] as CompiledLimit
      const charged = chargeMeter(meter, cost)
      states.push(limitState(limit, charged, false, now))
      if (cost === 0) continue
      ledger.meters.set(limit.shape, charged)
      keepMs = Math.max(keepMs, lifetimeMs(limit))
    }
    if (quota && ledger.quota) ledger.quota.unspent -= cost
    keepFor(ledger, keepMs, now)
    return { outcome: 'admitted', limits: states, unspentQuota: quota ? (ledger.quota?.unspent ?? 0) : 0 }
  }

  function raiseVersions(marks: readonly VersionMark[], retainMs: number): void {
    const now = clock.now()
    for (const { lineageId, keyId, version } of marks) {
      const ledger = ledgerOf(lineageId)
      ledger.versions.set(keyId, Math.max(version, ledger.versions.get(keyId) ?? 0))
      keepFor(ledger, retainMs, now)
    }
  }

  function unspentQuota(lineageId: string, epoch: number): number {
    const quota = ledgers.get(lineageId)?.quota
    return quota?.epoch === epoch ? quota.unspent : 0
  }

  function ledgerOf(lineageId: string): Ledger {
    let ledger = ledgers.get(lineageId)
    if (!ledger) {
      ledger = { versions: new Map(), meters: new Map(), quota: null, expiresAt: 0 }
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
      // Units that were handed out and not spent would be lost with the ledger.
      if (ledger.expiresAt <= now && !ledger.quota?.unspent) ledgers.delete(lineageId)
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

/**
 * Takes in what was granted for this very call. What the store allotted to others in the same epoch is not ours to
 * spend: this limiter counts for one process.
 */
function hearOfQuota(ledger: Ledger, { epoch, granted }: QuotaTold): void {
  if (!ledger.quota || epoch > ledger.quota.epoch) ledger.quota = { epoch, unspent: granted }
  else if (epoch === ledger.quota.epoch) ledger.quota.unspent += granted
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

function stateOf(limit: LimitRequest['limits'][number], reading: MeterReading | undefined, now: number) {
  const { meter, fits } = reading as MeterReading
  return limitState(limit, meter, !fits, now)
}

function longestWait(readings: readonly MeterReading[]): number | null {
  let longest = 0
  for (const { retryAfterMs } of readings) {
    if (retryAfterMs === null) return null
    longest = Math.max(longest, retryAfterMs)
  }
  return longest
}
