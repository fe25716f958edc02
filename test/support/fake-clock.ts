import { setImmediate } from 'node:timers/promises'

export { type FakeClock, fakeClock } from 'latchkey/testing'

/** Resolves once every promise that can go on without a timer or I/O has done so. */
export async function settle(): Promise<void> {
  await setImmediate()
}
