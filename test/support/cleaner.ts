import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdtempSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** The processes to kill, as a line for the cleaner. */
const living = new Set<number>()
let cleaner: { folder: string; pids: Socket } | undefined

/** Kills `child` when this process is gone, whatever ended it: a crash and SIGKILL too, where no handler would run. */
export function killAfterwards(child: ChildProcess): void {
  // Otherwise it could not be started.
  if (child.pid !== undefined) child.once('exit', killAlso([child.pid]))
}

/** Kills these too when this process is gone, though others started them, until the function that is returned is called. */
export function killAlso(pids: readonly number[]): () => void {
  const { pids: cleaner } = startCleaner()
  const tell = () => cleaner.write(`${[...living].join(' ')}\n`)
  for (const pid of pids) living.add(pid)
  tell()
  return () => {
    for (const pid of pids) living.delete(pid)
    tell()
  }
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
  // A server that does not run as we do passes through it to a folder of its own.
  chmodSync(folder, 0o711)
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
