import { isPromiseLike } from '../internal/awaitable.ts'
import { tellCondition } from './diagnostics/channels.ts'
import type { ApiKeyEvent, ApiKeyListener } from './events.ts'
import { warnOfFailure } from './warn-of-failure.ts'

/** Calls the listener and ignores whatever it throws. Without one, failures become process warnings. */
export function createEmitter(listener: ApiKeyListener = warnOfFailure): (event: ApiKeyEvent) => void {
  return (event) => {
    tellCondition(event)
    try {
      const result = listener(event)
      if (isPromiseLike(result)) result.then(undefined, () => {})
    } catch {
      // A listener's failure is its own.
    }
  }
}
