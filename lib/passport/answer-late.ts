import type { PassportRequest } from './strategy-base.ts'

/**
 * Runs what ends a request that had to wait. An application's callback that throws here is out of reach of the
 * framework that called the strategy: it must neither be called again nor end the process.
 */
export function answerLate(req: PassportRequest, end: () => void): void {
  try {
    end()
  } catch (thrown) {
    if (typeof req.next !== 'function') throw thrown
    req.next(thrown)
  }
}
