/** Tells the time, and is the only way this package waits. Tests pass a clock that they move by hand. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number
  /**
   * Runs `run` once, `delayMs` milliseconds from now, and returns a function that cancels it.
   * A `background` timer does not keep the process alive.
   */
  setTimer(run: () => void, delayMs: number, options?: { background?: boolean }): () => void
}

/** The machine's clock. */
export const systemClock: Clock = Object.freeze({
  now: () => Date.now(),
  setTimer(run: () => void, delayMs: number, options: { background?: boolean } = {}) {
    const timer = setTimeout(run, delayMs)
    if (options.background) timer.unref()
    return () => clearTimeout(timer)
  },
})

/** Milliseconds since the process began: no correction of the machine's clock moves it. */
export const monotonicClock: Clock = Object.freeze({ ...systemClock, now: () => performance.now() })

/** Resolves once `delayMs` milliseconds have passed on `clock`. It keeps the process alive. */
export function sleep(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => {
    clock.setTimer(resolve, delayMs)
  })
}

/** What a deadline rejects with. */
export class DeadlinePassed extends Error {
  constructor(timeoutMs: number) {
    super(`no answer within ${timeoutMs} ms`)
  }
}

/** A promise that rejects once `timeoutMs` milliseconds have passed on `clock`, unless it is cancelled before. */
export function startDeadline(
  clock: Clock,
  timeoutMs: number,
): { readonly passed: Promise<never>; cancel(): void } {
  let cancel = () => {}
  const passed = new Promise<never>((_resolve, reject) => {
    const expire = () => reject(new DeadlinePassed(timeoutMs))
    // What still has a connection keeps the process alive; a deadline by itself must not.
    cancel = clock.setTimer(expire, timeoutMs, { background: true })
  })
  return { passed, cancel }
}

/** The result of `work`. @throws what it throws, and an Error if it takes longer than `timeoutMs`. */
export async function inTime<T>(clock: Clock, timeoutMs: number, work: () => T | PromiseLike<T>): Promise<T> {
  const { passed, cancel } = startDeadline(clock, timeoutMs)
  try {
    // A late rejection of the loser is taken by the race and is nobody's unhandled one.
    return await Promise.race([passed, (async () => work())()])
  } finally {
    cancel()
  }
}

/** Whether `work` resolves to true within `timeoutMs`. Throws what it rejects with. */
export async function isDoneInTime(
  clock: Clock,
  timeoutMs: number,
  work: Promise<boolean>,
): Promise<boolean> {
  let cancel = () => {}
  const late = new Promise<boolean>((resolve) => {
    cancel = clock.setTimer(() => resolve(false), timeoutMs)
  })
  try {
    return await Promise.race([late, work])
  } finally {
    cancel()
  }
}
