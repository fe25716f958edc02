import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { killAfterwards } from './cleaner.ts'
import { stopAll } from './process-table.ts'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))

type Task = (...args: never[]) => unknown

/** What a process does when it is asked to, by name. An error ends it. */
export type Tasks = Readonly<Record<string, Task>>

interface TaskMessage {
  readonly id: number
  readonly task: string
  readonly args: readonly unknown[]
}

interface ReplyMessage {
  readonly id: number
  readonly value: unknown
}

/** A process of its own that runs tasks. */
export interface TaskProcess<T extends Tasks> {
  /** Has the process run a task. Rejects when it ends before it is done. */
  run<Name extends keyof T & string>(
    task: Name,
    ...args: Parameters<T[Name]>
  ): Promise<Awaited<ReturnType<T[Name]>>>
  /** Stops it where it is: connections stay open, and nothing is answered. */
  pause(): void
  resume(): void
  /** Ends it at once, as a crash does, and resolves when it is gone. */
  kill(): Promise<void>
}

/** In the process: what it was started with. */
export function readSettings<Settings>(): Settings {
  return JSON.parse(process.argv[2] ?? '') as Settings
}

/** In the process: runs these when asked to, and ends with whoever asks. */
export function answerTasks(tasks: Tasks): void {
  process.on('disconnect', () => process.exit())
  process.on('message', async ({ id, task, args }: TaskMessage) => {
    const work = tasks[task] as (...args: readonly unknown[]) => unknown
    const reply: ReplyMessage = { id, value: await work(...args) }
    process.send?.(reply)
  })
}

/** Starts a program of this folder, with `settings` as JSON in its arguments. */
export function startTaskProcess<T extends Tasks>(program: string, settings: object): TaskProcess<T> {
  const { NODE_OPTIONS: _options, NODE_ENV: _env, VITEST: _vitest, ...env } = process.env
  const child = fork(fileURLToPath(new URL(program, import.meta.url)), [JSON.stringify(settings)], {
    cwd: ROOT,
    env,
    execArgv: ['--import', 'tsx'],
    // Dates and large integers arrive as what they are.
    serialization: 'advanced',
  })
  killAfterwards(child)
  return {
    run: createRun<T>(child),
    pause: () => stopAll([child.pid as number]),
    resume: () => void child.kill('SIGCONT'),
    async kill() {
      const hasEnded = child.exitCode !== null || child.signalCode !== null
      const end = hasEnded || once(child, 'exit')
      child.kill('SIGKILL')
      await end
    },
  }
}

function createRun<T extends Tasks>(child: ChildProcess): TaskProcess<T>['run'] {
  const waiting = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>()
  let lastId = 0
  child.on('message', ({ id, value }: ReplyMessage) => {
    waiting.get(id)?.resolve(value)
    waiting.delete(id)
  })
  child.once('exit', (code, signal) => {
    for (const { reject } of waiting.values()) reject(new Error(`a process has ended with ${code ?? signal}`))
  })
  return async (task, ...args) => {
    lastId += 1
    const message: TaskMessage = { id: lastId, task, args }
    const reply = await new Promise<unknown>((resolve, reject) => {
      waiting.set(message.id, { resolve, reject })
      child.send(message, (error) => error && reject(error))
    })
    // The process answers what its task returns.
    return reply as never
  }
}
