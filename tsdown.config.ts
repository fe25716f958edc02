import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { defineConfig } from 'tsdown'

// One entry for each door in package.json "exports".
export const doors = {
  index: 'lib/index.ts',
  passport: 'lib/passport/index.ts',
  express: 'lib/express/index.ts',
  koa: 'lib/koa/index.ts',
  nest: 'lib/nest/index.ts',
  fastify: 'lib/fastify/index.ts',
  fetch: 'lib/fetch/index.ts',
  mcp: 'lib/mcp/index.ts',
  websocket: 'lib/websocket/index.ts',
  opentelemetry: 'lib/telemetry/index.ts',
  redis: 'lib/redis.ts',
  testing: 'lib/testing/index.ts',
  sql: 'lib/sql.ts',
  management: 'lib/management/index.ts',
  'management/express': 'lib/management/express.ts',
  'management/koa': 'lib/management/koa.ts',
  'management/nest': 'lib/management/nest.ts',
  'management/fetch': 'lib/management/fetch.ts',
  cli: 'lib/cli/index.ts',
  client: 'lib/client/index.ts',
  remote: 'lib/remote/index.ts',
  import: 'lib/import/index.ts',
}

export default defineConfig({
  entry: { ...doors, bin: 'lib/cli/bin.ts' },
  format: ['esm', 'cjs'],
  platform: 'node',
  target: 'node20.19',
  // tsdown would rewrite "exports" by itself and open doors nobody asked for.
  exports: false,
  sourcemap: false,
  // Every type or module that is neither ours nor a declared dependency would be copied into dist.
  deps: { onlyBundle: [] },
  dts: { sourcemap: false },
  outputOptions: {
    codeSplitting: {
      groups: [
        {
          name: 'base',
          test: sourceIn(/\/lib\/(errors|internal\/(?!base62)|core\/keys\/(bounds|record)\.)/),
        },
        {
          name: 'core',
          test: sourceIn(
            /\/lib\/(core|http\/(?!read-body)|internal|rate-limits\/(memory|ledger|limit-answers))/,
          ),
        },
      ],
    },
  },
  // Both formats are shipped on purpose.
  checks: { legacyCjs: false },
  plugins: [{ name: 'require-in-commonjs', renderChunk: requireInCommonJs }],
  hooks: {
    'build:done': () => {
      writeFolders(Object.keys(doors))
      keepProgramOnly()
    },
  },
})

/**
 * What every door needs goes into two files: opening twenty small ones takes longer than all that is in them. The client is made
 * for browsers too and needs the first file only. What reads bodies loads a package of others. Types are left as they come.
 */
function sourceIn(paths: RegExp): (id: string) => boolean {
  return (id) => paths.test(id) && !id.endsWith('.d.ts')
}

/**
 * Jest runs CommonJS where `import()` fails. `dynamicImportInCjs: false` would do the same inside a function of its own, where
 * bundlers do not see that a `try` stands around it.
 */
function requireInCommonJs(code: string, _chunk: unknown, { format }: { format: string }): string {
  return format === 'cjs' ? code.replace(/\bawait import\((?=")/g, 'require(') : code
}

/** Bundlers that do not read "exports" look for a folder that is called like the door. */
function writeFolders(names: readonly string[]): void {
  for (const door of names.filter((name) => name !== 'index')) {
    const dist = `${'../'.repeat(door.split('/').length)}dist`
    const main = { main: `${dist}/${door}.cjs`, module: `${dist}/${door}.mjs` }
    mkdirSync(door, { recursive: true })
    writeFileSync(`${door}/package.json`, `${JSON.stringify(main, null, 2)}\n`)
  }
}

/** The command is a program: nobody imports it, so that it needs neither CommonJS nor types. */
function keepProgramOnly(): void {
  for (const file of ['bin.cjs', 'bin.d.cts', 'bin.d.mts']) rmSync(`dist/${file}`, { force: true })
}
