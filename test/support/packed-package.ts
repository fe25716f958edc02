import { execFile, execFileSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { installTools, type Tool } from './consumer-tools.ts'
import { type Program, startProgram } from './program.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))

export interface Manifest {
  exports: Record<string, unknown>
  typesVersions: { '*': Record<string, readonly string[]> }
  dependencies: Record<string, string>
  peerDependencies: Record<string, string>
}

export interface ProcessResult {
  status: number
  stdout: string
  stderr: string
}

export interface PackedPackage {
  /** Every path in the tarball. */
  files: string[]
  manifest: Manifest
  /** `latchkey`, `latchkey/passport`, …: what `exports` opens, without `package.json`. */
  doors: string[]
  /**
   * A fresh folder in which the tarball is installed with its dependencies and, beside them, only the packages and tools
   * named, and those of `installed`, a `node_modules`: whatever the package forgot to declare is not there.
   */
  createConsumer(packages?: readonly string[], tools?: readonly Tool[], installed?: string): Consumer
  remove(): void
}

export interface Consumer {
  /** Its path. */
  readonly folder: string
  /** Reads one file of the installed package. */
  read(file: string): string
  write(file: string, text: string): void
  run(...args: string[]): Promise<ProcessResult>
  /** Starts a TypeScript program of the folder; it needs `tsx` among the packages. */
  start(file: string, env?: NodeJS.ProcessEnv): Program
}

/** Packs the built package as `npm publish` would, without reaching any network. */
export function packPackage(): PackedPackage {
  const scratch = mkdtempSync(join(tmpdir(), 'latchkey-package-'))
  const report = execFileSync('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', scratch], {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const [packed] = JSON.parse(report) as PackReport[]
  if (packed === undefined) throw new Error('npm pack reported no package')
  const manifest: Manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  let consumers = 0
  return {
    files: packed.files.map((file) => file.path).sort(),
    manifest,
    doors: Object.keys(manifest.exports)
      .filter((path) => path !== './package.json')
      .map((path) => `latchkey${path.slice(1)}`),
    createConsumer(packages = [], tools = [], modules = undefined) {
      consumers += 1
      const folder = join(scratch, `consumer-${consumers}`)
      const installed = join(folder, 'node_modules/latchkey')
      mkdirSync(installed, { recursive: true })
      execFileSync('tar', ['-xzf', join(scratch, packed.filename), '-C', installed, '--strip-components=1'])
      const here = join(root, 'node_modules')
      for (const name of [...Object.keys(manifest.dependencies), ...packages]) link(folder, here, name)
      for (const name of tools) link(folder, installTools(), name)
      if (modules !== undefined) for (const name of packagesIn(modules)) link(folder, modules, name, true)
      return {
        folder,
        read: (file) => readFileSync(join(installed, file), 'utf8'),
        write(file, text) {
          mkdirSync(dirname(join(folder, file)), { recursive: true })
          writeFileSync(join(folder, file), text)
        },
        run: (...args) => run(folder, args),
        start: (file, env) => startProgram([file], env, folder),
      }
    },
    remove: () => rmSync(scratch, { recursive: true, force: true }),
  }
}

interface PackReport {
  filename: string
  files: { path: string }[]
}

/** The names of the packages of a `node_modules`. */
function packagesIn(modules: string): string[] {
  return readdirSync(modules)
    .filter((name) => !name.startsWith('.'))
    .flatMap((name) =>
      name.startsWith('@') ? readdirSync(join(modules, name)).map((inner) => `${name}/${inner}`) : [name],
    )
}

/** @param isSpare whether a package that is there already stays */
function link(folder: string, modules: string, name: string, isSpare = false): void {
  const path = join(folder, 'node_modules', name)
  if (isSpare && existsSync(path)) return
  mkdirSync(dirname(path), { recursive: true })
  symlinkSync(join(modules, name), path, 'junction')
}

function run(cwd: string, args: string[]): Promise<ProcessResult> {
  return new Promise((resolve) => {
    execFile(process.execPath, args, { cwd, env: plainEnvironment() }, (error, stdout, stderr) => {
      const status = error === null ? 0 : typeof error.code === 'number' ? error.code : 1
      resolve({ status, stdout, stderr })
    })
  })
}

/** Without what the test runner sets for itself: the child has to behave as it would for a user. */
function plainEnvironment(): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _options, NODE_ENV: _env, VITEST: _vitest, ...rest } = process.env
  return rest
}

/** The TypeScript versions that consumers are compiled with. */
export type Compiler = 'typescript5' | 'typescript' | 'typescript7'

/** The command line of a TypeScript compiler of this repository. */
export function compilerOf(name: Compiler): string {
  return join(root, 'node_modules', name, 'bin/tsc')
}
