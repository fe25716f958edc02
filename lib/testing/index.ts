export type { StoreCapability } from './capability-cases.ts'
export { keyRecord } from './key-records.ts'
export {
  type MadeStore,
  type MakeStore,
  type StoreConformanceOptions,
  storeConformance,
} from './store-conformance.ts'
export type { TestAssert, TestFunction } from './store-test.ts'
