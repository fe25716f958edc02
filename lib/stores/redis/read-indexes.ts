import type { ListPage } from '../../core/keys/key-store.ts'
import { compareCodePoints } from '../../internal/code-points.ts'
import type { RedisCalls } from './calls.ts'
import type { Listing } from './indexes.ts'
import { READ_INDEXES } from './scripts.ts'

/** Where to begin and in which order, about how many entries are wanted, and how many to read of each index at most. */
export interface IndexRange {
  readonly from: string
  readonly order: ListPage['order']
  readonly size: number
  readonly each: number
}

/** Entries in the order of a listing, and where to go on; null at the end. */
export interface IndexPart {
  readonly entries: readonly Listing[]
  readonly next: string | null
}

/** Reads several indexes as if they were one. No entry of theirs is left out between `from` and the last that is answered. */
export async function readIndexes(
  calls: RedisCalls,
  keys: readonly string[],
  { from, order, size, each }: IndexRange,
): Promise<IndexPart> {
  const isNewest = order === 'newest'
  const compare = (a: Listing, b: Listing) => (isNewest ? compareEntries(b, a) : compareEntries(a, b))
  const inOrder = (entries: readonly Listing[]) => entries.toSorted(compare)
  const command = isNewest ? 'ZREVRANGEBYLEX' : 'ZRANGEBYLEX'
  const read = await readEach(calls, command, keys, from, isNewest ? '-' : '+', each)
  // What an index has after its last entry here is not known, so nothing after the first of these is answered.
  const lastRead = inOrder(read.flatMap((entries) => (entries.length < each ? [] : entries.slice(-1))))
  const [horizon] = lastRead
  const known = inOrder(read.flat()).filter((entry) => !horizon || compare(entry, horizon) <= 0)
  const entries = known.slice(0, size)
  const last = entries.at(-1)
  if (!last) return { entries, next: null }
  const next = horizon || known.length > size ? `(${last.member}` : null
  if (calls.byPlace(keys, asKey).length === 1) return { entries, next }
  // In a Cluster, a key may be added to one index after its end was read, and a later key to another before that is read: the
  // later one alone would move a cursor past the earlier. So what has ended is read once more, up to the last entry.
  const goesOn = new Set(lastRead.map(({ key }) => key))
  const ended = keys.filter((key) => !goesOn.has(key))
  const again = await readEach(calls, command, ended, from, `[${last.member}`, ALL)
  return { entries: inOrder([...entries.filter(({ key }) => goesOn.has(key)), ...again.flat()]), next }
}

const ALL = -1

/** Those of one place by one script, so that no key comes between them. */
async function readEach(
  calls: RedisCalls,
  command: 'ZRANGEBYLEX' | 'ZREVRANGEBYLEX',
  keys: readonly string[],
  from: string,
  to: string,
  limit: number,
): Promise<Listing[][]> {
  const read = await Promise.all(
    calls.byPlace(keys, asKey).map(async (place) => {
      const [found] = (await calls.run(READ_INDEXES, place, [from, to, limit, command])) as [string[][]]
      return place.map((key, i) => (found[i] ?? []).map((member) => ({ key, member })))
    }),
  )
  return read.flat()
}

function compareEntries(a: Listing, b: Listing): number {
  return compareCodePoints(a.member, b.member)
}

function asKey(key: string): string {
  return key
}
