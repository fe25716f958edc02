import type { KeyFilter, KeyPosition, KeyStore } from '../../core/keys/key-store.ts'
import type { KeyRecord } from '../../core/keys/record.ts'

const PAGE = 1_000

/** All keys in order of creation. What is created meanwhile comes at the end. */
export async function* pagesOf(store: KeyStore, filter: KeyFilter): AsyncGenerator<readonly KeyRecord[]> {
  let after: KeyPosition | undefined
  for (;;) {
    const page: KeyRecord[] = await store.list(filter, { limit: PAGE, ...(after && { after }) })
    if (page.length > 0) yield page
    if (page.length < PAGE) return
    after = page.at(-1)
  }
}
