import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { isLong } from '../support/long-run.ts'
import { type PackedPackage, packPackage } from '../support/packed-package.ts'
import {
  compileAlone,
  compileTogether,
  complaintsOf,
  EXPRESS,
  SINGLE_PROGRAMS,
  STRICT,
  TYPED_PROGRAMS,
} from '../support/typed-programs.ts'

let packed: PackedPackage

beforeAll(() => {
  expect(inject('buildFailure')).toBe('')
  packed = packPackage()
})

afterAll(() => packed?.remove())

describe('a strict application compiled by typescript7', () => {
  it.each(TYPED_PROGRAMS)('$title', async (program) => {
    expect(await compileAlone(packed, 'typescript7', program)).toEqual([])
  })
})

describe.each(['typescript5', 'typescript'] as const)('applications compiled by %s', (compiler) => {
  it('have every door in one program', async () => {
    expect(await compileTogether(packed, compiler)).toEqual([])
  })

  // Each by itself is what the long run is for.
  it.each(isLong ? TYPED_PROGRAMS : SINGLE_PROGRAMS.slice(0, 1))('$title', async (program) => {
    expect(await compileAlone(packed, compiler, program)).toEqual([])
  })
})

/** What Nest projects and Express starters had for years; TypeScript 7 has left it behind. */
const CLASSIC = [
  ['typescript5', 'by default', {}],
  ['typescript', 'on request', { moduleResolution: 'node10', ignoreDeprecations: '6.0' }],
] as const

describe.each(CLASSIC)('an application of "module": "commonjs" compiled by %s', (compiler, how, options) => {
  it(`finds every door and its types, resolved classically ${how}, and runs`, async () => {
    const consumer = packed.createConsumer([
      ...['@types/node', '@types/express', '@types/koa'],
      ...['express', 'fastify', '@nestjs/common', '@nestjs/core', 'reflect-metadata', 'rxjs'],
      '@opentelemetry/api',
    ])
    const doors = packed.doors.map((door, i) => `import * as door${i} from '${door}'`)
    const names = packed.doors.map((_door, i) => `Object.keys(door${i}).length > 0`)
    consumer.write('app.ts', `${doors.join('\n')}\nconsole.log(JSON.stringify([${names}]))\n${EXPRESS}`)
    const compilerOptions = { ...STRICT, noEmit: false, outDir: 'out', module: 'commonjs', ...options }
    consumer.write('tsconfig.json', JSON.stringify({ compilerOptions, files: ['app.ts'] }))
    expect(await complaintsOf(compiler, consumer)).toEqual([])
    const { status, stdout, stderr } = await consumer.run('out/app.js')
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(JSON.parse(stdout)).toEqual(packed.doors.map(() => true))
  })
})
