export type { StoreCapability } from './capability-cases.ts'
export { type FakeClock, fakeClock } from './fake-clock.ts'
export { keyRecord } from './key-records.ts'
export {
  type MadeStore,
  type MakeStore,
  type StoreConformanceOptions,
  storeConformance,
} from './store-conformance.ts'
export type { TestAssert, TestFunction } from './store-test.ts'
