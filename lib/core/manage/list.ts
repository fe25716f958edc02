import { LatchkeyError } from '../../errors.ts'
import { compareCodePoints } from '../../internal/code-points.ts'
import { OptionError } from '../../internal/option-error.ts'
import { checkArray, checkInteger, checkObject, checkShownText, fail } from '../../internal/options.ts'
import type { Clock } from '../clock.ts'
import type { DependencyRunner } from '../faults.ts'
import { BOUNDS } from '../keys/bounds.ts'
import type { ImportedFormats } from '../keys/imported-format.ts'
import { mayBeId } from '../keys/key-id.ts'
import type { KeyFilter, KeyPosition, KeyStore } from '../keys/key-store.ts'
import { type ApiKey, checkOwner, type KeyRecord, type KeyStatus, type Owner } from '../keys/record.ts'
import type { ApiKeyPage, ListOptions } from './key-management.ts'

export interface ListingParts {
  readonly store: KeyStore
  readonly formats: ImportedFormats
  readonly clock: Clock
  readonly guard: DependencyRunner
  view(record: KeyRecord): ApiKey
}

/** Of how many owners a listing may show the keys. */
const MAX_OWNERS = 100

/** Shows keys page by page. */
export function createKeyListing(parts: ListingParts): (options?: ListOptions) => Promise<ApiKeyPage> {
  const { store, clock, view } = parts

  return async function list(options = {}) {
    checkObject('options', options, ['owner', 'owners', 'createdBy', 'name', 'status', 'limit', 'cursor'])
    const limit = options.limit === undefined ? 50 : checkInteger('limit', options.limit, 1, 1_000)
    const after = options.cursor === undefined ? {} : { after: readCursor(options.cursor, parts.formats) }
    const filter = checkFilter(options, clock.now())
    const owners = checkOwners(options)
    const page = { limit: limit + 1, ...after }
    const found = owners ? await listOwners(owners, filter, page) : await store.list(filter, page)
    const shown = found.slice(0, limit)
    const last = found.length > limit ? shown.at(-1) : undefined
    return { apiKeys: shown.map(view), ...(last && { nextCursor: writeCursor(last) }) }
  }

  /** The page that a store would return if it could be asked for several owners. */
  async function listOwners(
    owners: readonly Owner[],
    filter: KeyFilter,
    page: { readonly limit: number; readonly after?: KeyPosition },
  ): Promise<readonly KeyRecord[]> {
    const filters = owners.map((owner) => ({ ...filter, owner }))
    const [only, ...others] = filters
    if (!only) return []
    return others.length === 0 ? store.list(only, page) : mergeListings(parts, filters, page)
  }
}

/** One listing that is merged: what was read of it so far. */
interface Source {
  readonly filter: KeyFilter
  readonly records: KeyRecord[]
  /** How many records were read. */
  read: number
  /** How many the next read asks for. */
  size: number
  /** Whether the last read has found its end. */
  isEnded: boolean
}

/** The fewest records that are read of a listing at once. */
const LEAST_READ = 10
/** How many listings are read at the same time. */
const READS_AT_ONCE = 10
/** A key that is older than this was there when the listing began, whatever the clocks of the processes say. */
const SETTLED_MS = 60_000

/**
 * Merges listings into one in the same order, as far as `page` goes. Of each it reads what the page may need, and twice as
 * much each time that this was not enough.
 */
async function mergeListings(
  { store, clock, guard }: ListingParts,
  filters: readonly KeyFilter[],
  { limit, after }: { readonly limit: number; readonly after?: KeyPosition },
): Promise<readonly KeyRecord[]> {
  const startedAt = clock.now()
  const size = Math.min(limit, Math.max(LEAST_READ, Math.ceil((2 * limit) / filters.length)))
  const sources = filters.map((filter): Source => ({ filter, records: [], read: 0, size, isEnded: false }))
  for (;;) {
    const merged = firstOf(sources, limit)
    // Without one, the page is not full yet.
    const end = merged[limit - 1]
    const behind = sources.filter(
      ({ isEnded, records }) => !isEnded && (!end || isBefore(records.at(-1), end)),
    )
    if (behind.length > 0) await readAll(behind)
    else return isSettled(merged.at(-1), startedAt) ? merged : lookAgain(merged)
  }

  /**
   * A key may be added to one listing after its end was read, and a later one to another before it is read: the later one
   * alone would move the cursor past the earlier. So what has ended is read once more, up to where the page ends.
   */
  async function lookAgain(merged: readonly KeyRecord[]): Promise<readonly KeyRecord[]> {
    const end = merged.at(-1)
    if (!end) return merged
    const isShort = (source: Source) => !source.isEnded && isBefore(source.records.at(-1), end)
    let again = sources.filter(({ isEnded }) => isEnded)
    while (again.length > 0) {
      await readAll(again)
      again = again.filter(isShort)
    }
    return firstOf(sources, Infinity)
      .filter((record) => compare(record, end) <= 0)
      .slice(0, limit)
  }

  async function readAll(behind: readonly Source[]): Promise<void> {
    for (let from = 0; from < behind.length; from += READS_AT_ONCE) {
      await Promise.all(behind.slice(from, from + READS_AT_ONCE).map(read))
    }
  }

  async function read(source: Source): Promise<void> {
    const { records, filter, size } = source
    const last = records.at(-1) ?? after
    const position = last && { after: { createdAt: last.createdAt, id: last.id } }
    for (const record of await store.list(filter, { limit: size, ...position })) {
      // Without that the merge would not come to an end.
      if (!isBefore(records.at(-1) ?? after, record)) {
        throw guard.toError('store', new Error('the store returned a listing that is out of order'))
      }
      records.push(record)
    }
    source.isEnded = records.length < source.read + size
    source.read = records.length
    source.size = Math.min(limit, 2 * size)
  }
}

function firstOf(sources: readonly Source[], limit: number): KeyRecord[] {
  return sources
    .flatMap(({ records }) => records)
    .sort(compare)
    .slice(0, limit)
}

function isSettled(end: KeyRecord | undefined, startedAt: number): boolean {
  return end !== undefined && end.createdAt.getTime() < startedAt - SETTLED_MS
}

function isBefore(a: KeyPosition | undefined, b: KeyPosition): boolean {
  return a === undefined || compare(a, b) < 0
}

/** The order of every listing. */
function compare(a: KeyPosition, b: KeyPosition): number {
  return a.createdAt.getTime() - b.createdAt.getTime() || compareCodePoints(a.id, b.id)
}

/** The owners to list, each once; null where all are. */
function checkOwners({ owner, owners }: ListOptions): readonly Owner[] | null {
  if (owners === undefined) return null
  if (owner !== undefined) throw new TypeError('"owners" cannot be given together with "owner"')
  const checked = checkArray('owners', owners, MAX_OWNERS).map((one, i) => checkOwner(`owners[${i}]`, one))
  return [...new Map(checked.map((one) => [`${one.type.length} ${one.type} ${one.id}`, one])).values()]
}

function checkFilter({ owner, createdBy, name, status }: ListOptions, now: number): KeyFilter {
  if (status !== undefined && !STATUSES.includes(status)) {
    throw new OptionError('status', 'be "active", "disabled", "expired" or "revoked"')
  }
  return {
    ...(owner !== undefined && { owner: checkOwner('owner', owner) }),
    ...(createdBy !== undefined && {
      createdBy: checkShownText('createdBy', createdBy, BOUNDS.createdBy.max),
    }),
    ...(name !== undefined && { name: checkShownText('name', name, BOUNDS.name.max) }),
    ...(status !== undefined && { status: { is: status, at: new Date(now) } }),
  }
}

const STATUSES: readonly KeyStatus[] = ['active', 'disabled', 'expired', 'revoked']

function writeCursor({ createdAt, id }: KeyPosition): string {
  return Buffer.from(JSON.stringify([createdAt.getTime(), id])).toString('base64url')
}

function readCursor(cursor: string, formats: ImportedFormats): KeyPosition {
  if (typeof cursor !== 'string') fail('cursor', 'a string', cursor)
  try {
    const [time, id] = JSON.parse(Buffer.from(cursor, 'base64url').toString())
    const createdAt = new Date(time)
    const isMoment = Number.isInteger(time) && !Number.isNaN(createdAt.getTime())
    // A store may not even be able to ask for a place where no key can be.
    if (isMoment && typeof id === 'string' && mayBeId(id, formats)) return { createdAt, id }
  } catch {
    // One answer for everything that is not a cursor.
  }
  throw new LatchkeyError('invalid_cursor', '"cursor" must be the nextCursor of an earlier page')
}
