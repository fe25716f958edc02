import type { ListPage } from '../../core/keys/key-store.ts'
import { compareCodePoints } from '../../internal/code-points.ts'
import type { RedisCalls } from './calls.ts'
import type { Listing } from './indexes.ts'
import { READ_INDEXES } from './scripts.ts'

export interface IndexRange {
  readonly from: string
  readonly order: ListPage['order']
  /** About how many entries to return. */
  readonly size: number
  /** How many entries to read from each index at most. */
  readonly each: number
}

/** Entries in the order of a listing, and where the next range begins; null at the end. */
export interface IndexPart {
  readonly entries: readonly Listing[]
  readonly next: string | null
}

/** Reads several indexes as if they were one. It leaves out no entry between `from` and the last entry it returns. */
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
  // Of an index that was not read to its end, the entries after the last one read are unknown. So stop at the first such last entry.
  const lastRead = inOrder(read.flatMap((entries) => (entries.length < each ? [] : entries.slice(-1))))
  const [horizon] = lastRead
  const known = inOrder(read.flat()).filter((entry) => !horizon || compare(entry, horizon) <= 0)
  const entries = known.slice(0, size)
  const last = entries.at(-1)
  if (!last) return { entries, next: null }
  const next = horizon || known.length > size ? `(${last.member}` : null
  if (calls.byPlace(keys, asKey).length === 1) return { entries, next }
  // A Cluster reads indexes at different times. A key may be added to one index after it was read, and then a later key to another
  // index before that is read. The later key alone would move a cursor past the earlier one. So read the finished indexes once more.
  const goesOn = new Set(lastRead.map(({ key }) => key))
  const ended = keys.filter((key) => !goesOn.has(key))
  const again = await readEach(calls, command, ended, from, `[${last.member}`, ALL)
  return { entries: inOrder([...entries.filter(({ key }) => goesOn.has(key)), ...again.flat()]), next }
}

const ALL = -1

/** Reads the indexes of one place in one script, so that no key is added in between. */
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
