import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** The processes to kill, as a line for the cleaner. */
const living = new Set<number>()
let cleaner: { folder: string; pids: Socket } | undefined

/** Kills `child` when this process is gone, whatever ended it: a crash and SIGKILL too, where no handler would run. */
export function killAfterwards(child: ChildProcess): void {
  const { pid } = child
  // It could not be started.
  if (pid === undefined) return
  const { pids } = startCleaner()
  const tell = () => pids.write(`${[...living].join(' ')}\n`)
  living.add(pid)
  tell()
  child.once('exit', () => {
    living.delete(pid)
    tell()
  })
}

/** A new empty folder that is removed when this process is gone, if not before. */
export function temporaryFolder(name: string): string {
  return mkdtempSync(join(startCleaner().folder, `${name}-`))
}

/**
 * A shell outlives this process by a moment. Its input ends when this process does; then it kills what the last line
 * named. It has a session of its own, since Ctrl-C and the like reach a whole group of processes.
 */
function startCleaner(): NonNullable<typeof cleaner> {
  if (cleaner) return cleaner
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-'))
  const script = 'while read -r line; do pids=$line; done; [ -z "$pids" ] || kill -KILL $pids; rm -rf "$1"'
  const shell = spawn('sh', ['-c', script, 'sh', folder], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  const pids = shell.stdin as Socket
  // It must not keep this process alive.
  shell.unref()
  pids.unref()
  cleaner = { folder, pids }
  return cleaner
}
