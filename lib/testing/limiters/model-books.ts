import type { CompiledLimit } from '../../core/limits/rate-limit.ts'
import { newPeriod, type Period } from './model-periods.ts'

/** What a limiter may answer: both numbers are right, and all between them. */
export interface Range {
  readonly least: number
  readonly most: number
}

/** What is used of one limit. Whoever reads it may have other numbers than the others. */
export interface LimitBook {
  remaining(limit: CompiledLimit, now: number): number
  /** Whether so many units fit. */
  fits(limit: CompiledLimit, units: number, now: number): boolean
  /** How long until so many units fit that do not. */
  waitMs(limit: CompiledLimit, units: number, now: number): number
  /** How long until more remains; null if nothing is used. */
  resetMs(limit: CompiledLimit, now: number): number | null
  /** Units are used, whether they fit or not. */
  charge(limit: CompiledLimit, units: number, now: number): void
  /** Units that were used at `chargedAt` were not. */
  giveBack(limit: CompiledLimit, units: number, chargedAt: number, now: number): Range
}

export function newBook({ kind }: CompiledLimit): LimitBook {
  return kind === 'bucket' ? new BucketBook() : new PeriodBook()
}

/** A window or calendar limit: each period has a page of its own. */
class PeriodBook implements LimitBook {
  private page: (Period & { used: number }) | null = null

  private pageAt(now: number) {
    return this.page && now < this.page.endsAt ? this.page : null
  }

  private used(now: number): number {
    return this.pageAt(now)?.used ?? 0
  }

  remaining({ limit }: CompiledLimit, now: number): number {
    return Math.max(0, limit - this.used(now))
  }

  fits({ limit }: CompiledLimit, units: number, now: number): boolean {
    return this.used(now) + units <= limit
  }

  waitMs(limit: CompiledLimit, _units: number, now: number): number {
    return (this.pageAt(now) ?? newPeriod(limit, now)).endsAt - now
  }

  resetMs(limit: CompiledLimit, now: number): number | null {
    return this.used(now) === 0 ? null : this.waitMs(limit, 0, now)
  }

  charge(limit: CompiledLimit, units: number, now: number): void {
    const page = this.pageAt(now) ?? { ...newPeriod(limit, now), used: 0 }
    page.used += units
    this.page = page
  }

  /** What was used on an earlier page stays there. */
  giveBack(_limit: CompiledLimit, units: number, chargedAt: number, now: number): Range {
    const page = this.pageAt(now)
    const given = page && chargedAt >= page.startsAt ? units : 0
    if (page) page.used -= given
    return { least: given, most: given }
  }
}

/**
 * A bucket that leaks `limit` units in `windowMs`. Its level is kept in units times `windowMs`, of which `limit` leak in a
 * millisecond: all of it are whole numbers, and nothing is rounded.
 */
class BucketBook implements LimitBook {
  private level = 0
  private at = 0

  private levelAt({ limit }: CompiledLimit, now: number): number {
    return Math.max(0, this.level - (now - this.at) * limit)
  }

  private set(level: number, now: number): void {
    this.level = level
    this.at = now
  }

  remaining(limit: CompiledLimit, now: number): number {
    const { capacity, windowMs } = limit
    return Math.max(0, Math.floor((capacity * windowMs - this.levelAt(limit, now)) / windowMs))
  }

  fits(limit: CompiledLimit, units: number, now: number): boolean {
    return this.levelAt(limit, now) <= (limit.capacity - units) * limit.windowMs
  }

  waitMs(limit: CompiledLimit, units: number, now: number): number {
    const { capacity, windowMs } = limit
    return Math.ceil((this.levelAt(limit, now) - (capacity - units) * windowMs) / limit.limit)
  }

  resetMs(limit: CompiledLimit, now: number): number | null {
    if (this.levelAt(limit, now) === 0) return null
    return this.waitMs(limit, this.remaining(limit, now) + 1, now)
  }

  charge(limit: CompiledLimit, units: number, now: number): void {
    this.set(this.levelAt(limit, now) + units * limit.windowMs, now)
  }

  /** As far as it has not leaked since: perhaps it was that which leaked, and not what others have used. */
  giveBack(limit: CompiledLimit, units: number, chargedAt: number, now: number): Range {
    const level = this.levelAt(limit, now)
    const given = Math.max(0, units * limit.windowMs - (now - chargedAt) * limit.limit)
    this.set(Math.max(0, level - given), now)
    return { least: Math.min(given, level) / limit.windowMs, most: given / limit.windowMs }
  }
}
