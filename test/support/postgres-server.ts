import { execFileSync } from 'node:child_process'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { killAlso } from './cleaner.ts'
import { findPostgres } from './postgres-binaries.ts'
import { childrenOf, isAlive, signalAll, stopAll } from './process-table.ts'
import {
  type DatabaseServer,
  folderForServer,
  HOST,
  launch,
  launchAnywhere,
  ordinaryUser,
  pauseServer,
  resumeServer,
  runForServer,
} from './server-process.ts'

export interface PostgresOptions {
  /**
   * The folder of the programs to run; a test has it from `inject('postgresBinaries')`.
   *
   * @default what `findPostgres` finds
   */
  binaries?: string
  /** More of its command line, as `['-c', 'max_connections=5']`. It comes last, and so prevails. */
  args?: readonly string[]
}

/**
 * Starts a server and resolves once it accepts connections. Its databases are UTF-8, ordered by bytes. What was
 * committed outlives the server's processes, though not the machine: nothing is forced to the disk.
 */
export async function startPostgres({ binaries, args = [] }: PostgresOptions = {}): Promise<DatabaseServer> {
  const programs = binaries ?? (await findPostgres())
  const folder = folderForServer('postgres')
  const data = join(folder, 'data')
  await createCluster(programs, folder, data)
  const settings = [
    ['-D', data],
    ['-c', `listen_addresses=${HOST}`],
    ['-c', 'unix_socket_directories='],
    ['-c', 'max_connections=200'],
    ['-c', 'fsync=off'],
    ['-c', 'jit=off'],
    args,
  ].flat()
  const launchAt = (port: number) =>
    launch(join(programs, 'postgres'), ['-p', String(port), ...settings], {
      ready: 'database system is ready to accept connections',
      ...ordinaryUser(),
    })
  let { port, running } = await launchAnywhere(launchAt)
  /** The processes that were paused beside the first one. */
  let paused: { pids: readonly number[]; forget(): void } = { pids: [], forget() {} }

  /** The first process starts the others, so it is stopped before them. */
  function pause(): void {
    pauseServer(running, port)
    paused.forget()
    const pids = childrenOf(running.child.pid as number)
    // Those of a first process that is gone end by themselves, but not while they are stopped.
    paused = { pids, forget: killAlso(pids) }
    stopAll(pids)
  }

  function resume(): void {
    resumeServer(running, port)
    signalAll(paused.pids, 'SIGCONT')
    paused.forget()
    paused = { pids: [], forget() {} }
  }

  async function kill(): Promise<void> {
    if (running.child.exitCode !== null || running.child.signalCode !== null) return
    // No process is started while they are counted; one left behind would bar the next start.
    pause()
    const { pids, forget } = paused
    signalAll([running.child.pid as number, ...pids], 'SIGKILL')
    await running.ended
    while (pids.some(isAlive)) await setTimeout(1)
    forget()
    paused = { pids: [], forget() {} }
  }

  return {
    port,
    url: `postgres://postgres@${HOST}:${port}/postgres`,
    get pid() {
      return running.child.pid as number
    },
    pause,
    resume,
    kill,
    async restart() {
      await kill()
      running = await launchAt(port)
    },
    async stop() {
      await kill()
      removeSharedMemory(data)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function createCluster(programs: string, folder: string, data: string): Promise<void> {
  const settings = ['--username=postgres', '--auth=trust', '--encoding=UTF8', '--locale=C', '--no-sync']
  await runForServer(join(programs, 'initdb'), [`--pgdata=${data}`, ...settings], folder)
}

/** A server that was killed leaves a segment behind; the next start removes it, and after the last one we do. */
function removeSharedMemory(data: string): void {
  try {
    const [, id] = (readFileSync(join(data, 'postmaster.pid'), 'utf8').split('\n')[6] ?? '')
      .trim()
      .split(/\s+/)
    if (id !== undefined) execFileSync('ipcrm', ['-m', id], { stdio: 'ignore' })
  } catch {
    // It is a few bytes that nobody uses.
  }
}
