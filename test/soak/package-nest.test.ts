import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { BARE, INVALID } from '../support/challenges.ts'
import { installLocked } from '../support/consumer-tools.ts'
import { isLong } from '../support/long-run.ts'
import { type Consumer, compilerOf, type PackedPackage, packPackage } from '../support/packed-package.ts'

const here = fileURLToPath(new URL('.', import.meta.url))

const COMPILER_OPTIONS = {
  target: 'es2022',
  module: 'nodenext',
  experimentalDecorators: true,
  emitDecoratorMetadata: true,
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  isolatedModules: true,
  esModuleInterop: true,
  // The declarations of Nest and Fastify do not pass in every release.
  skipLibCheck: true,
  types: ['node'],
  outDir: 'out',
}

/** The first test that needs them installs the packages of a release. */
const INSTALL_MS = 300_000

const LOGIN_OR_KEY = `Session realm="Users", ${BARE}`

/** The same on every release and platform. */
const ANSWERS = [
  ['GET /projects', 200, 'key,user,by', 'r=4'],
  ['GET /projects', 401, 'missing_key', BARE],
  ['POST /projects', 403, 'insufficient_permissions', ''],
  ['GET /projects/1', 200, 'project', 'r=3'],
  ['GET /projects/2', 403, 'insufficient_permissions', ''],
  ['GET /unsaid', 401, 'missing_key', BARE],
  ['GET /unsaid', 200, 'let', 'r=2'],
  ['GET /public', 200, 'let', ''],
  ['GET /settings', 403, 'session_required', ''],
  ['GET /me', 200, 'user', 'r=1'],
  ['GET /me', 401, 'authentication_required', LOGIN_OR_KEY],
  ['GET /passport', 200, 'id', expect.stringMatching(/^(?:r=0)?$/)],
  ['GET /passport', 401, 'invalid_key', INVALID],
  ['GET /api-keys', 200, 'apiKeys', ''],
  ['GET /api-keys/self', 429, 'rate_limited', 'r=0'],
  ['GET /api-keys', 401, 'authentication_required', 'Session realm="Users"'],
  ['GET /unsaid', 429, 'rate_limited', 'r=0'],
  ['GET /nowhere', 404, expect.any(String), ''],
]

let packed: PackedPackage

beforeAll(() => {
  expect(inject('buildFailure')).toBe('')
  packed = packPackage()
})

afterAll(() => packed?.remove())

describe.each([
  ['10', 'module'],
  ['10', 'commonjs'],
  ['11', 'module'],
  ['11', 'commonjs'],
  ['12', 'module'],
  ['12', 'commonjs'],
] as const)('on Nest %s, an application of type %s', (release, type) => {
  let consumer: Consumer

  beforeAll(() => {
    const installed = installLocked(`${here}nest-${release}`)
    consumer = packed.createConsumer(['@types/node'], [], installed)
    consumer.write('package.json', JSON.stringify({ type }))
    consumer.write('tsconfig.json', JSON.stringify({ compilerOptions: COMPILER_OPTIONS, files: ['app.ts'] }))
    consumer.write('app.ts', readFileSync(`${here}nest-app/app.ts`, 'utf8'))
  }, INSTALL_MS)

  it('has that release', async () => {
    const { stdout } = await consumer.run('-p', "require('@nestjs/core/package.json').version")
    expect(stdout.split('.')[0]).toBe(release)
  })

  it.each(
    isLong
      ? (['typescript', 'typescript7'] as const)
      : ([type === 'module' ? 'typescript' : 'typescript7'] as const),
  )('is compiled by %s without casts, and answers the same on Express and Fastify', async (compiler) => {
    const compiled = await consumer.run(compilerOf(compiler), '--project', '.', '--pretty', 'false')
    expect(compiled).toEqual({ status: 0, stdout: '', stderr: '' })
    const { status, stdout, stderr } = await consumer.run('out/app.js')
    expect({ status, stderr: withoutWarning(stderr) }).toEqual({ status: 0, stderr: '' })
    const { express, fastify, mistakes } = JSON.parse(stdout)
    expect(express).toEqual(ANSWERS)
    expect(fastify).toEqual(ANSWERS)
    expect(mistakes).toEqual([
      expect.stringContaining('import LatchkeyModule.forRoot({ keys })'),
      expect.stringContaining('LatchkeyModule is imported twice'),
      expect.stringContaining('request-scoped'),
      expect.stringContaining('add LatchkeyModule.forRoot({ keys })'),
    ])
  })
})

/** Some releases of Node warn of `require()` of ES modules, which Nest 12 is made of. */
function withoutWarning(stderr: string): string {
  return stderr.replace(/^.*(?:ExperimentalWarning: .*ES Module|--trace-warnings).*\n/gm, '')
}
