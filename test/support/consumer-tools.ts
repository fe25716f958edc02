import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/**
 * What applications test and bundle with, and an older release of what this repository has in one release only. None of
 * it is needed to work on this repository, so `npm ci` is spared it.
 */
const TOOLS = {
  '@rollup/plugin-commonjs': '29.0.3',
  '@rollup/plugin-node-resolve': '16.0.3',
  esbuild: '0.28.2',
  jest29: 'npm:jest@29.7.0',
  jest30: 'npm:jest@30.5.2',
  rollup: '4.68.8',
  webpack: '5.113.0',
}

export type Tool = keyof typeof TOOLS

const cache = fileURLToPath(new URL('../../node_modules/.cache', import.meta.url))

/** The `node_modules` that holds the tools. They are installed once, and again when a version above has changed. */
export function installTools(): string {
  return installPackages(TOOLS)
}

/** The `node_modules` that holds these packages. */
export function installPackages(dependencies: Readonly<Record<string, string>>): string {
  return install({ 'package.json': JSON.stringify({ private: true, dependencies }) }, 'install')
}

/** The `node_modules` with the packages of a folder's lockfile. */
export function installLocked(folder: string): string {
  const read = (file: string) => readFileSync(join(folder, file), 'utf8')
  const files = { 'package.json': read('package.json'), 'package-lock.json': read('package-lock.json') }
  return install(files, 'ci')
}

/** Complete or not at all: two test files may be at it, and one may be interrupted. */
function install(files: Readonly<Record<string, string>>, command: 'install' | 'ci'): string {
  const hash = createHash('sha256').update(Object.values(files).join()).digest('hex').slice(0, 16)
  const place = join(cache, `tools-${hash}`)
  const modules = join(place, 'node_modules')
  if (existsSync(place)) return modules
  mkdirSync(cache, { recursive: true })
  const draft = mkdtempSync(join(cache, 'tools-draft-'))
  try {
    for (const [file, text] of Object.entries(files)) writeFileSync(join(draft, file), text)
    execFileSync('npm', [command, '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund'], {
      cwd: draft,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    if (!existsSync(place)) renameSync(draft, place)
  } finally {
    rmSync(draft, { recursive: true, force: true })
  }
  return modules
}
