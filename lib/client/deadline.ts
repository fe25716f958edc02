import { ApiKeysClientError } from './client-error.ts'

/** The deadline of a call, including its retries and the pauses between them. */
export interface Deadline {
  /** Aborts the request in progress. */
  readonly signal: AbortSignal
  /** Milliseconds left. */
  leftMs(): number
  /** Settles as `work` does, but rejects when the time is up or the caller has cancelled. */
  race<T>(work: Promise<T>): Promise<T>
  /** Resolves after so many milliseconds; rejects as `race` does. */
  pause(ms: number): Promise<void>
  /** Stops the timers. */
  end(): void
}

/** @throws the reason of `outer`, if that is already aborted. */
export function startDeadline(timeoutMs: number, outer: AbortSignal | undefined): Deadline {
  outer?.throwIfAborted()
  const controller = new AbortController()
  const endsAt = performance.now() + timeoutMs
  const expire = () =>
    controller.abort(
      new ApiKeysClientError('unavailable', {
        message: `the service did not respond within ${timeoutMs} ms`,
      }),
    )
  const giveUp = () => controller.abort(outer?.reason)
  const timer = setTimeout(expire, timeoutMs)
  let pauseTimer: ReturnType<typeof setTimeout> | undefined
  outer?.addEventListener('abort', giveUp)
  const aborted = new Promise<never>((_resolve, reject) => {
    controller.signal.addEventListener('abort', () => reject(controller.signal.reason), { once: true })
  })
  // `race` handles its rejection. Without a race, nothing else would.
  aborted.catch(() => {})

  function race<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, aborted])
  }

  return {
    signal: controller.signal,
    leftMs: () => endsAt - performance.now(),
    race,
    pause(ms) {
      const work = new Promise<void>((resolve) => {
        pauseTimer = setTimeout(resolve, ms)
      })
      return race(work)
    },
    end() {
      // A program that has nothing left to do ends.
      clearTimeout(pauseTimer)
      clearTimeout(timer)
      outer?.removeEventListener('abort', giveUp)
    },
  }
}
