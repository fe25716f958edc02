import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = new URL('../', import.meta.url)

/** Installs what latchkey is compared with, unless just these versions are there. */
export function installPeers() {
  const { dependencies } = readJson('bench/package.json')
  const isInstalled = Object.entries(dependencies).every(([name, version]) => {
    const path = `bench/node_modules/${name}/package.json`
    return existsSync(new URL(path, root)) && readJson(path).version === version
  })
  if (!isInstalled) npm(['ci', '--prefix', 'bench', '--no-audit', '--no-fund'])
}

/** Builds the library, unless its build is younger than every source. */
export function buildLibrary() {
  const doors = [
    'index',
    'express',
    'koa',
    'nest',
    'fastify',
    'fetch',
    'passport',
    'redis',
    'sql',
    'management/express',
    'management/koa',
  ]
  const outputs = doors.map((file) => new URL(`dist/${file}.mjs`, root))
  const isBuilt = outputs.every(existsSync) && Math.min(...outputs.map(changedAt)) >= latestSourceChange()
  if (!isBuilt) npm(['run', 'build'])
}

function latestSourceChange() {
  const folder = new URL('lib/', root)
  const sources = readdirSync(folder, { recursive: true }).map(
    (path) => new URL(path.replaceAll('\\', '/'), folder),
  )
  return Math.max(...sources.map(changedAt))
}

function changedAt(url) {
  return statSync(url).mtimeMs
}

function readJson(path) {
  return JSON.parse(readFileSync(new URL(path, root), 'utf8'))
}

function npm(args) {
  console.error(`npm ${args.join(' ')}`)
  // stdout is kept for the report; a shell is how Windows finds npm.
  const { status, error } = spawnSync('npm', args, {
    cwd: fileURLToPath(root),
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32',
  })
  if (status !== 0) throw new Error(`npm ${args[0]} failed`, { cause: error })
}
