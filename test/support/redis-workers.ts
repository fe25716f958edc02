import type { Tally, WorkerSettings, WorkerTasks } from './redis-worker.ts'
import { startTaskProcess, type TaskProcess } from './task-process.ts'

/** A process of its own with API keys that it shares with others. */
export type RedisWorker = TaskProcess<WorkerTasks>

export interface RedisWorkers {
  readonly workers: readonly [RedisWorker, ...RedisWorker[]]
  stop(): Promise<void>
}

/** Starts so many processes, all with the same settings, and resolves once each of them has answered. */
export async function startRedisWorkers(count: number, settings: WorkerSettings): Promise<RedisWorkers> {
  const start = () => startTaskProcess<WorkerTasks>('redis-worker.ts', settings)
  const workers: [RedisWorker, ...RedisWorker[]] = [start()]
  while (workers.length < count) workers.push(start())
  await Promise.all(workers.map((worker) => worker.run('get', 'nobody')))
  return {
    workers,
    stop: async () => void (await Promise.all(workers.map((worker) => worker.kill()))),
  }
}

/** How the verifications of all of them have ended. */
export function sumOf(tallies: readonly Tally[]): Tally {
  const sum: Tally = { admitted: 0, refused: {} }
  for (const { admitted, refused } of tallies) {
    sum.admitted += admitted
    for (const [outcome, times] of Object.entries(refused)) {
      sum.refused[outcome] = (sum.refused[outcome] ?? 0) + times
    }
  }
  return sum
}
