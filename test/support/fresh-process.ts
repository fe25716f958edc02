import { beforeEach } from 'vitest'
import { forgetWarnings } from '../../lib/internal/process-warning.ts'

// A warning is given once in the life of a process, which is that of many tests.
beforeEach(forgetWarnings)

// Guards look wherever a middleware of the process reads keys: one of another file must not count.
const readers = Reflect.get(globalThis, Symbol.for('latchkey.readers')) as
  | { byForm: Map<string, unknown> }
  | undefined
readers?.byForm.clear()
