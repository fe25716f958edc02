import type { KeyStore } from '../core/keys/key-store.ts'
import { checkArray, checkFunction, checkMethods, checkObject, describePlain } from '../internal/options.ts'
import { AGREEMENT_CASES } from './agreement-cases.ts'
import { CAPABILITY_CASES, type StoreCapability } from './capability-cases.ts'
import { DIGEST_CASES } from './digest-cases.ts'
import { FIND_CASES } from './find-cases.ts'
import { FORGET_CASES, FORGET_USAGE_CASES } from './forget-cases.ts'
import { INSERT_CASES } from './insert-cases.ts'
import { LIFECYCLE_CASES, LIFECYCLE_QUOTA_CASES, LIFECYCLE_USAGE_CASES } from './lifecycle-cases.ts'
import { LIST_FILTER_CASES } from './list-filter-cases.ts'
import { LIST_ORDER_CASES } from './list-order-cases.ts'
import { LIST_OWNER_CASES } from './list-owner-cases.ts'
import { PURGE_CASES } from './purge-cases.ts'
import { QUOTA_CASES } from './quota-cases.ts'
import { createStoreTest, type StoreCases } from './store-test.ts'
import type { TestAssert, TestFunction } from './test-runner.ts'
import { UPDATE_CASES } from './update-cases.ts'
import { USAGE_CASES } from './usage-cases.ts'
import { LIFECYCLE_COUNT_CASES, USAGE_COUNT_CASES } from './usage-count-cases.ts'
import { VALUE_CASES } from './value-cases.ts'

export interface StoreConformanceOptions {
  /** Registers a test: `test` of node:test, vitest or Jest, `it` of Mocha. */
  test: TestFunction
  /** `node:assert/strict`, or `node:assert`. */
  assert: TestAssert
  /**
   * The optional methods that the store deliberately does not have; `addUsage` stands for `readUsage` and `removeUsage` too. The kit skips their cases. Instead, one test for each checks that
   * `createApiKeys` refuses what needs the method (without `agree`, it verifies keys unchecked). A store that lacks any other method
   * fails.
   *
   * @default []
   */
  without?: readonly StoreCapability[]
}

/** An empty store, and how to remove it after the test. */
export interface MadeStore {
  readonly store: KeyStore
  /** The kit calls it after the test, even if the test failed. */
  close(): unknown
}

/** Makes an empty store for one test. */
export type MakeStore = () => KeyStore | MadeStore | Promise<KeyStore | MadeStore>

/**
 * Registers the tests that every `KeyStore` must pass. An adapter that passes them keeps keys as safely as the stores of this
 * package. The tests work with any test runner.
 *
 * `makeStore` makes an empty store for each test. To clean up after a test, return `{ store, close }`. No test sleeps, and none needs
 * a fast store. Some tests make 50 calls at once: if calls share connections, they must be able to wait for one.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * import assert from 'node:assert/strict'
 * import { test } from 'node:test'
 * import { storeConformance } from 'latchkey/testing'
 * import { myStore } from './my-store.js'
 *
 * storeConformance({ test, assert }, () => myStore())
 */
export function storeConformance(options: StoreConformanceOptions, makeStore: MakeStore): void {
  checkObject('options', options, ['test', 'assert', 'without'])
  const { test, assert, without = [] } = options
  checkFunction('test', test)
  checkMethods('assert', assert, ['ok', 'strictEqual', 'deepStrictEqual'])
  checkFunction('makeStore', makeStore)
  checkWithout(without)
  for (const [subject, cases] of Object.entries(casesFor(without))) {
    for (const [name, run] of Object.entries(cases)) {
      test(`${subject}: ${name}`, async () => {
        const { store, close } = await toMadeStore(makeStore)
        try {
          checkCapabilities(store, assert, without)
          await run(createStoreTest(store, assert))
        } finally {
          await close()
        }
      })
    }
  }
}

function casesFor(without: readonly StoreCapability[]): Record<string, StoreCases> {
  const hasForget = !without.includes('forget')
  const hasUsage = !without.includes('recordUsage')
  const hasQuota = !without.includes('swapQuota')
  return {
    insert: INSERT_CASES,
    find: FIND_CASES,
    'stored values': VALUE_CASES,
    update: UPDATE_CASES,
    replaceDigest: DIGEST_CASES,
    list: { ...LIST_ORDER_CASES, ...LIST_OWNER_CASES, ...LIST_FILTER_CASES },
    purge: PURGE_CASES,
    'under createApiKeys': LIFECYCLE_CASES,
    ...(hasForget
      ? { forget: { ...FORGET_CASES, ...(hasUsage && FORGET_USAGE_CASES) } }
      : { 'without forget': CAPABILITY_CASES.forget }),
    ...(hasUsage
      ? { recordUsage: USAGE_CASES, 'under createApiKeys, with usage': LIFECYCLE_USAGE_CASES }
      : { 'without recordUsage': CAPABILITY_CASES.recordUsage }),
    ...(hasQuota
      ? { swapQuota: QUOTA_CASES, 'under createApiKeys, with a quota': LIFECYCLE_QUOTA_CASES }
      : { 'without swapQuota': CAPABILITY_CASES.swapQuota }),
    ...(without.includes('addUsage')
      ? { 'without addUsage': CAPABILITY_CASES.addUsage }
      : { addUsage: USAGE_COUNT_CASES, 'under createApiKeys, with counts of use': LIFECYCLE_COUNT_CASES }),
    ...(without.includes('agree') ? { 'without agree': CAPABILITY_CASES.agree } : { agree: AGREEMENT_CASES }),
  }
}

/** A store may have a member named `store` too. Only a `MadeStore` has no `insert`. */
async function toMadeStore(makeStore: MakeStore): Promise<MadeStore> {
  const made = await makeStore()
  return 'insert' in made ? { store: made, close() {} } : made
}

const REQUIRED = ['insert', 'find', 'update', 'replaceDigest', 'list', 'purge'] as const
const CAPABILITIES: readonly StoreCapability[] = ['forget', 'recordUsage', 'swapQuota', 'addUsage', 'agree']

function checkCapabilities(store: KeyStore, assert: TestAssert, without: readonly StoreCapability[]): void {
  for (const method of REQUIRED) {
    assert.strictEqual(typeof store[method], 'function', `a store must have the method "${method}"`)
  }
  for (const method of CAPABILITIES) {
    if (without.includes(method)) {
      assert.strictEqual(store[method], undefined, `the store has "${method}": take it out of "without"`)
    } else {
      const advice = `the store has no "${method}". If that is deliberate, name it: without: ['${method}']`
      assert.strictEqual(typeof store[method], 'function', advice)
    }
  }
}

function checkWithout(without: unknown): void {
  for (const method of checkArray('without', without, CAPABILITIES.length)) {
    if (CAPABILITIES.includes(method as StoreCapability)) continue
    throw new TypeError(
      `"without" may name "forget", "recordUsage", "swapQuota", "addUsage" and "agree", received ${describePlain(method)}. ` +
        'No store needs "count" and "swapQuotas", and every store needs the other methods',
    )
  }
}
