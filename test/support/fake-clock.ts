import { setImmediate } from 'node:timers/promises'
import type { Clock } from 'latchkey'

export interface FakeClock extends Clock {
  /**
   * Moves the time on by `ms`. Timers that fall due run in the order of their time, each at its own time and with
   * everything settled that it set off.
   */
  advance(ms: number): Promise<void>
  /** Sets the time without running any timer, as a clock that somebody corrects. */
  set(now: number): void
  /** How many timers are waiting. */
  readonly waiting: number
}

interface Timer {
  readonly dueAt: number
  readonly run: () => void
}

/** A clock that stands still until a test moves it. */
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
export async function settle(): Promise<void> {
  await setImmediate()
}
