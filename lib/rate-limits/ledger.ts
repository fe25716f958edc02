import { MAX_METERS, type Meter } from '../core/limits/meter.ts'
import type { CompiledLimit } from '../core/limits/rate-limit.ts'
import type { LimitRequest } from '../core/limits/rate-limiter.ts'

/** The counts of a lineage. */
export interface Ledger {
  readonly versions: Map<string, KeptVersion>
  /** By shape: the keys of one lineage may have different shapes for a while, and must not restart each other's count. */
  readonly meters: Map<string, Meter>
  /** Until when each place is taken, by its id, by the name of its limit; null until one is taken. */
  places: Map<string, Map<string, number>> | null
  expiresAt: number
  /** From this many versions and meters on, ended ones are dropped. */
  tidyAt: number
}

/** The ledger of a key, and that of its owner if it has limits of its owner. */
export interface Books {
  readonly own: Ledger
  readonly owners: Ledger | null
}

/** The ledger in which a limit counts. */
export function bookOf({ own, owners }: Books, { isOwners }: CompiledLimit): Ledger {
  return isOwners && owners ? owners : own
}

interface KeptVersion {
  version: number
  keptUntil: number
}

/** A ledger with fewer versions and meters is not searched for ended ones. */
const TIDY_FROM = 16

export function createLedger(): Ledger {
  return { versions: new Map(), meters: new Map(), places: null, expiresAt: 0, tidyAt: TIDY_FROM }
}

/** Whether the record is the latest known one. Keeps its version. */
export function acceptVersion(
  { versions }: Ledger,
  { keyId, version, fresh, retainMs }: LimitRequest,
  now: number,
): boolean {
  const kept = versions.get(keyId)
  if (!kept) {
    if (fresh) versions.set(keyId, { version, keptUntil: now + retainMs })
    return fresh
  }
  if (version < kept.version) return false
  kept.version = version
  kept.keptUntil = Math.max(kept.keptUntil, now + retainMs)
  return true
}

/** Keeps a version, or the later one that is known. */
export function raiseVersion({ versions }: Ledger, keyId: string, version: number, until: number): void {
  const kept = versions.get(keyId)
  if (!kept) {
    versions.set(keyId, { version, keptUntil: until })
    return
  }
  kept.version = Math.max(kept.version, version)
  kept.keptUntil = Math.max(kept.keptUntil, until)
}

/** Whether there is room for `opened` meters that a charge would open. */
export function hasRoom(ledger: Ledger, opened: readonly CompiledLimit[], now: number): boolean {
  const { meters } = ledger
  if (meters.size + opened.length <= MAX_METERS) return true
  dropEnded(ledger, now)
  return meters.size + opened.filter(({ shape }) => !meters.has(shape)).length <= MAX_METERS
}

/** Drops ended versions and meters once there are many: a search costs no more than the additions since the last one. */
export function tidy(ledger: Ledger, now: number): void {
  if (ledger.versions.size + ledger.meters.size < ledger.tidyAt) return
  dropEnded(ledger, now)
  ledger.tidyAt = TIDY_FROM + 2 * (ledger.versions.size + ledger.meters.size)
}

function dropEnded({ versions, meters }: Ledger, now: number): void {
  for (const [shape, { until }] of meters) if (until <= now) meters.delete(shape)
  for (const [keyId, { keptUntil }] of versions) if (keptUntil <= now) versions.delete(keyId)
}

/** Whether a window counts at `now` as it is kept. If the clock was set back, one may seem to begin in the future. */
export function isOpenWindow({ since, until }: Meter, now: number): boolean {
  return since <= now && now < until
}

export function keepFor(ledger: Ledger, durationMs: number, now: number): void {
  ledger.expiresAt = Math.max(ledger.expiresAt, now + durationMs)
}
