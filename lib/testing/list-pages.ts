import type { KeyFilter, KeyPosition, ListPage } from '../core/keys/key-store.ts'
import type { KeyRecord } from '../core/keys/record.ts'
import type { StoreTest } from './store-test.ts'

/** All pages, with something done between one and the next. */
export async function pages(
  { list, holds }: StoreTest,
  limit: number,
  between?: (page: number) => Promise<unknown>,
  filter: KeyFilter = {},
  order?: ListPage['order'],
): Promise<string[][]> {
  const seen: string[][] = []
  let after: KeyPosition | undefined
  for (;;) {
    const records = await list(filter, limit, after, order)
    holds(records.length <= limit, 'list returns at most "limit" records')
    const last = records.at(-1)
    if (!last) return seen
    seen.push(idsOf(records))
    holds(seen.length < 1_000, 'list comes to an end: the page after the last record is empty')
    after = { createdAt: last.createdAt, id: last.id }
    await between?.(seen.length)
  }
}

export function idsOf(records: readonly KeyRecord[]): string[] {
  return records.map(({ id }) => id)
}
