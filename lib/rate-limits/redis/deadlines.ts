import type { Clock } from '../../core/clock.ts'
import type { Call } from './call.ts'

export interface Deadlines {
  start(call: Call): void
  end(call: Call): void
}

/**
 * Deadlines of one length, all on one timer: they fall due in the order in which they began.
 *
 * If this process was busy for longer than the deadline, the timer and the reply are both waiting. The replies are read first, so
 * that a pause of this process does not look like one of the server.
 */
export function createDeadlines(
  timeoutMs: number,
  clock: Clock,
  fail: (call: Call, error: unknown) => void,
): Deadlines {
  let first: Call | null = null
  let last: Call | null = null
  let isArmed = false

  function arm(delayMs: number): void {
    isArmed = true
    const expireSoon = () => setImmediate(expire, clock.now())
    clock.setTimer(expireSoon, Math.max(1, Math.ceil(delayMs)), { background: true })
  }

  /** Fails the calls that were due when the timer ran. Later ones may still have a reply waiting. */
  function expire(now: number): void {
    isArmed = false
    while (first && first.dueAt <= now) {
      fail(first, new Error(`Redis did not answer within ${timeoutMs} milliseconds`))
    }
    if (first) arm(first.dueAt - clock.now())
  }

  return {
    start(call) {
      call.sentAt = clock.now()
      call.dueAt = call.sentAt + timeoutMs
      call.earlier = last
      if (last) last.later = call
      else first = call
      last = call
      if (!isArmed) arm(timeoutMs)
    },

    end(call) {
      call.isSettled = true
      if (call.earlier) call.earlier.later = call.later
      else first = call.later
      if (call.later) call.later.earlier = call.earlier
      else last = call.earlier
    },
  }
}
