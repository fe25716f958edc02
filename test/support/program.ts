import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))

/** A program of this repository, running as a process of its own. */
export interface Program {
  /** What it has written so far. */
  readonly stdout: string
  /** The same, but for the warning that Node 22 gives of its own SQLite. */
  readonly stderr: string
  /** Resolves with the output once it matches; rejects when the program ends first. */
  waitFor(pattern: Pick<RegExp, 'test'>): Promise<string>
  signal(name: NodeJS.Signals): void
  /** Resolves with the exit code, or the name of the signal that ended it. */
  ended(): Promise<number | NodeJS.Signals | null>
}

const SQLITE_WARNING = /^\(node:\d+\) ExperimentalWarning: SQLite .*\n\(Use .*\n/m

/** Starts `node --import tsx`, which understands TypeScript, in the root of the repository unless told otherwise. */
export function startProgram(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  cwd: string = root,
): Program {
  const { NODE_OPTIONS: _options, NODE_ENV: _env, VITEST: _vitest, ...rest } = process.env
  const child: ChildProcess = spawn(process.execPath, ['--import', 'tsx', ...args], {
    cwd,
    env: { ...rest, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const end = once(child, 'close') as Promise<[number | null, NodeJS.Signals | null]>
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.setEncoding('utf8').on('data', (text: string) => {
      output[name] += text
    })
  }
  return {
    get stdout() {
      return output.stdout
    },
    get stderr() {
      return output.stderr.replace(SQLITE_WARNING, '')
    },
    waitFor(pattern) {
      const seen = new Promise<string>((resolve) => {
        const look = () => {
          if (!pattern.test(output.stdout)) return
          child.stdout?.off('data', look)
          resolve(output.stdout)
        }
        child.stdout?.on('data', look)
        look()
      })
      const tooEarly = end.then(([code]) => {
        throw new Error(`the program ended with ${code} before it wrote ${pattern}: ${output.stderr}`)
      })
      return Promise.race([seen, tooEarly])
    },
    signal: (name) => void child.kill(name),
    ended: () => end.then(([code, signal]) => code ?? signal),
  }
}
