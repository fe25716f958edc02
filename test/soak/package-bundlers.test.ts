import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { type Consumer, type PackedPackage, packPackage } from '../support/packed-package.ts'

let packed: PackedPackage

beforeAll(() => {
  expect(inject('buildFailure')).toBe('')
  packed = packPackage()
})

afterAll(() => packed?.remove())

type Kind = 'esm' | 'cjs'

const KINDS: readonly Kind[] = ['esm', 'cjs']
const fileOf = (kind: Kind) => (kind === 'esm' ? 'app.mjs' : 'app.cjs')

const USES = {
  postgres: `typeof postgresStore(new Pool()).find`,
  sqlite: `flow(sqliteStore('keys.db'))`,
  bcrypt: `flow(memoryStore(), { digest: { scheme: 'bcrypt', cost: 4 } })`,
}

/** A program that prints the outcome of each use, on a Node that has no driver of its own. */
function programOf(kind: Kind, uses: readonly (keyof typeof USES)[]): string {
  const names = {
    latchkey: 'createApiKeys, memoryRateLimiter, memoryStore',
    'latchkey/sql': 'migrate, postgresStore, sqliteStore',
    ...(uses.includes('postgres') && { pg: 'Pool' }),
  }
  const imports = Object.entries(names).map(([module, members]) =>
    kind === 'esm' ? `import { ${members} } from '${module}'` : `const { ${members} } = require('${module}')`,
  )
  return `${imports.join('\n')}
    process.getBuiltinModule = () => undefined
    const flow = async (store, options) => {
      if (!options) await migrate(store)
      const keys = createApiKeys({ store, rateLimiter: memoryRateLimiter(), prefix: 'acme', onEvent() {}, ...options })
      const { key } = await keys.issue({ owner: { type: 'user', id: 'u_1' }, name: 'CI' })
      return (await keys.verify(key)).ok
    }
    const failure = (error) => [error.message, error.cause?.message].join(': ')
    Promise.all([${uses.map((use) => `(async () => ${USES[use]})().catch(failure)`)}])
      .then((outcomes) => console.log(JSON.stringify(outcomes)))`
}

/** Each bundles `entry` into `out`, as an application does that names nothing as external, and tells what went wrong. */
const BUNDLERS = {
  esbuild: `
    const { build } = require('esbuild')
    const bundle = (entry, out) => build({
      entryPoints: [entry], outfile: out, bundle: true, platform: 'node', logLevel: 'silent',
    }).then(() => [], ({ errors }) => errors.map(({ text }) => text))`,
  rollup: `
    const { rollup } = require('rollup')
    const commonjs = require('@rollup/plugin-commonjs')
    const { nodeResolve } = require('@rollup/plugin-node-resolve')
    const bundle = async (entry, out) => {
      const plugins = [commonjs(), nodeResolve({ preferBuiltins: true }), {
        name: 'json', transform: (text, id) => (id.endsWith('.json') ? 'export default ' + text : null),
      }]
      const made = await rollup({ input: entry, plugins, onwarn() {}, treeshake: false })
      await made.write({ file: out, format: 'cjs', inlineDynamicImports: true })
      return []
    }`,
  webpack: `
    const webpack = require('webpack')
    const { dirname, basename, resolve } = require('node:path')
    const bundle = (entry, out) => new Promise((done) => webpack({
      entry: resolve(entry), target: 'node20', mode: 'none', context: __dirname,
      output: { path: resolve(dirname(out)), filename: basename(out) },
    }, (error, stats) => done(error ? [error.message] : stats.toJson().errors.map(({ message }) => message))))`,
}

async function bundle(consumer: Consumer, bundler: keyof typeof BUNDLERS, entry: string, out: string) {
  consumer.write(
    'bundle.cjs',
    `${BUNDLERS[bundler]}
     bundle(${JSON.stringify(entry)}, ${JSON.stringify(out)})
       .catch((error) => [error.message])
       .then((problems) => console.log(JSON.stringify(problems)))`,
  )
  return printed(await consumer.run('bundle.cjs'))
}

function printed({ status, stdout, stderr }: { status: number; stdout: string; stderr: string }): unknown {
  expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: '' })
  return JSON.parse(stdout)
}

/** Takes away everything that was installed before the program begins. */
const ALONE = `require('node:fs').rmSync('node_modules', { recursive: true });`

describe.each(Object.keys(BUNDLERS) as (keyof typeof BUNDLERS)[])('%s', (bundler) => {
  const tools = {
    esbuild: ['esbuild'],
    rollup: ['rollup', '@rollup/plugin-commonjs', '@rollup/plugin-node-resolve'],
    webpack: ['webpack'],
  } as const

  it.each(KINDS)('bundles an application as %s that has PostgreSQL alone', async (kind) => {
    const consumer = packed.createConsumer(['pg'], tools[bundler])
    // The modules have every door in the bundle, but those that are made of a peer's classes.
    const names = packed.doors.filter((door) => kind === 'esm' && !/\/(?:nest|opentelemetry)$/.test(door))
    const doors = names.map((door, i) => `import * as door${i} from '${door}'`)
    const opened = doors.map((_door, i) => `if (Object.keys(door${i}).length === 0) throw new Error('${i}')`)
    const program = programOf(kind, ['postgres', 'sqlite', 'bcrypt'])
    consumer.write(fileOf(kind), [...doors, program, ...opened].join('\n'))
    expect(await bundle(consumer, bundler, fileOf(kind), 'out/app.cjs')).toEqual([])
    // Nothing is missing until it is needed, and then there is a word about it.
    const outcomes = printed(await consumer.run('--eval', `${ALONE} require('./out/app.cjs')`))
    expect(outcomes).toEqual([
      'function',
      expect.stringMatching(/found no SQLite driver: .*install better-sqlite3 or libsql/),
      expect.stringContaining('npm install bcrypt'),
    ])
  })
})

describe('an application that is not bundled', () => {
  it.each(KINDS)('finds the drivers that it has, as %s', async (kind) => {
    const consumer = packed.createConsumer(['libsql', 'bcrypt'])
    consumer.write(fileOf(kind), programOf(kind, ['sqlite', 'bcrypt']))
    expect(printed(await consumer.run(fileOf(kind)))).toEqual([true, true])
  })

  it.each(KINDS)('prefers better-sqlite3, and says that it has no bcrypt, as %s', async (kind) => {
    const consumer = packed.createConsumer(['libsql'])
    // The real one takes minutes to build.
    const driver = `module.exports = class { constructor(file) { throw new Error('better-sqlite3 opens ' + file) } }`
    consumer.write('node_modules/better-sqlite3/index.js', driver)
    consumer.write(fileOf(kind), programOf(kind, ['sqlite', 'bcrypt']))
    expect(printed(await consumer.run(fileOf(kind)))).toEqual([
      expect.stringContaining('better-sqlite3 opens keys.db'),
      expect.stringContaining('npm install bcrypt'),
    ])
  })
})

describe('a bundler that does not read "exports"', () => {
  it('finds every door in CommonJS and in ES modules', async () => {
    const consumer = packed.createConsumer([], ['webpack'])
    const doors = JSON.stringify(packed.doors)
    consumer.write(
      'resolve.cjs',
      `const webpack = require('webpack')
       const resolved = (door, mainFields) => new Promise((done) => {
         const { resolverFactory } = webpack({ entry: './none' })
         const resolver = resolverFactory.get('normal', { exportsFields: [], mainFields, extensions: ['.js'] })
         resolver.resolve({}, __dirname, door, {}, (error, file) => done(error ? error.message : file))
       })
       const fields = [['main'], ['module', 'main']]
       Promise.all(${doors}.flatMap((door) => fields.map((names) => resolved(door, names))))
         .then((files) => console.log(JSON.stringify(files.map((file) => file.split('node_modules/')[1]))))`,
    )
    const files = packed.doors.flatMap((door) => {
      const name = door === 'latchkey' ? 'index' : door.slice('latchkey/'.length)
      return [`latchkey/dist/${name}.cjs`, `latchkey/dist/${name}.mjs`]
    })
    expect(printed(await consumer.run('resolve.cjs'))).toEqual(files)
  })
})
