/** Runs a task as soon as there is room for it. */
export type Gate = <T>(task: () => Promise<T>) => Promise<T>

/**
 * Lets `running` tasks run at a time and `waiting` more wait for their turn; a task beyond those is
 * refused at once, so that a flood cannot pile up work.
 */
export function createGate(running: number, waiting: number): Gate {
  const queue: (() => void)[] = []
  let active = 0

  return async function enter<T>(task: () => Promise<T>): Promise<T> {
    if (active >= running) {
      if (queue.length >= waiting) throw new Error('too many bcrypt comparisons are waiting')
      await new Promise<void>((resolve) => queue.push(resolve))
    } else active++
    try {
      return await task()
    } finally {
      // The place is handed on as it is: a newcomer cannot slip in between.
      const next = queue.shift()
      if (next) next()
      else active--
    }
  }
}
