import { LatchkeyError } from '../../errors.ts'
import {
  checkArray,
  checkDate,
  checkInteger,
  checkObject,
  checkOneOf,
  checkShownText,
  fail,
} from '../../internal/options.ts'
import type { Clock } from '../clock.ts'
import { BOUNDS } from '../keys/bounds.ts'
import type { ImportedFormats } from '../keys/imported-format.ts'
import { mayBeId } from '../keys/key-id.ts'
import type { KeyFilter, KeyPosition, KeyStore, ListPage } from '../keys/key-store.ts'
import { type ApiKey, checkOwner, KEY_STATUSES, type KeyRecord, type Owner } from '../keys/record.ts'
import type { ApiKeyPage, KeySelection, ListOptions } from './key-management.ts'

export interface ListingParts {
  readonly store: KeyStore
  readonly formats: ImportedFormats
  readonly clock: Clock
  view(record: KeyRecord, at: Date): ApiKey
}

/** How many owners one listing may name. */
export const MAX_LISTED_OWNERS = 100

/** What `list` and `count` both take. */
export const SELECTION = ['owner', 'owners', 'createdBy', 'name', 'status', 'expiresBefore'] as const

/** Shows keys page by page. */
export function createKeyListing(parts: ListingParts): (options?: ListOptions) => Promise<ApiKeyPage> {
  const { store, formats, clock, view } = parts

  return async function list(options = {}) {
    checkObject('options', options, [...SELECTION, 'order', 'limit', 'cursor'])
    const limit = options.limit === undefined ? 50 : checkInteger('limit', options.limit, 1, 1_000)
    const order = checkOrder(options)
    const after = options.cursor === undefined ? {} : { after: readCursor(options.cursor, order, formats) }
    const at = new Date(clock.now())
    const filter = checkSelection(options, at)
    // No owner, no keys: the store need not be asked.
    if (filter.owners?.length === 0) return { apiKeys: [] }
    const found = await store.list(filter, { limit: limit + 1, ...after, ...(order && { order }) })
    const shown = found.slice(0, limit)
    const last = found.length > limit ? shown.at(-1) : undefined
    return {
      apiKeys: shown.map((record) => view(record, at)),
      ...(last && { nextCursor: writeCursor(last, order) }),
    }
  }
}

function checkOrder({ order }: ListOptions): ListPage['order'] {
  if (order === undefined) return undefined
  return checkOneOf('order', order, ['oldest', 'newest']) === 'newest' ? 'newest' : undefined
}

/** The owners to list, each once; null where all are. */
function checkOwners({ owner, owners }: KeySelection): readonly Owner[] | null {
  if (owners === undefined) return owner === undefined ? null : [checkOwner('owner', owner)]
  if (owner !== undefined) throw new TypeError('"owners" cannot be given together with "owner"')
  const checked = checkArray('owners', owners, MAX_LISTED_OWNERS).map((one, i) =>
    checkOwner(`owners[${i}]`, one),
  )
  return [...new Map(checked.map((one) => [`${one.type.length} ${one.type} ${one.id}`, one])).values()]
}

/** Which keys are asked for at a moment. @throws TypeError */
export function checkSelection(selection: KeySelection, at: Date): KeyFilter {
  const { createdBy, name, status, expiresBefore } = selection
  const owners = checkOwners(selection)
  if (status !== undefined) checkOneOf('status', status, KEY_STATUSES)
  return {
    ...(owners && { owners }),
    ...(createdBy !== undefined && {
      createdBy: checkShownText('createdBy', createdBy, BOUNDS.createdBy.max),
    }),
    ...(name !== undefined && { name: checkShownText('name', name, BOUNDS.name.max) }),
    ...(status !== undefined && { status: { is: status, at: new Date(at) } }),
    ...(expiresBefore !== undefined && {
      expiresBefore: new Date(checkDate('expiresBefore', expiresBefore)),
    }),
  }
}

/** A cursor belongs to its order: it names one that is not the default. */
function writeCursor({ createdAt, id }: KeyPosition, order: ListPage['order']): string {
  const place = [createdAt.getTime(), id, ...(order ? [order] : [])]
  return Buffer.from(JSON.stringify(place)).toString('base64url')
}

function readCursor(cursor: string, asked: ListPage['order'], formats: ImportedFormats): KeyPosition {
  if (typeof cursor !== 'string') fail('cursor', 'a string', cursor)
  try {
    const [time, id, order] = JSON.parse(Buffer.from(cursor, 'base64url').toString())
    const createdAt = new Date(time)
    const isMoment = Number.isInteger(time) && !Number.isNaN(createdAt.getTime())
    // A store may not even be able to ask for a place where no key can be.
    if (order === asked && isMoment && typeof id === 'string' && mayBeId(id, formats))
      return { createdAt, id }
  } catch {
    // One answer for everything that is not a cursor.
  }
  throw new LatchkeyError(
    'invalid_cursor',
    '"cursor" must be the nextCursor of an earlier page in the same order',
  )
}
