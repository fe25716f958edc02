import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chownSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { killAfterwards, temporaryFolder } from './cleaner.ts'
import { findFreePort } from './free-port.ts'
import { stopAll } from './process-table.ts'

export const HOST = '127.0.0.1'
const START_LIMIT_MS = 10_000
/** The user `nobody`, of no group that anything belongs to. */
const NOBODY = { uid: 65_534, gid: 65_534 }

/** A server of our own on a loopback port, which keeps its data across a crash. It never outlives this process. */
export interface DatabaseServer {
  readonly port: number
  /** Leads to a database that is empty at first, as a user who may do everything. */
  readonly url: string
  /** Of the process that runs now or, after `kill`, ran last. */
  readonly pid: number
  /** Stops the server where it is: connections stay open, and nothing is answered. */
  pause(): void
  resume(): void
  /** Ends the server at once, as a crash does, and resolves when all of it is gone. */
  kill(): Promise<void>
  /** Starts it at the same port with the data it had, after killing it if it still runs. */
  restart(): Promise<void>
  /** Ends it and removes its folder. */
  stop(): Promise<void>
}

export interface Running {
  child: ChildProcess
  /** Resolves when the process is gone. */
  ended: Promise<unknown>
}

export interface LaunchOptions {
  /** What the server prints once it can be used. */
  ready: string
  uid?: number
  gid?: number
}

/** Starts a server and resolves once it says that it is ready. */
export async function launch(
  program: string,
  args: readonly string[],
  { ready: sign, ...user }: LaunchOptions,
): Promise<Running> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], ...user })
  killAfterwards(child)
  const ended = once(child, 'close')
  let output = ''
  const ready = new Promise<'ready'>((resolve) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output += text
        if (output.includes(sign)) resolve('ready')
      })
    }
  })
  const outcome = await Promise.race([
    ready,
    ended.then(() => 'ended before it was ready'),
    setTimeout(START_LIMIT_MS, `was not ready after ${START_LIMIT_MS} ms`, { ref: false }),
  ])
  if (outcome === 'ready') return { child, ended }
  child.kill('SIGKILL')
  await ended
  throw new Error(`${program} ${args.join(' ')} ${outcome}:\n${output}`)
}

/** Between the choice of a port and its use somebody else may take it. */
export async function launchAnywhere(
  launchAt: (port: number) => Promise<Running>,
): Promise<{ port: number; running: Running }> {
  for (let attempt = 1; ; attempt += 1) {
    const port = await findFreePort()
    try {
      return { port, running: await launchAt(port) }
    } catch (error) {
      if (attempt === 5 || !/Address already in use/.test(String(error))) throw error
    }
  }
}

/** Stops a server of one process where it is, which must be running. */
export function pauseServer(running: Running, port: number): void {
  signalServer(running, port, 'SIGSTOP')
  stopAll([running.child.pid as number])
}

/** Lets it go on. */
export function resumeServer(running: Running, port: number): void {
  signalServer(running, port, 'SIGCONT')
}

function signalServer({ child }: Running, port: number, name: NodeJS.Signals): void {
  if (!child.kill(name)) throw new Error(`the server at port ${port} does not run`)
}

/** Whom to run a server as that refuses to be root: nobody, where we are root, and otherwise who we are. */
export function ordinaryUser(): { uid?: number; gid?: number } {
  return process.getuid?.() === 0 ? NOBODY : {}
}

/** A new empty folder that belongs to `ordinaryUser()`. */
export function folderForServer(name: string): string {
  const folder = temporaryFolder(name)
  const { uid, gid } = ordinaryUser()
  if (uid !== undefined && gid !== undefined) chownSync(folder, uid, gid)
  return folder
}

/** Runs a program to its end, as `ordinaryUser()`. */
export async function runForServer(program: string, args: readonly string[], cwd: string): Promise<void> {
  try {
    await promisify(execFile)(program, args, { cwd, ...ordinaryUser() })
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
    throw new Error(`${program} ${args.join(' ')} failed:\n${stdout}${stderr}`, { cause: error })
  }
}
