export type { StoreCapability } from './capability-cases.ts'
export { type FakeClock, fakeClock } from './fake-clock.ts'
export { keyRecord } from './key-records.ts'
export type { LimiterCapability } from './limiters/core-cases.ts'
export {
  type LimiterConformanceOptions,
  limiterConformance,
  type MakeLimiter,
} from './limiters/limiter-conformance.ts'
export type { LimiterClock, MadeLimiter } from './limiters/limiter-test.ts'
export {
  type MadeStore,
  type MakeStore,
  type StoreConformanceOptions,
  storeConformance,
} from './store-conformance.ts'
export type { TestAssert, TestFunction } from './test-runner.ts'
