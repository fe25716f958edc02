import { setTimeout } from 'node:timers/promises'
import { onTestFinished } from 'vitest'

/** Watches, until the test ends, for what would end a process: answers what has come up, a moment after it was asked. */
export function watchUnhandled(): () => Promise<unknown[]> {
  const seen: unknown[] = []
  const note = (error: unknown) => void seen.push(error)
  // The runner's own listeners would report these as errors outside any test.
  const others = (['unhandledRejection', 'uncaughtException'] as const).map((event) => {
    const listeners = process.listeners(event as 'uncaughtException')
    process.removeAllListeners(event)
    process.on(event, note)
    return { event, listeners }
  })
  onTestFinished(() => {
    for (const { event, listeners } of others) {
      process.off(event, note)
      for (const listener of listeners) process.on(event, listener)
    }
  })
  return async () => {
    await setTimeout(5)
    return seen
  }
}
