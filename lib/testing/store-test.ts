import type { KeyFilter, KeyPosition, KeyStore, ListPage } from '../core/keys/key-store.ts'
import { checkRecord, type KeyRecord } from '../core/keys/record.ts'
import { type ErrorCode, isLatchkeyError } from '../errors.ts'
import { copyData } from '../internal/plain-data.ts'
import type { TestAssert } from './test-runner.ts'

/** What a store must do, by name. */
export type StoreCases = Readonly<Record<string, (test: StoreTest) => Promise<void>>>

/** An empty store and helpers for the cases. `promise` is the message of a failure. */
export interface StoreTest {
  /** Has the optional methods too: the kit skips the cases for missing ones. No store needs `count` and `swapQuotas`. */
  readonly store: Required<Omit<KeyStore, 'count' | 'swapQuotas'>> & Pick<KeyStore, 'count' | 'swapQuotas'>
  holds(condition: boolean, promise: string): void
  /** `actual` is `expected`, deeply. */
  same(actual: unknown, expected: unknown, promise: string): void
  /** `actual` has these members, whatever else it has. */
  has<T extends object>(actual: T | null | undefined, members: Partial<T>, promise: string): void
  rejects(work: () => Promise<unknown>, promise: string, code?: ErrorCode): Promise<void>
  /** The stored record with this id. */
  find(id: string): Promise<KeyRecord | null>
  /** The stored record with this id, which must exist. */
  read(id: string): Promise<KeyRecord>
  list(
    filter?: KeyFilter,
    limit?: number,
    after?: KeyPosition,
    order?: ListPage['order'],
  ): Promise<KeyRecord[]>
  ids(filter?: KeyFilter): Promise<string[]>
}

export function createStoreTest(store: KeyStore, assert: TestAssert): StoreTest {
  /** Ignores the classes of the members: a store that clones may return those of another realm. */
  function same(actual: unknown, expected: unknown, promise: string): void {
    assert.deepStrictEqual(copyData(actual), copyData(expected), promise)
  }

  const test: StoreTest = {
    store: store as StoreTest['store'],

    holds: (condition, promise) => assert.ok(condition, promise),

    same,

    has(actual, members, promise) {
      const names = Object.keys(members) as (keyof typeof members)[]
      const found = actual && Object.fromEntries(names.map((name) => [name, actual[name]]))
      same(found, members, promise)
    },

    async rejects(work, promise, code) {
      const [outcome] = await Promise.allSettled([(async () => work())()])
      assert.strictEqual(outcome.status, 'rejected', promise)
      if (code === undefined || outcome.status !== 'rejected') return
      const reason: unknown = outcome.reason
      const isRight = isLatchkeyError(reason) && reason.code === code
      assert.ok(
        isRight,
        `${promise}, with a LatchkeyError with the code "${code}"; it rejected with: ${reason}`,
      )
    },

    // Like the core, ignores other members and refuses malformed records.
    async find(id) {
      const found = await store.find({ id })
      return found === null ? null : checkRecord(found)
    },

    async read(id) {
      const record = await test.find(id)
      assert.ok(record, `find returns an inserted record; it returned none for the id ${quote(id)}`)
      return record as KeyRecord
    },

    async list(filter = {}, limit = 1_000, after, order) {
      const found = await store.list(filter, { limit, ...(after && { after }), ...(order && { order }) })
      return found.map(checkRecord)
    },

    async ids(filter) {
      return (await test.list(filter)).map(({ id }) => id)
    },
  }
  return test
}

/** Makes `count` concurrent calls of `run`; rejects if any of them does. */
export function atOnce<T>(count: number, run: (i: number) => Promise<T>): Promise<T[]> {
  return Promise.all(Array.from({ length: count }, (_, i) => run(i)))
}

/** The text with its invisible characters spelled out. */
export function quote(text: string): string {
  return JSON.stringify(text).replace(/[^ -~]/gu, (char) => `\\u{${char.codePointAt(0)?.toString(16)}}`)
}
