import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Nest 11 with what it resolves beside itself. */
export const NEST_11 = {
  '@nestjs/common': '11.2.10',
  '@nestjs/core': '11.2.10',
  '@nestjs/passport': '11.0.5',
  '@nestjs/platform-express': '11.2.10',
  '@types/express': '5.0.6',
  '@types/passport': '1.0.17',
  passport: '0.7.0',
  'reflect-metadata': '0.2.2',
  rxjs: '7.8.2',
}

/**
 * What applications test and bundle with, and an older release of what this repository has in one release only. None of
 * it is needed to work on this repository, so `npm ci` is spared it.
 */
const TOOLS = {
  ...NEST_11,
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
  const manifest = JSON.stringify({ private: true, dependencies })
  const place = join(cache, `tools-${createHash('sha256').update(manifest).digest('hex').slice(0, 16)}`)
  if (!existsSync(place)) install(manifest, place)
  return join(place, 'node_modules')
}

/** Complete or not at all: two test files may be at it, and one may be interrupted. */
function install(manifest: string, place: string): void {
  mkdirSync(cache, { recursive: true })
  const draft = mkdtempSync(join(cache, 'tools-draft-'))
  try {
    writeFileSync(join(draft, 'package.json'), manifest)
    execFileSync('npm', ['install', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund'], {
      cwd: draft,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    if (!existsSync(place)) renameSync(draft, place)
  } finally {
    rmSync(draft, { recursive: true, force: true })
  }
}
