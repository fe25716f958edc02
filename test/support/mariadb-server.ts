import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { findInstaller, findMariadb } from './mariadb-binary.ts'
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

export interface MariadbOptions {
  /**
   * The `mariadbd` to run; a test has it from `inject('mariadbBinary')`.
   *
   * @default what `findMariadb` finds
   */
  binary?: string
  /** More of its command line, as `['--max-connections=5']`. It comes last, and so prevails. */
  args?: readonly string[]
}

/**
 * Starts a server and resolves once it accepts connections. Its databases are utf8mb4. What was committed outlives
 * the server's process, though not the machine: nothing is forced to the disk at each commit.
 */
export async function startMariadb({ binary, args = [] }: MariadbOptions = {}): Promise<DatabaseServer> {
  const program = binary ?? (await findMariadb())
  const folder = folderForServer('mariadb')
  const data = join(folder, 'data')
  // Whatever the machine has set for a server of its own does not concern ours.
  const common = [
    '--no-defaults',
    `--datadir=${data}`,
    '--innodb-log-file-size=16M',
    '--character-set-server=utf8mb4',
  ]
  await createDatabases(program, folder, common)
  // The database that comes with a server is of another character set, whatever the server's.
  const beforeReady = join(folder, 'before-ready.sql')
  writeFileSync(beforeReady, 'CREATE DATABASE IF NOT EXISTS tests;\n')
  const settings = [
    common,
    [`--bind-address=${HOST}`, '--skip-name-resolve', '--max-connections=200'],
    [`--init-file=${beforeReady}`, `--socket=${join(folder, 'socket')}`, `--pid-file=${join(folder, 'pid')}`],
    ['--innodb-flush-log-at-trx-commit=2', '--innodb-use-native-aio=0', '--innodb-buffer-pool-size=64M'],
    args,
  ].flat()
  const launchAt = (port: number) =>
    launch(program, [...settings, `--port=${port}`], {
      ready: 'ready for connections',
      ...ordinaryUser(),
    })
  let { port, running } = await launchAnywhere(launchAt)

  async function kill(): Promise<void> {
    running.child.kill('SIGKILL')
    await running.ended
  }

  return {
    port,
    url: `mysql://root@${HOST}:${port}/tests`,
    get pid() {
      return running.child.pid as number
    },
    pause: () => pauseServer(running, port),
    resume: () => resumeServer(running, port),
    kill,
    async restart() {
      await kill()
      running = await launchAt(port)
    },
    async stop() {
      await kill()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

async function createDatabases(program: string, folder: string, common: readonly string[]): Promise<void> {
  // By default the first user is let in by the name that the system knows them by, and not by any port.
  const settings = ['--auth-root-authentication-method=normal', '--innodb-flush-log-at-trx-commit=0']
  await runForServer(findInstaller(program), [...common, ...settings], folder)
}
