export { LatchkeyInstrumentation, type LatchkeyInstrumentationOptions } from './latchkey-instrumentation.ts'
