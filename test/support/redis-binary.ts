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
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

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
}

/**
 * The path of a Redis or Valkey server: the one that `REDIS_SERVER_BIN` names, or one on the PATH. Where there is
 * neither, Debian's package is installed, or unpacked in the cache by anybody but root.
 *
 * @throws Error that says what to install, since a test without its server must not pass.
 */
export async function findRedisServer({
  env = process.env,
  isRoot = process.getuid?.() === 0,
  cache = inNodeModules,
}: Machine = {}): Promise<string> {
  if (env.REDIS_SERVER_BIN) return readNamed(env.REDIS_SERVER_BIN)
  const present = findServer(env)
  if (present !== undefined) return present
  const [aptGet, dpkg] = [findProgram('apt-get', env), findProgram('dpkg', env)]
  if (aptGet === undefined || dpkg === undefined) throw notFound()
  try {
    return isRoot ? await install(aptGet, env) : await unpack(aptGet, dpkg, env, cache)
  } catch (error) {
    throw notFound(error as Error)
  }
}

function readNamed(path: string): string {
  if (!isProgram(path)) throw new Error(`REDIS_SERVER_BIN names no program: ${path}`)
  return path
}

function findServer(env: NodeJS.ProcessEnv): string | undefined {
  return findProgram('redis-server', env) ?? findProgram('valkey-server', env)
}

function findProgram(name: string, { PATH = '' }: NodeJS.ProcessEnv): string | undefined {
  const folders = PATH.split(delimiter).filter((folder) => folder !== '')
  return folders.map((folder) => join(folder, name)).find(isProgram)
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/** As root: installs the package. The lists of a fresh machine may be empty or old, hence the second attempt. */
async function install(aptGet: string, env: NodeJS.ProcessEnv): Promise<string> {
  const attempt = async () => {
    // Another process may be installing the same: wait for its lock.
    const options = ['-o', 'DPkg::Lock::Timeout=120', '-y', '--no-install-recommends']
    await run(aptGet, ['install', ...options, 'redis-server'], env)
    const server = findServer(env)
    if (server === undefined) throw new Error('the package redis-server holds no redis-server')
    return server
  }
  try {
    return await attempt()
  } catch {
    await run(aptGet, ['update'], env)
    return attempt()
  }
}

/** As anybody else: unpacks the package in the cache, where the next search finds it. */
async function unpack(aptGet: string, dpkg: string, env: NodeJS.ProcessEnv, cache: string): Promise<string> {
  const place = join(cache, 'redis')
  const server = join(place, 'redis-server')
  if (isProgram(server)) return server
  mkdirSync(cache, { recursive: true })
  // Made aside and moved into place whole, so that another process sees all of it or nothing.
  const folder = mkdtempSync(`${place}-`)
  try {
    await run(aptGet, ['download', 'redis-tools', 'libjemalloc2', 'liblzf1'], env, folder)
    for (const archive of readdirSync(folder).filter((name) => name.endsWith('.deb'))) {
      await run(dpkg, ['-x', archive, '.'], env, folder)
    }
    writeLauncher(folder, place)
    moveIntoPlace(folder, place)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  return server
}

/** Debian's `redis-check-rdb` is the server as well: which of them it is depends on the name it is run by. */
function writeLauncher(folder: string, place: string): void {
  symlinkSync('redis-check-rdb', join(folder, 'usr/bin/redis-server'))
  const libraries = readdirSync(join(folder, 'usr/lib')).map((name) => join(place, 'usr/lib', name))
  const lines = [
    '#!/bin/sh',
    `export LD_LIBRARY_PATH='${libraries.join(delimiter)}'`,
    `exec '${join(place, 'usr/bin/redis-server')}' "$@"`,
  ]
  writeFileSync(join(folder, 'redis-server'), `${lines.join('\n')}\n`, { mode: 0o755 })
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
): Promise<void> {
  const settings = { ...env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' }
  await promisify(execFile)(program, args, { cwd, env: settings, timeout: 300_000 })
}

function notFound(cause?: Error): Error {
  const attempt = cause === undefined ? '' : ` Installing it failed: ${cause.message.trim()}`
  return new Error(
    'No Redis server was found, and these tests run against a real one. Put redis-server or valkey-server on ' +
      'the PATH (Debian and Ubuntu: apt-get install redis-server; macOS: brew install redis), or name the ' +
      `program in REDIS_SERVER_BIN.${attempt}`,
    { cause },
  )
}
