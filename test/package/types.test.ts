import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { type PackedPackage, packPackage } from '../support/packed-package.ts'
import { compileAlone, compileTogether, SINGLE_PROGRAMS } from '../support/typed-programs.ts'

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

describe('a strict application compiled by typescript7', () => {
  it.each(SINGLE_PROGRAMS)('$title', async (program) => {
    expect(await compileAlone(packed, 'typescript7', program)).toEqual([])
  })
})
