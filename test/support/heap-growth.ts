import { setImmediate } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

/** How many megabytes more are held after some work than before it. */
export async function heapGrowth(work: () => unknown): Promise<number> {
  const before = await heldBytes()
  await work()
  return ((await heldBytes()) - before) / 1e6
}

/** Collects what nobody holds, and lets those know who wait to hear of it. */
export async function collectGarbage(): Promise<void> {
  for (let i = 0; i < 4; i++) {
    collect()
    await setImmediate()
  }
}

async function heldBytes(): Promise<number> {
  await collectGarbage()
  return process.memoryUsage().heapUsed
}
