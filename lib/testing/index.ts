export { keyRecord } from './key-records.ts'
export {
  type MadeStore,
  type StoreCapability,
  type StoreConformanceOptions,
  storeConformance,
} from './store-conformance.ts'
export type { TestAssert, TestFunction } from './store-test.ts'
