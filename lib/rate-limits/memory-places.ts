import { type PlacesRequest, placeState } from '../core/limits/places.ts'
import type { CompiledLimit, LimitState } from '../core/limits/rate-limit.ts'
import type { WantedPlaces } from '../core/limits/rate-limiter.ts'
import { type Books, bookOf, keepFor, type Ledger } from './ledger.ts'

/** How the limits stand before a call takes its places; those without room are exceeded, unless the call only looks. */
export function countPlaces(
  books: Books,
  { limits }: WantedPlaces,
  isLook: boolean,
  now: number,
): readonly LimitState[] {
  return limits.map((limit) => {
    const taken = takenOf(books, limit)
    // As in Redis: ended places are dropped only where one is needed.
    if (taken && !isLook && taken.size >= limit.limit) dropEnded(taken, now)
    const held = isLook ? countHeld(taken, now) : (taken?.size ?? 0)
    return placeState(limit, held, !isLook && held >= limit.limit)
  })
}

/** Takes the places of a call that fits, unless it only looks; returns how the limits stand then. */
export function takePlaces(
  books: Books,
  { id, limits }: WantedPlaces,
  isLook: boolean,
  now: number,
): readonly LimitState[] {
  return limits.map((limit) => {
    if (isLook) return placeState(limit, countHeld(takenOf(books, limit), now), false)
    take(bookOf(books, limit), limit, id, now)
    return placeState(limit, takenOf(books, limit)?.size ?? 0, false)
  })
}

/** Gives places back. */
export function dropPlaces(
  { id, limits }: PlacesRequest,
  own: Ledger | undefined,
  owners: Ledger | undefined,
): void {
  for (const { name, isOwners } of limits) {
    const { places = null } = (isOwners ? owners : own) ?? {}
    const taken = places?.get(name)
    taken?.delete(id)
    if (taken?.size === 0) places?.delete(name)
  }
}

/** Keeps places, or takes them again; whether all of them were still there. */
export function renewPlaces(books: Books, { id, limits }: PlacesRequest, now: number): boolean {
  let wereThere = true
  for (const limit of limits) {
    const until = takenOf(books, limit)?.get(id) ?? 0
    wereThere &&= until > now
    take(bookOf(books, limit), limit, id, now)
  }
  return wereThere
}

function takenOf(books: Books, limit: CompiledLimit): Map<string, number> | undefined {
  return bookOf(books, limit).places?.get(limit.name)
}

function take(ledger: Ledger, { name, maxHeldMs }: CompiledLimit, id: string, now: number): void {
  ledger.places ??= new Map()
  const taken = ledger.places.get(name) ?? new Map<string, number>()
  ledger.places.set(name, taken.set(id, now + maxHeldMs))
  keepFor(ledger, maxHeldMs, now)
}

function countHeld(taken: Map<string, number> | undefined, now: number): number {
  let held = 0
  for (const until of taken?.values() ?? []) if (until > now) held += 1
  return held
}

function dropEnded(taken: Map<string, number>, now: number): void {
  for (const [id, until] of taken) if (until <= now) taken.delete(id)
}
