import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { BARE, INVALID } from '../support/challenges.ts'
import { NEST_11 } from '../support/consumer-tools.ts'
import { isLong } from '../support/long-run.ts'
import { readCodeBlocks, readTable } from '../support/markdown.ts'
import { type Consumer, compilerOf, type PackedPackage, packPackage } from '../support/packed-package.ts'

const examples = fileURLToPath(new URL('../../examples/', import.meta.url))
const example = `${examples}nest/`
const sources = readdirSync(example).filter((file) => file.endsWith('.ts'))
/** What the rest of its program has from another example; nobody copies that. */
const borrowed = ['curl-lines.ts', 'users.ts']

/** What a Nest application has, beside the package itself. */
const PACKAGES = [
  ...['common', 'core', 'passport', 'platform-express'].map((name) => `@nestjs/${name}`),
  ...['node', 'express', 'express-session', 'passport'].map((name) => `@types/${name}`),
  ...['express', 'express-session', 'passport', 'reflect-metadata', 'rxjs'],
]

const COMPILER_OPTIONS = {
  target: 'es2022',
  module: 'nodenext',
  rewriteRelativeImportExtensions: true,
  experimentalDecorators: true,
  emitDecoratorMetadata: true,
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  isolatedModules: true,
  esModuleInterop: true,
  skipLibCheck: false,
  types: ['node'],
  rootDir: '.',
  outDir: 'out',
}

/** The first test that needs them installs the packages of other releases. */
const INSTALL_MS = 300_000

let packed: PackedPackage

beforeAll(() => {
  expect(inject('buildFailure')).toBe('')
  packed = packPackage()
})

afterAll(() => packed?.remove())

describe.each([
  ['module', 'Nest 12', []],
  ['commonjs', 'Nest 12', []],
  ['commonjs', 'Nest 11', Object.keys(NEST_11) as (keyof typeof NEST_11)[]],
] as const)('the Nest example as an application of type %s, on %s', (type, nest, installed) => {
  let consumer: Consumer

  beforeAll(() => {
    const files = sources.map((name) => `nest/${name}`)
    const others = new Set<string>(installed)
    consumer = packed.createConsumer(
      PACKAGES.filter((name) => !others.has(name)),
      installed,
    )
    consumer.write('package.json', JSON.stringify({ type }))
    consumer.write('tsconfig.json', JSON.stringify({ compilerOptions: COMPILER_OPTIONS, files }))
    consumer.write('ask.mjs', ASK)
    for (const file of [...files, ...borrowed.map((name) => `express/${name}`)]) {
      consumer.write(file, readFileSync(`${examples}${file}`, 'utf8'))
    }
  }, INSTALL_MS)

  it('has that release', async () => {
    const { stdout } = await consumer.run('-p', "'Nest ' + require('@nestjs/core/package.json').version")
    expect(stdout.split('.')[0]).toBe(nest)
  })

  it.each(
    isLong
      ? (['typescript', 'typescript7'] as const)
      : ([type === 'module' ? 'typescript' : 'typescript7'] as const),
  )('is compiled by %s and runs without it', async (compiler) => {
    const compiled = await consumer.run(compilerOf(compiler), '--project', '.', '--pretty', 'false')
    expect(compiled).toEqual({ status: 0, stdout: '', stderr: '' })
    const { status, stdout, stderr } = await consumer.run('ask.mjs')
    expect({ status, stderr: withoutWarning(stderr) }).toEqual({ status: 0, stderr: '' })
    expect(JSON.parse(stdout)).toEqual([
      ['GET /projects', 200, null, null],
      ['GET /projects', 401, 'missing_key', BARE],
      ['POST /projects', 403, 'insufficient_permissions', null],
      ['GET /me', 200, null, null],
      ['GET /key', 200, null, null],
      ['GET /settings', 403, 'session_required', null],
      ['GET /me', 401, 'invalid_key', INVALID],
    ])
  })
})

describe.each(['module', 'commonjs'] as const)('what to copy, in an application of type %s', (type) => {
  const readme = readFileSync(`${example}README.md`, 'utf8')
  const blocks = readCodeBlocks(readme).filter(({ heading }) => heading === 'Copying it')
  const textOf = (language: string) => blocks.find((block) => block.language === language)?.text ?? ''
  const told: Record<string, unknown> = JSON.parse(textOf('json'))
  const others = { target: 'es2022', strict: true, types: ['node'], rootDir: '.', outDir: 'out' }
  const { rewriteRelativeImportExtensions, ...withoutRewriting } = told

  it('needs to be told to rewrite imports', () => expect(rewriteRelativeImportExtensions).toBe(true))

  it.each([
    ['typescript5', 'as it is', told],
    ['typescript7', 'as it is', told],
    ['typescript7', 'with .js in its imports', withoutRewriting],
  ] as const)('is compiled by %s and loaded, %s', async (compiler, _which, options) => {
    const consumer = packed.createConsumer(PACKAGES)
    const copied = filesToCopy(readme)
    const files = [...copied, 'users.ts']
    const compilerOptions = { ...others, ...options }
    consumer.write('package.json', JSON.stringify({ type }))
    consumer.write('tsconfig.json', JSON.stringify({ compilerOptions, files }))
    consumer.write('users.ts', textOf('ts'))
    for (const file of copied) {
      const source = readFileSync(`${example}${file}`, 'utf8')
      consumer.write(file, options === told ? source : source.replaceAll(".ts'", ".js'"))
    }
    consumer.write('load.mjs', files.map((file) => `import './out/${file.replace(/ts$/, 'js')}'\n`).join(''))
    const compiled = await consumer.run(compilerOf(compiler), '--project', '.', '--pretty', 'false')
    expect(compiled).toEqual({ status: 0, stdout: '', stderr: '' })
    const { status, stderr } = await consumer.run('load.mjs')
    expect({ status, stderr: withoutWarning(stderr) }).toEqual({ status: 0, stderr: '' })
  })
})

/** The files that the README's table names above `app.module.ts`. */
function filesToCopy(readme: string): string[] {
  const rows = readTable(readme, 'file').map(([cell = '']) => [...cell.matchAll(/\]\(([^)]+)\)/g)])
  const files = rows.map((links) => links.map(([, file]) => file as string))
  const end = files.findIndex((row) => row.includes('app.module.ts'))
  expect(end).toBeGreaterThan(5)
  return files.slice(0, end).flat()
}

/** Runs the compiled program in this process, asks it over HTTP and prints what it has answered. */
const ASK = `
const printed = new Promise((resolve) => {
  let output = ''
  console.log = (text = '') => {
    output += text + '\\n'
    if (text.includes('n=[1-8]')) resolve(output)
  }
})
process.env.PORT = '0'
await import('./out/nest/server.js')
const [, url, key] = /curl -i (http:\\S+)\\/projects -H 'X-Api-Key: ([^']+)'/.exec(await printed)
const answers = []
for (const [line, given] of [
  ['GET /projects', key],
  ['GET /projects'],
  ['POST /projects', key],
  ['GET /me', key],
  ['GET /key', key],
  ['GET /settings', key],
  ['GET /me', 'junk'],
]) {
  const [method, path] = line.split(' ')
  const answer = await fetch(url + path, { method, headers: given ? { 'X-Api-Key': given } : {} })
  const { code = null } = await answer.json()
  answers.push([line, answer.status, code, answer.headers.get('WWW-Authenticate')])
}
process.stdout.write(JSON.stringify(answers))
process.kill(process.pid, 'SIGTERM')
`

/** Some releases of Node warn of `require()` of ES modules, which Nest 12 is made of. */
function withoutWarning(stderr: string): string {
  return stderr.replace(/^.*(?:ExperimentalWarning: .*ES Module|--trace-warnings).*\n/gm, '')
}
