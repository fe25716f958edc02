import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { killAfterwards } from './cleaner.ts'
import type { ReplyMessage, Tally, TaskMessage, WorkerSettings, WorkerTasks } from './redis-worker.ts'

const PROGRAM = fileURLToPath(new URL('redis-worker.ts', import.meta.url))
const ROOT = fileURLToPath(new URL('../../', import.meta.url))

/** A process of its own with API keys that it shares with others. */
export interface RedisWorker {
  /** Has the process run a task. Rejects when it ends before it is done. */
  run<T extends keyof WorkerTasks>(
    task: T,
    ...args: Parameters<WorkerTasks[T]>
  ): Promise<Awaited<ReturnType<WorkerTasks[T]>>>
}

export interface RedisWorkers {
  readonly workers: readonly [RedisWorker, ...RedisWorker[]]
  stop(): Promise<void>
}

/** Starts so many processes, all with the same settings, and resolves once each of them has answered. */
export async function startRedisWorkers(count: number, settings: WorkerSettings): Promise<RedisWorkers> {
  const children = Array.from({ length: count }, () => startProcess(settings))
  const workers = children.map(createWorker) as [RedisWorker, ...RedisWorker[]]
  await Promise.all(workers.map((worker) => worker.run('get', 'nobody')))
  return {
    workers,
    async stop() {
      const ends = children.map((child) => child.exitCode === null && once(child, 'exit'))
      for (const child of children) child.kill('SIGKILL')
      await Promise.all(ends)
    },
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

function startProcess(settings: WorkerSettings): ChildProcess {
  const { NODE_OPTIONS: _options, NODE_ENV: _env, VITEST: _vitest, ...env } = process.env
  const child = fork(PROGRAM, [JSON.stringify(settings)], {
    cwd: ROOT,
    env,
    execArgv: ['--import', 'tsx'],
    // Dates and large integers arrive as what they are.
    serialization: 'advanced',
  })
  killAfterwards(child)
  return child
}

function createWorker(child: ChildProcess): RedisWorker {
  const waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>()
  let lastId = 0
  child.on('message', ({ id, value }: ReplyMessage) => {
    waiting.get(id)?.resolve(value)
    waiting.delete(id)
  })
  child.once('exit', (code, signal) => {
    for (const { reject } of waiting.values()) reject(new Error(`a worker has ended with ${code ?? signal}`))
  })
  return {
    async run(task, ...args) {
      lastId += 1
      const message: TaskMessage = { id: lastId, task, args }
      const reply = await new Promise<unknown>((resolve, reject) => {
        waiting.set(message.id, { resolve, reject })
        child.send(message, (error) => error && reject(error))
      })
      // The worker answers what its task returns.
      return reply as never
    },
  }
}
