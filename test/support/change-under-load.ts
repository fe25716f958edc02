import type { Course, Load } from './redis-worker.ts'
import type { RedisWorker } from './redis-workers.ts'

export interface ChangeUnderLoad {
  /** Verifications in all. */
  verified: number
  /** Admissions by verifications that began before the change had resolved. */
  admitted: number
  /** Admissions by those that began after: there must be none. */
  admittedLate: number
  /** Refusals by those that began after, of the worker with the fewest. */
  fewestRefusedLate: number
  /** The codes and reasons of all refusals. */
  outcomes: string[]
}

/**
 * Has all workers verify keys until they have them in memory, makes a change meanwhile, and tells what was admitted once
 * that had resolved: `makeChange` answers the moment at which it had.
 */
export async function changeUnderLoad(
  workers: readonly RedisWorker[],
  { given, calls, inFlight }: Load,
  makeChange: () => Promise<bigint>,
): Promise<ChangeUnderLoad> {
  await Promise.all(workers.map((worker) => worker.run('begin', { given, inFlight, calls })))
  const resolvedAt = await makeChange()
  const courses = await Promise.all(workers.map((worker) => worker.run('end', { calls })))
  const admitted = courses.flatMap((course) => course.admitted)
  const refused = courses.map(refusalsOf)
  const isLate = (startedAt: bigint) => startedAt > resolvedAt
  const admittedLate = admitted.filter(isLate).length
  return {
    verified: admitted.length + refused.flat().length,
    admitted: admitted.length - admittedLate,
    admittedLate,
    fewestRefusedLate: Math.min(...refused.map((starts) => starts.filter(isLate).length)),
    outcomes: [...new Set(courses.flatMap((course) => Object.keys(course.refused)))].sort(),
  }
}

function refusalsOf({ refused }: Course): bigint[] {
  return Object.values(refused).flat()
}
