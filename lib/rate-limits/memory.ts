import { type Clock, systemClock } from '../core/clock.ts'
import {
  chargeMeter,
  limitState,
  MAX_METERS,
  type Meter,
  type MeterReading,
  readMeter,
  settleMeter,
  usedUpMeter,
} from '../core/limits/meter.ts'
import type { PlacesRequest } from '../core/limits/places.ts'
import type { CompiledLimit } from '../core/limits/rate-limit.ts'
import {
  costAt,
  isLook,
  type LimitAnswer,
  type LimitRequest,
  neededAt,
  type RateLimiter,
  type SettleAnswer,
  type SettleRequest,
  type VersionMark,
} from '../core/limits/rate-limiter.ts'
import { checkFunction, checkObject } from '../internal/options.ts'
import {
  acceptVersion,
  type Books,
  bookOf,
  createLedger,
  hasRoom,
  isOpenWindow,
  keepFor,
  type Ledger,
  raiseVersion,
  tidy,
} from './ledger.ts'
import { admittedAnswer, refusedAnswer } from './limit-answers.ts'
import { countPlaces, dropPlaces, renewPlaces, takePlaces } from './memory-places.ts'

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
  settle(request: SettleRequest): SettleAnswer
  release(request: PlacesRequest): void
  renew(requests: readonly PlacesRequest[]): number
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
  const counts: Counts = { clock, keys: createLedgers(), owners: createLedgers() }
  return {
    check: (request) => check(counts, request),
    raiseVersions: (marks, retainMs) => raiseVersions(counts, marks, retainMs),
    settle: (request) => settle(counts, request),
    release: (request) => release(counts, request),
    renew: (requests) => renew(counts, requests),
    forget: (lineageId) => void counts.keys.held.delete(lineageId),
  }
}

interface Counts {
  readonly clock: Pick<Clock, 'now'>
  readonly keys: Ledgers
  /** By owner. */
  readonly owners: Ledgers
}

function check(counts: Counts, request: LimitRequest): LimitAnswer {
  const now = counts.clock.now()
  sweepSome(counts.keys, now)
  const ledger = ledgerOf(counts.keys, request.lineageId)
  if (!acceptVersion(ledger, request, now)) {
    keepFor(ledger, request.retainMs, now)
    return { outcome: 'stale' }
  }
  const charged = chargeOpenWindow(ledger, request, now)
  if (charged) return charged
  const books = booksOf(counts, ledger, request.owner, now)
  const readings: MeterReading[] = []
  let fits = true
  for (let i = 0; i < request.limits.length; i++) {
    const limit = request.limits[i] as CompiledLimit
    const reading = readMeter(limit, bookOf(books, limit).meters.get(limit.shape), neededAt(request, i), now)
    readings.push(reading)
    fits &&= reading.fits
  }
  if (fits && !isLook(request)) fits = haveRoom(books, request, readings, now)
  const places = request.places && countPlaces(books, request.places, isLook(request), now)
  fits &&= places?.every(({ exceeded }) => !exceeded) ?? true
  if (fits) return admit(books, request, readings, now)
  followClock(books, request.limits, readings)
  keepFor(ledger, request.retainMs, now)
  return refusedAnswer(request.limits, readings, now, places)
}

function booksOf({ owners }: Counts, own: Ledger, owner: string | undefined, now: number): Books {
  if (owner === undefined) return { own, owners: null }
  sweepSome(owners, now)
  return { own, owners: ledgerOf(owners, owner) }
}

/** Whether there is room to count the call. Otherwise limits without room read as used up. */
function haveRoom(books: Books, request: LimitRequest, readings: MeterReading[], now: number): boolean {
  const { limits } = request
  let have = true
  for (const ledger of [books.own, books.owners]) {
    if (!ledger || ledger.meters.size + limits.length <= MAX_METERS) continue
    const opened = limits.filter((limit, i) => bookOf(books, limit) === ledger && costAt(request, i) > 0)
    if (hasRoom(ledger, opened, now)) continue
    have = false
    for (const [i, limit] of limits.entries()) {
      if (bookOf(books, limit) !== ledger || ledger.meters.has(limit.shape)) continue
      readings[i] = readMeter(limit, usedUpMeter(limit, now), neededAt(request, i), now)
    }
  }
  return have
}

function admit(
  books: Books,
  request: LimitRequest,
  readings: readonly MeterReading[],
  now: number,
): LimitAnswer {
  const { limits } = request
  const meters: Meter[] = []
  keepFor(books.own, request.retainMs, now)
  for (let i = 0; i < limits.length; i++) {
    const limit = limits[i] as CompiledLimit
    const { meter } = readings[i] as MeterReading
    const cost = costAt(request, i)
    meters.push(
      cost === 0 ? meter : keepMeter(bookOf(books, limit), limit, chargeMeter(limit, meter, cost), now),
    )
  }
  tidy(books.own, now)
  if (books.owners) tidy(books.owners, now)
  const isAsked = isLook(request)
  const places = request.places && takePlaces(books, request.places, isAsked, now)
  return admittedAnswer(limits, meters, isAsked ? null : now, now, places)
}

function keepMeter(ledger: Ledger, { shape }: CompiledLimit, meter: Meter, now: number): Meter {
  ledger.meters.set(shape, meter)
  keepFor(ledger, meter.until - now, now)
  return meter
}

/** Keeps meters that a clock set back has moved, so that a refused caller does not wait for the old time. */
function followClock(
  books: Books,
  limits: readonly CompiledLimit[],
  readings: readonly MeterReading[],
): void {
  for (const [i, limit] of limits.entries()) {
    const { meter } = readings[i] as MeterReading
    const { meters } = bookOf(books, limit)
    const kept = meters.get(limit.shape)
    if (kept && meter.since < kept.since) meters.set(limit.shape, meter)
  }
}

/**
 * The common case, with nothing to decide but whether the cost fits: one window, which is open. Null where the case is
 * another one.
 */
function chargeOpenWindow(ledger: Ledger, request: LimitRequest, now: number): LimitAnswer | null {
  const { limits, cost, costs, owner, places, retainMs } = request
  const limit = limits.length === 1 ? (limits[0] as CompiledLimit) : null
  if (limit?.kind !== 'window' || cost === 0 || costs !== undefined) return null
  if (owner !== undefined || places !== undefined) return null
  const meter = ledger.meters.get(limit.shape)
  if (!meter || !isOpenWindow(meter, now) || meter.used + cost > limit.capacity) return null
  const charged = chargeMeter(limit, meter, cost)
  ledger.meters.set(limit.shape, charged)
  keepFor(ledger, Math.max(retainMs, charged.until - now), now)
  tidy(ledger, now)
  return { outcome: 'admitted', limits: [limitState(limit, charged, false, now)], chargedAt: now }
}

function raiseVersions({ clock, keys }: Counts, marks: readonly VersionMark[], retainMs: number): void {
  const now = clock.now()
  for (const { lineageId, keyId, version } of marks) {
    // A limiter that only stands in for another one hears of changes, but may never check anything.
    sweepSome(keys, now)
    const ledger = ledgerOf(keys, lineageId)
    raiseVersion(ledger, keyId, version, now + retainMs)
    keepFor(ledger, retainMs, now)
    tidy(ledger, now)
  }
}

/** In one process nothing is lost on the way, so no change arrives twice. */
function settle(counts: Counts, { lineageId, owner, limits, changes }: SettleRequest): SettleAnswer {
  const now = counts.clock.now()
  const books = booksOf(counts, ledgerOf(counts.keys, lineageId), owner, now)
  const made: (readonly number[])[] = []
  const states = limits.map((limit, i) => {
    const ledger = bookOf(books, limit)
    const kept = ledger.meters.get(limit.shape)
    const settled = settleMeter(limit, kept, changes[i] ?? [], now)
    if (settled.meter) keepMeter(ledger, limit, settled.meter, now)
    made.push(settled.made)
    return limitState(limit, readMeter(limit, settled.meter ?? kept, 0, now).meter, false, now)
  })
  return { limits: states, made, settledAt: now }
}

function release(counts: Counts, request: PlacesRequest): void {
  const own = counts.keys.held.get(request.lineageId)
  const owners = request.owner === undefined ? undefined : counts.owners.held.get(request.owner)
  dropPlaces(request, own, owners)
}

function renew(counts: Counts, requests: readonly PlacesRequest[]): number {
  const now = counts.clock.now()
  let lost = 0
  for (const request of requests) {
    const books = booksOf(counts, ledgerOf(counts.keys, request.lineageId), request.owner, now)
    if (!renewPlaces(books, request, now)) lost += 1
  }
  return lost
}

/** Ledgers by the name of what they count. */
interface Ledgers {
  readonly held: Map<string, Ledger>
  /** Where the next sweep goes on. */
  sweep: MapIterator<[string, Ledger]>
  calls: number
}

function createLedgers(): Ledgers {
  const held = new Map<string, Ledger>()
  return { held, sweep: held.entries(), calls: 0 }
}

function ledgerOf({ held }: Ledgers, name: string): Ledger {
  let ledger = held.get(name)
  if (!ledger) {
    ledger = createLedger()
    held.set(name, ledger)
  }
  return ledger
}

/** Every so many calls, the limiter looks at so many ledgers and drops ended ones. */
const SWEEP_EVERY = 8
const SWEEP_STEPS = 16

function sweepSome(ledgers: Ledgers, now: number): void {
  ledgers.calls += 1
  if (ledgers.calls % SWEEP_EVERY !== 0) return
  for (let step = 0; step < SWEEP_STEPS; step++) {
    const entry = ledgers.sweep.next()
    if (entry.done) {
      ledgers.sweep = ledgers.held.entries()
      return
    }
    const [name, ledger] = entry.value
    if (ledger.expiresAt <= now) ledgers.held.delete(name)
  }
}
