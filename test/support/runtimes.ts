import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { installPackages } from './consumer-tools.ts'

const { platform, arch } = process

/** Runtimes other than Node: a package that holds the binary for this machine, and how it serves a file on a port. */
const RUNTIMES = {
  Bun: {
    package: `@oven/bun-${platform}-${arch === 'arm64' ? 'aarch64' : arch}`,
    version: '1.4.5',
    binary: 'bin/bun',
    serve: (file: string) => ['run', file],
  },
  Deno: {
    package: `@deno/${platform}-${arch}${platform === 'linux' ? '-glibc' : ''}`,
    version: '2.9.6',
    binary: 'deno',
    serve: (file: string, port: number) => ['serve', '--host', '127.0.0.1', '--port', String(port), file],
  },
} as const

export type RuntimeName = keyof typeof RUNTIMES

export const RUNTIME_NAMES = Object.keys(RUNTIMES) as RuntimeName[]

/** The command that serves a file on a port; Bun takes the port from `PORT`. The runtime is installed when first needed. */
export function serveCommand(name: RuntimeName, file: string, port: number): readonly [string, ...string[]] {
  const runtime = RUNTIMES[name]
  const modules = installPackages({ [runtime.package]: runtime.version })
  const binary = join(modules, runtime.package, runtime.binary)
  if (!existsSync(binary)) throw new Error(`${runtime.package} has no ${runtime.binary}`)
  return [binary, ...runtime.serve(file, port)]
}
