import type { PassportRequest } from './strategy-base.ts'

/**
 * Ends a request that had to wait. The framework that called the strategy cannot catch what the application's callback
 * throws here: it must neither run again nor end the process.
 */
export function answerLate(req: PassportRequest, end: () => void): void {
  try {
    end()
  } catch (thrown) {
    if (typeof req.next !== 'function') throw thrown
    req.next(thrown)
  }
}
