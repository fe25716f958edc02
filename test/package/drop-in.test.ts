import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { compilerOf, type PackedPackage, packPackage } from '../support/packed-package.ts'

let packed: PackedPackage

beforeAll(() => {
  expect(inject('buildFailure')).toBe('')
  packed = packPackage()
})

afterAll(() => packed?.remove())

/** Ways in which programs get hold of the strategy of passport-headerapikey; `M` is the name of the module. */
const WAYS: [type: 'module' | 'commonjs', way: string][] = [
  ['module', `import { HeaderAPIKeyStrategy as X } from 'M'`],
  ['module', `import strategies from 'M'; const X = strategies.HeaderAPIKeyStrategy`],
  ['module', `import strategies from 'M'; const X = strategies.default`],
  ['module', `import * as strategies from 'M'; const X = strategies.HeaderAPIKeyStrategy`],
  ['module', `const { HeaderAPIKeyStrategy: X } = await import('M')`],
  ['commonjs', `const { HeaderAPIKeyStrategy: X } = require('M')`],
  ['commonjs', `const X = require('M').default`],
  // What compilers write in the place of a default import.
  ['commonjs', `const it = require('M'); const X = (it && it.__esModule ? it : { default: it }).default`],
]

describe('a program that used passport-headerapikey', () => {
  it.each(WAYS)('finds the strategy by another name of the module alone, as %s: %s', async (type, way) => {
    const consumer = packed.createConsumer(['passport-headerapikey'])
    const use = `
      const strategy = new X({ header: 'Authorization', prefix: 'Api-Key ' }, false, (key, done) => done(null, { key }))
      strategy.success = (user) => console.log(strategy.name, user.key)
      strategy.authenticate({ headers: { authorization: 'Api-Key good' } })`
    for (const module of ['passport-headerapikey', 'latchkey/passport']) {
      const program = way.replace('M', module) + use
      const result = await consumer.run(`--input-type=${type}`, '--eval', program)
      expect(result, module).toEqual({ status: 0, stdout: 'headerapikey good\n', stderr: '' })
    }
  })

  it('finds the class itself as the default export, in ESM', async () => {
    const consumer = packed.createConsumer()
    const program = `import X from 'latchkey/passport'; console.log(new X(null, false, () => {}).name)`
    const result = await consumer.run('--input-type=module', '--eval', program)
    expect(result).toEqual({ status: 0, stdout: 'headerapikey\n', stderr: '' })
  })

  it.each(['typescript', 'typescript7'] as const)('is compiled by %s, strictly', async (compiler) => {
    const program = `
      import Default, { BadRequestError, HeaderAPIKeyStrategy } from 'latchkey/passport'
      import passport from 'passport'
      for (const Strategy of [Default, HeaderAPIKeyStrategy]) {
        passport.use(new Strategy({ header: 'Authorization', prefix: 'Api-Key ' }, true, (apiKey, done, req) => {
          if (apiKey === '') return done(new BadRequestError('no key'))
          done(null, { apiKey, path: req?.path }, { message: 'welcome' })
        }))
      }
      export class Own extends HeaderAPIKeyStrategy {
        constructor(private readonly settings: { key: string }) {
          super({ header: 'X-Key' }, false, (apiKey, done) => done(null, apiKey === this.settings.key))
        }
      }
      // @ts-expect-error options of another strategy
      new HeaderAPIKeyStrategy({ keys: {} }, false, () => {})
      // @ts-expect-error there has to be somebody who verifies
      new HeaderAPIKeyStrategy({}, false)`
    const consumer = packed.createConsumer(['@types/node', '@types/express', '@types/passport'])
    const compilerOptions = {
      target: 'es2022',
      module: 'nodenext',
      strict: true,
      exactOptionalPropertyTypes: true,
      esModuleInterop: true,
      skipLibCheck: false,
      noEmit: true,
      types: ['node'],
    }
    consumer.write('esm.mts', program)
    consumer.write('cjs.cts', program)
    consumer.write('tsconfig.json', JSON.stringify({ compilerOptions, files: ['esm.mts', 'cjs.cts'] }))
    const result = await consumer.run(compilerOf(compiler), '--project', 'tsconfig.json', '--pretty', 'false')
    expect(result.stdout + result.stderr).toBe('')
  })
})
