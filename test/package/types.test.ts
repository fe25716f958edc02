import { afterAll, beforeAll, expect, inject, it } from 'vitest'
import { type PackedPackage, packPackage } from '../support/packed-package.ts'
import { compileTogether } from '../support/typed-programs.ts'

let packed: PackedPackage

beforeAll(() => {
  expect(inject('buildFailure')).toBe('')
  packed = packPackage()
})

afterAll(() => packed?.remove())

// Each program by itself, and by each compiler, is compiled in test/soak.
it('typescript7 compiles every door in one application', async () => {
  expect(await compileTogether(packed, 'typescript7')).toEqual([])
})
