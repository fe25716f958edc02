import { execFile } from 'node:child_process'
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

import { temporaryFolder } from './cleaner.ts'

const inNodeModules = fileURLToPath(new URL('../../node_modules/.cache', import.meta.url))

/** What the search depends on; by default, what this process has. */
export interface Machine {
  env?: NodeJS.ProcessEnv
  /** Whether packages may be installed for the whole machine. */
  isRoot?: boolean
  /**
   * The folder below which a package is unpacked that may not be installed.
   *
   * @default 'node_modules/.cache'
   */
  cache?: string
  /**
   * The folder that has `usr` in it.
   *
   * @default '/'
   */
  root?: string
}

/** A server that the tests run, and the package of Debian that holds it. */
export interface PackagedServer {
  /** What to install or to set, for those who have none of it. */
  readonly advice: string
  /** The environment variable that names it, which rules out every other place. */
  readonly variable: string
  /** What that variable has to name, for the message where it does not. */
  readonly named: string
  /** What stands in that variable, where it stands for the server. */
  readNamed(path: string): string | undefined
  /** The server in `folder`; undefined where there is none. */
  findIn(folder: string): string | undefined
  /** Folders to look in after those of the PATH, below the root of the machine. */
  foldersBelow?(root: string): string[]
  /** The packages that root installs. */
  readonly packages: readonly string[]
  /** Programs that stand in for those of the same name while it is installed: name → shell script. */
  readonly installedWith?: Readonly<Record<string, string>>
  /** The archives that everybody else unpacks; `missing` says what installing some would install. */
  archives(missing: (packages: readonly string[]) => Promise<string[]>): Promise<readonly string[]>
  /** The name of its folder in the cache. */
  readonly cacheName: string
  /** What starts the programs in `folder`, where the archives were unpacked. */
  launchers(folder: string): readonly Launcher[]
}

/** A shell script in the cache that runs an unpacked program with the libraries beside it. */
export interface Launcher {
  readonly name: string
  /** The path of the program, from the folder of the archives. */
  readonly program: string
  /** Arguments that follow those of the caller; `place` is where the archives are. */
  args?(place: string): readonly string[]
}

/**
 * The path of a server: the one that its variable names, or one on the PATH. Where there is neither, Debian's package
 * is installed, or unpacked in the cache by anybody but root.
 *
 * @throws Error that says what to install, since a test without its server must not pass.
 */
export async function findPackagedServer(
  server: PackagedServer,
  { env = process.env, isRoot = process.getuid?.() === 0, cache = inNodeModules, root = '/' }: Machine = {},
): Promise<string> {
  const named = env[server.variable]
  if (named) return readNamed(server, named)
  const find = () => findServer(server, env, root)
  const present = find()
  if (present !== undefined) return present
  const [aptGet, dpkg] = [findProgram('apt-get', env), findProgram('dpkg', env)]
  if (aptGet === undefined || dpkg === undefined) throw notFound(server)
  try {
    if (isRoot) return await install(server, aptGet, env, find)
    return await unpack(server, { aptGet, dpkg, env, cache })
  } catch (error) {
    throw notFound(server, error as Error)
  }
}

/** Whether `path` is a file that may be run. */
export function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

function readNamed({ variable, named, readNamed }: PackagedServer, path: string): string {
  const server = readNamed(path)
  if (server === undefined) throw new Error(`${variable} names no ${named}: ${path}`)
  return server
}

function findServer(
  { findIn, foldersBelow = () => [] }: PackagedServer,
  env: NodeJS.ProcessEnv,
  root: string,
): string | undefined {
  for (const folder of [...foldersOnPath(env), ...foldersBelow(root)]) {
    const server = findIn(folder)
    if (server !== undefined) return server
  }
  return undefined
}

function findProgram(name: string, env: NodeJS.ProcessEnv): string | undefined {
  return foldersOnPath(env)
    .map((folder) => join(folder, name))
    .find(isProgram)
}

function foldersOnPath({ PATH = '' }: NodeJS.ProcessEnv): string[] {
  return PATH.split(delimiter).filter((folder) => folder !== '')
}

/** As root: installs the package. The lists of a fresh machine may be empty or old, hence the second attempt. */
async function install(
  { packages, installedWith }: PackagedServer,
  aptGet: string,
  env: NodeJS.ProcessEnv,
  find: () => string | undefined,
): Promise<string> {
  const attempt = async () => {
    // Another process may be installing the same: wait for its lock.
    const options = ['-o', 'DPkg::Lock::Timeout=120', '-y', '--no-install-recommends']
    await withPrograms(installedWith, env, (settings) =>
      run(aptGet, ['install', ...options, ...packages], settings),
    )
    const server = find()
    if (server === undefined) throw new Error(`${packages.join(' and ')} did not bring it`)
    return server
  }
  try {
    return await attempt()
  } catch {
    await run(aptGet, ['update'], env)
    return attempt()
  }
}

/** Puts `scripts` in front of the PATH while `action` runs. */
async function withPrograms(
  scripts: Readonly<Record<string, string>> | undefined,
  env: NodeJS.ProcessEnv,
  action: (env: NodeJS.ProcessEnv) => Promise<unknown>,
): Promise<void> {
  if (scripts === undefined) return void (await action(env))
  const folder = temporaryFolder('programs')
  for (const [name, script] of Object.entries(scripts)) writeScript(join(folder, name), [script])
  try {
    await action({ ...env, PATH: [folder, env.PATH].join(delimiter) })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** As anybody else: unpacks the package in the cache, where the next search finds it. */
async function unpack(
  server: PackagedServer,
  { aptGet, dpkg, env, cache }: { aptGet: string; dpkg: string; env: NodeJS.ProcessEnv; cache: string },
): Promise<string> {
  const place = join(cache, server.cacheName)
  const find = () => server.findIn(join(place, 'bin'))
  const present = find()
  if (present !== undefined) return present
  mkdirSync(cache, { recursive: true })
  // Made aside and moved into place whole, so that another process sees all of it or nothing.
  const folder = mkdtempSync(`${place}-`)
  try {
    const archives = await server.archives((packages) => namesMissing(aptGet, packages, env))
    await run(aptGet, ['download', ...archives], env, folder)
    for (const archive of readdirSync(folder).filter((name) => name.endsWith('.deb'))) {
      await run(dpkg, ['-x', archive, '.'], env, folder)
      rmSync(join(folder, archive))
    }
    writeLaunchers(server.launchers(folder), folder, place)
    moveIntoPlace(folder, place)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  const unpacked = find()
  if (unpacked === undefined)
    throw new Error(`the archives of ${server.packages.join(' and ')} do not hold it`)
  return unpacked
}

async function namesMissing(
  aptGet: string,
  packages: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<string[]> {
  const plan = await run(aptGet, ['install', '--simulate', '--no-install-recommends', ...packages], env)
  return [...plan.matchAll(/^Inst (\S+)/gm)].map(([, name]) => name as string)
}

function writeLaunchers(launchers: readonly Launcher[], folder: string, place: string): void {
  const libraries = foldersOfLibraries(join(folder, 'usr/lib')).map((name) => join(place, 'usr/lib', name))
  mkdirSync(join(folder, 'bin'))
  for (const { name, program, args = () => [] } of launchers) {
    const appended = args(place).map((arg) => ` '${arg}'`)
    writeScript(join(folder, 'bin', name), [
      `export LD_LIBRARY_PATH='${libraries.join(delimiter)}'`,
      `exec '${join(place, program)}' "$@"${appended.join('')}`,
    ])
  }
}

function foldersOfLibraries(folder: string): string[] {
  return readdirSync(folder).filter((name) => name.includes('-linux'))
}

function writeScript(path: string, lines: readonly string[]): void {
  writeFileSync(path, `${['#!/bin/sh', ...lines].join('\n')}\n`, { mode: 0o755 })
}

function moveIntoPlace(folder: string, place: string): void {
  try {
    renameSync(folder, place)
  } catch (error) {
    // Another process was first, and has put the same there.
    if (!existsSync(place)) throw error
  }
}

async function run(
  program: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  cwd?: string,
): Promise<string> {
  const settings = { ...env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' }
  // What apt-get says of a large package is longer than Node would keep by default.
  const options = { cwd, env: settings, timeout: 300_000, maxBuffer: 16 * 1024 * 1024 }
  return (await promisify(execFile)(program, args, options)).stdout
}

function notFound({ advice }: PackagedServer, cause?: Error): Error {
  const attempt = cause === undefined ? '' : ` Installing it failed: ${cause.message.trim()}`
  return new Error(`${advice}${attempt}`, { cause })
}
