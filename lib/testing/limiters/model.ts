import type { PlacesRequest } from '../../core/limits/places.ts'
import type { CompiledLimit } from '../../core/limits/rate-limit.ts'
import type { LimitRequest, SettleRequest, VersionMark } from '../../core/limits/rate-limiter.ts'
import { type LimitBook, newBook, type Range } from './model-books.ts'
import { PlaceBook } from './model-places.ts'

/** How a limit should stand. */
export interface ExpectedState {
  readonly name: string
  readonly remaining: Range
  readonly resetMs: number | null
  readonly exceeded: boolean
}

/** What a limiter should answer to a call. */
export type ExpectedAnswer =
  | { readonly outcome: 'stale' }
  | { readonly outcome: 'admitted'; readonly limits: readonly ExpectedState[] }
  | {
      readonly outcome: 'limited'
      readonly limits: readonly ExpectedState[]
      readonly retryAfterMs: number | null
    }

export interface ExpectedSettlement {
  readonly limits: readonly ExpectedState[]
  readonly made: readonly (readonly Range[])[]
}

/** How long a call waits at least where a place is missing: nobody knows when one comes free. */
const PLACE_WAIT_MS = 1_000

/**
 * What every limiter should answer, kept as a person would keep the books: one for each limit, of a key or of an owner, and
 * nothing ever forgotten. The time only moves forward here, and readers of a bucket agree on its rate.
 */
export class LimiterModel {
  private readonly versions = new Map<string, number>()
  private readonly books = new Map<string, LimitBook>()
  private readonly places = new Map<string, PlaceBook>()
  private readonly settled = new Map<string, ExpectedSettlement['made']>()

  constructor(private readonly now: () => number) {}

  raise({ lineageId, keyId, version }: VersionMark): void {
    const name = `${lineageId} ${keyId}`
    this.versions.set(name, Math.max(version, this.versions.get(name) ?? 0))
  }

  check(request: LimitRequest): ExpectedAnswer {
    const kept = this.versions.get(`${request.lineageId} ${request.keyId}`)
    if (kept === undefined ? !request.fresh : request.version < kept) return { outcome: 'stale' }
    this.raise(request)
    const { places } = request
    if (isLook(request)) return { outcome: 'admitted', limits: this.states(request, () => false) }
    const needs = request.limits.map((_limit, i) => unitsOf(request, i, 1))
    const misses = (limit: CompiledLimit, i: number) =>
      limit.kind === 'concurrent'
        ? this.placesOf(request, limit).held(this.now()) >= limit.limit
        : !this.bookOf(request, limit).fits(limit, needs[i] as number, this.now())
    const isRefused = request.limits.some(misses) || places?.limits.some(misses)
    if (isRefused) {
      const limits = this.states(request, misses)
      return { outcome: 'limited', limits, retryAfterMs: this.waitMs(request, needs, misses) }
    }
    this.spend(request)
    return { outcome: 'admitted', limits: this.states(request, () => false) }
  }

  settle(request: SettleRequest): ExpectedSettlement {
    const made = this.settled.get(request.id) ?? this.change(request)
    this.settled.set(request.id, made)
    return { made, limits: this.states(request, () => false) }
  }

  release(request: PlacesRequest): void {
    for (const limit of request.limits) this.placesOf(request, limit).release(request.id)
  }

  /** How many of these calls had lost a place. */
  renew(requests: readonly PlacesRequest[]): number {
    return requests.filter((request) => {
      const kept = request.limits.map((limit) =>
        this.placesOf(request, limit).renew(request.id, this.now() + limit.maxHeldMs, this.now()),
      )
      return kept.includes(false)
    }).length
  }

  private spend(request: LimitRequest): void {
    for (const [i, limit] of request.limits.entries()) {
      const units = unitsOf(request, i, 0)
      if (units > 0) this.bookOf(request, limit).charge(limit, units, this.now())
    }
    for (const limit of request.places?.limits ?? []) {
      this.placesOf(request, limit).take(request.places?.id ?? '', this.now() + limit.maxHeldMs)
    }
  }

  private change(request: SettleRequest): ExpectedSettlement['made'] {
    return request.limits.map((limit, i) => {
      const book = this.bookOf(request, limit)
      return (request.changes[i] ?? []).map(({ units, chargedAt }) => {
        if (units > 0) book.charge(limit, units, this.now())
        if (units > 0) return exactly(units)
        return book.giveBack(limit, -units, chargedAt, this.now())
      })
    })
  }

  private waitMs(
    request: LimitRequest,
    needs: readonly number[],
    misses: (limit: CompiledLimit, i: number) => boolean,
  ): number | null {
    const isNever = request.limits.some(({ capacity }, i) => (needs[i] as number) > capacity)
    if (isNever) return null
    const waits = request.limits.map((limit, i) => {
      if (!misses(limit, i)) return 0
      return this.bookOf(request, limit).waitMs(limit, needs[i] as number, this.now())
    })
    const isFull = request.places?.limits.some(misses) ?? false
    return Math.max(isFull ? PLACE_WAIT_MS : 0, ...waits)
  }

  private states(
    request: Counted & {
      readonly limits: readonly CompiledLimit[]
      readonly places?: LimitRequest['places']
    },
    isExceeded: (limit: CompiledLimit, i: number) => boolean,
  ): readonly ExpectedState[] {
    const now = this.now()
    const metered = request.limits.map((limit, i) => {
      const book = this.bookOf(request, limit)
      const remaining = exactly(book.remaining(limit, now))
      return stateOf(limit, remaining, book.resetMs(limit, now), isExceeded(limit, i))
    })
    const concurrent = (request.places?.limits ?? []).map((limit, i) => {
      const book = this.placesOf(request, limit)
      const least = Math.max(0, limit.limit - book.heldOrForgotten())
      const most = Math.max(0, limit.limit - book.held(now))
      return stateOf(limit, { least, most }, null, isExceeded(limit, i))
    })
    return [...metered, ...concurrent]
  }

  private bookOf(counted: Counted, limit: CompiledLimit): LimitBook {
    return entryOf(this.books, `${countedAs(counted, limit)} ${limit.shape}`, () => newBook(limit))
  }

  private placesOf(counted: Counted, limit: CompiledLimit): PlaceBook {
    return entryOf(this.places, `${countedAs(counted, limit)} ${limit.name}`, () => new PlaceBook())
  }
}

type Counted = Pick<LimitRequest, 'lineageId' | 'owner'>

/** The key or the owner that a limit counts. */
function countedAs({ lineageId, owner }: Counted, { isOwners }: CompiledLimit): string {
  return isOwners ? `owner ${owner}` : `key ${lineageId}`
}

function entryOf<T>(entries: Map<string, T>, name: string, make: () => T): T {
  const entry = entries.get(name) ?? make()
  entries.set(name, entry)
  return entry
}

function isLook({ cost, costs }: LimitRequest): boolean {
  return cost === 0 && costs === undefined
}

function unitsOf({ cost, costs }: LimitRequest, i: number, atLeast: number): number {
  return Math.max(atLeast, costs ? (costs[i] as number) : cost)
}

function exactly(number: number): Range {
  return { least: number, most: number }
}

function stateOf(
  { name }: CompiledLimit,
  remaining: ExpectedState['remaining'],
  resetMs: number | null,
  exceeded: boolean,
): ExpectedState {
  return { name, remaining, resetMs, exceeded }
}
