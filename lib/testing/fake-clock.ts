import { setImmediate } from 'node:timers/promises'
import type { Clock } from '../core/clock.ts'

/** A {@link Clock} that stands still until a test moves it. */
export interface FakeClock extends Clock {
  /**
   * Moves the time forward by `ms` milliseconds. Due timers run in order, each at its own time. Everything that a timer starts
   * settles before the next one runs, except I/O.
   */
  advance(ms: number): Promise<void>
  /** Sets the time, in milliseconds since 1970, without running a timer: like a clock that is corrected. */
  set(now: number): void
  /** How many timers are pending. */
  readonly waiting: number
}

interface Timer {
  readonly dueAt: number
  readonly run: () => void
}

/**
 * A clock for tests. Give the same one to `createApiKeys` and to `memoryRateLimiter`: keys, limits and caches then share one
 * time, which moves only when the test says so.
 *
 * @param startAt milliseconds since 1970; by default 2026-01-15T12:00:00Z
 * @example
 * const clock = fakeClock()
 * const keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter({ clock }), prefix: 'test', clock })
 * await clock.advance(60_000)
 */
export function fakeClock(startAt = Date.UTC(2026, 0, 15, 12)): FakeClock {
  let now = startAt
  const timers = new Set<Timer>()

  function nextDue(until: number): Timer | undefined {
    // The sort is stable: of timers that are due together, the one set first runs first.
    return [...timers].filter(({ dueAt }) => dueAt <= until).sort((a, b) => a.dueAt - b.dueAt)[0]
  }

  return {
    now: () => now,
    setTimer(run, delayMs) {
      const timer = { run, dueAt: now + delayMs }
      timers.add(timer)
      return () => void timers.delete(timer)
    },
    async advance(ms) {
      const until = now + ms
      await settle()
      for (let timer = nextDue(until); timer; timer = nextDue(until)) {
        timers.delete(timer)
        now = Math.max(now, timer.dueAt)
        timer.run()
        await settle()
      }
      now = until
      await settle()
    },
    set(to) {
      now = to
    },
    get waiting() {
      return timers.size
    },
  }
}

/** Resolves once every promise that can go on without a timer or I/O has done so. */
async function settle(): Promise<void> {
  await setImmediate()
}
