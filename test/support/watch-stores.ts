import { type FakeClock, settle } from './fake-clock.ts'

export interface WatchedStores {
  /** The same store, or another part that does I/O, with every call of a method known here while it is under way. */
  watch<T extends object>(inner: T): T
  /**
   * Lets the time go by in steps, each of which waits for all that it has set off: time stands still while a real store is
   * asked, so that no call is given up.
   */
  pass(clock: FakeClock, ms: number): Promise<void>
}

const STEP_MS = 200

/** Real stores under a fake clock. */
export function watchStores(): WatchedStores {
  const underWay = new Set<Promise<unknown>>()

  async function settled(): Promise<void> {
    await settle()
    while (underWay.size > 0) {
      await Promise.allSettled(underWay)
      await settle()
    }
  }

  return {
    watch<T extends object>(inner: T): T {
      const methods = Object.entries(inner).filter(([, member]) => typeof member === 'function')
      const watched = methods.map(([name, method]) => [
        name,
        (...args: unknown[]) => {
          const work: unknown = method.apply(inner, args)
          if (work instanceof Promise) {
            const ended = () => void underWay.delete(work)
            underWay.add(work)
            work.then(ended, ended)
          }
          return work
        },
      ])
      return { ...inner, ...Object.fromEntries(watched) }
    },
    async pass(clock, ms) {
      for (let left = ms; left > 0; left -= STEP_MS) {
        await clock.advance(Math.min(left, STEP_MS))
        await settled()
      }
    },
  }
}
