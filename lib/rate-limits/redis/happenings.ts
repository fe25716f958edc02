import type { Clock } from '../../core/clock.ts'
import type { LimiterEvent } from '../../core/limits/rate-limiter.ts'
import { checkFunction } from '../../internal/options.ts'

/** Tells listeners what happens to the limiter. */
export interface Happenings {
  tell(happening: LimiterEvent): void
  /** Reports a fault that a policy covered, at most once a second. */
  fault(error: unknown): void
  listen(listener: (happening: LimiterEvent) => void): () => void
}

const FAULT_EVERY_MS = 1_000

export function createHappenings(clock: Clock): Happenings {
  const listeners = new Set<(happening: LimiterEvent) => void>()
  let toldAt = -Infinity

  function tell(happening: LimiterEvent): void {
    for (const listener of listeners) listener(happening)
  }

  return {
    tell,
    fault(error) {
      if (clock.now() - toldAt < FAULT_EVERY_MS) return
      toldAt = clock.now()
      tell({ type: 'fault', error })
    },
    listen(listener) {
      checkFunction('listener', listener)
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
  }
}
