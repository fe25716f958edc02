import { join } from 'node:path'
import { Readable, Writable } from 'node:stream'
import { main } from '../../lib/cli/main.ts'
import { temporaryFolder } from './cleaner.ts'

export interface CliRun {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export interface CliOptions {
  readonly stdin?: string | Readable
  readonly env?: Record<string, string | undefined>
  readonly cwd?: string
  /** Whether standard output and error are a terminal of so many columns. */
  readonly columns?: number
  readonly signal?: AbortSignal
  readonly isOutputLost?: boolean
  /** In place of what collects standard output. */
  readonly stdout?: Writable
}

/** Runs the command in this process. */
export async function runCli(words: readonly string[], options: CliOptions = {}): Promise<CliRun> {
  const { columns, signal = new AbortController().signal, isOutputLost = false, stdin = '' } = options
  const [stdout, stderr] = [collect(columns), collect(columns)]
  const code = await main(words, {
    stdin: typeof stdin === 'string' ? Readable.from(stdin === '' ? [] : [stdin]) : stdin,
    stdout: options.stdout ?? stdout.stream,
    stderr: stderr.stream,
    env: options.env ?? {},
    cwd: options.cwd ?? process.cwd(),
    signal,
    isOutputLost,
  })
  return { code, stdout: stdout.text(), stderr: stderr.text() }
}

function collect(columns: number | undefined): { stream: Writable; text(): string } {
  let text = ''
  const stream = new Writable({
    write(chunk, _encoding, done) {
      text += chunk
      done()
    },
  })
  Object.assign(stream, columns === undefined ? {} : { isTTY: true, columns })
  return { stream, text: () => text }
}

/** A writable that fails as a pipe without a reader does, or a full disk. */
export function brokenOutput(code: 'EPIPE' | 'ENOSPC'): Writable {
  const message = code === 'EPIPE' ? 'write EPIPE' : 'ENOSPC: no space left on device, write'
  return new Writable({
    write: (_chunk, _encoding, done) => done(Object.assign(new Error(message), { code })),
  })
}

export interface CliFolder {
  readonly folder: string
  readonly env: Record<string, string>
  /** Runs the command in the folder, and fails on another code than this one. */
  run(words: readonly string[], options?: CliOptions): Promise<CliRun>
  /** The same with `--json`; returns the document. */
  // biome-ignore lint/suspicious/noExplicitAny: each test knows what it asked for.
  json(words: readonly string[], options?: CliOptions): Promise<any>
}

/** A folder with a migrated SQLite file, that the environment names. */
export async function cliFolder(): Promise<CliFolder> {
  const folder = temporaryFolder('latchkey-cli-')
  const env = { LATCHKEY_STORE: `sqlite:${join(folder, 'keys.db')}`, LATCHKEY_PREFIX: 'acme' }
  const run = (words: readonly string[], options: CliOptions = {}) =>
    runCli(words, { cwd: folder, env, ...options })
  const migrated = await run(['migrate'])
  if (migrated.code !== 0) throw new Error(migrated.stderr)
  return {
    folder,
    env,
    run,
    async json(words, options) {
      const { stdout, stderr } = await run([...words, '--json'], options)
      return stdout === '' ? JSON.parse(stderr) : JSON.parse(stdout)
    },
  }
}
