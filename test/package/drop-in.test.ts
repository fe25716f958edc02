import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { type PackedPackage, packPackage } from '../support/packed-package.ts'

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
  it('finds the strategy by another name of the module alone, whatever way it takes', async () => {
    const consumer = packed.createConsumer(['passport-headerapikey'])
    const use = (name: string) => `
      const strategy = new X({ header: 'Authorization', prefix: 'Api-Key ' }, false, (key, done) => done(null, { key }))
      strategy.success = (user) => console.log('${name}', strategy.name, user.key)
      strategy.authenticate({ headers: { authorization: 'Api-Key good' } })`
    const files = ['passport-headerapikey', 'latchkey/passport'].flatMap((module, m) =>
      WAYS.map(([type, way], i) => {
        const file = `way-${m}-${i}.${type === 'module' ? 'mjs' : 'cjs'}`
        consumer.write(file, way.replace('M', module) + use(file))
        return file
      }),
    )
    consumer.write('all.mjs', files.map((file) => `await import('./${file}')\n`).join(''))
    const printed = files.map((file) => `${file} headerapikey good\n`).join('')
    expect(await consumer.run('all.mjs')).toEqual({ status: 0, stdout: printed, stderr: '' })
  })

  it('finds the class itself as the default export, in ESM', async () => {
    const consumer = packed.createConsumer()
    const program = `import X from 'latchkey/passport'; console.log(new X(null, false, () => {}).name)`
    const result = await consumer.run('--input-type=module', '--eval', program)
    expect(result).toEqual({ status: 0, stdout: 'headerapikey\n', stderr: '' })
  })
})
