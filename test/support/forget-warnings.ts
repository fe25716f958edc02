import { beforeEach } from 'vitest'
import { forgetWarnings } from '../../lib/internal/process-warning.ts'

// A warning is given once in the life of a process, which is that of many tests.
beforeEach(forgetWarnings)
