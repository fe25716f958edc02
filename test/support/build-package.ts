import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { TestProject } from 'vitest/node'

const root = fileURLToPath(new URL('../../', import.meta.url))
const sources = ['lib', 'package.json', 'package-lock.json', 'tsconfig.json', 'tsdown.config.ts']

declare module 'vitest' {
  export interface ProvidedContext {
    /** What the build said when it failed; empty after a good one. */
    buildFailure: string
  }
}

/**
 * Builds dist where it is missing or older than anything it is made from. A failure is handed to the package tests
 * rather than thrown, since that would call off the tests of the sources as well.
 */
export default function buildPackage({ provide }: TestProject): void {
  provide('buildFailure', isUpToDate() ? '' : build())
}

function build(): string {
  const { status, error, stderr } = spawnSync('npm', ['run', '--silent', 'build'], {
    cwd: root,
    encoding: 'utf8',
  })
  return status === 0 ? '' : (error?.message ?? (stderr || `exit ${status}`))
}

function isUpToDate(): boolean {
  if (!doors().every((file) => existsSync(`${root}${file}`))) return false
  const oldestOutput = Math.min(...modificationTimes('dist'))
  return Math.max(...sources.flatMap(modificationTimes)) < oldestOutput
}

/** The files of every door: a build that was interrupted has left some of them out. */
function doors(): string[] {
  const { exports } = JSON.parse(readFileSync(`${root}package.json`, 'utf8')) as { exports: object }
  return Object.values(exports).flatMap(filesOf)
}

function filesOf(target: string | object): string[] {
  return typeof target === 'string' ? [target] : Object.values(target).flatMap(filesOf)
}

/** Folders count too: their time moves when a file is removed. */
function modificationTimes(path: string): number[] {
  const full = `${root}${path}`
  if (!existsSync(full)) return [0]
  const stats = statSync(full)
  if (!stats.isDirectory()) return [stats.mtimeMs]
  return [stats.mtimeMs, ...readdirSync(full).flatMap((entry) => modificationTimes(`${path}/${entry}`))]
}
