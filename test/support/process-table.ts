import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'

/** The processes that `parent` has started and that have not ended. */
export function childrenOf(parent: number): number[] {
  return listProcesses()
    .filter((process) => process.parent === parent)
    .map(({ pid }) => pid)
}

/** From `/proc` where there is one, since a small Linux image has no `ps`. */
function listProcesses(): { pid: number; parent: number }[] {
  if (existsSync('/proc/self/stat')) {
    const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
    return pids.map((pid) => ({ pid: Number(pid), parent: Number(readStat(pid)[1]) }))
  }
  const table = execFileSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' })
  return table
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .map(([pid = 0, parent = 0]) => ({ pid, parent }))
}

/** The state of a process and its parent; empty where it has gone meanwhile. */
function readStat(pid: string): string[] {
  try {
    // The name of the program stands before them in brackets, and may hold anything.
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  } catch {
    return []
  }
}

/** Sends a signal to those of them that still run. */
export function signalAll(pids: readonly number[], name: NodeJS.Signals): void {
  for (const pid of pids) {
    try {
      process.kill(pid, name)
    } catch {
      // It has gone by itself.
    }
  }
}

/**
 * Stops processes where they are, all their threads. A signal takes a moment to get there: a server would still
 * answer a request that comes right after it. Elsewhere than on Linux, that moment is not waited for.
 */
export function stopAll(pids: readonly number[]): void {
  signalAll(pids, 'SIGSTOP')
  const giveUpAt = performance.now() + 1_000
  while (!pids.every(standsStill) && performance.now() < giveUpAt);
}

function standsStill(pid: number): boolean {
  const threads = readFolder(`/proc/${pid}/task`)
  return threads.every((thread) => ['', 'T', 'Z', 'X'].includes(readStat(`${pid}/task/${thread}`)[0] ?? ''))
}

function readFolder(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

/** Whether a process runs or is stopped. One that nobody has waited for is listed still, yet has ended. */
export function isAlive(pid: number): boolean {
  if (existsSync('/proc/self/stat')) return !['', 'Z', 'X'].includes(readStat(String(pid))[0] ?? '')
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
