import { isDeepStrictEqual } from 'node:util'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { copyData, isSameData } from '../../lib/internal/plain-data.ts'

const DATA = `({ a: [1, 'x', null, true, [undefined]], at: new Date(5), b: { '': { c: [] } }, none: undefined })`

describe('a copy', () => {
  it('is the same data, of the classes of this realm', () => {
    const local = new Function(`return ${DATA}`)()
    const foreign = runInNewContext(DATA)
    expect(isDeepStrictEqual(local, foreign)).toBe(false)
    expect(isDeepStrictEqual(copyData(foreign), local)).toBe(true)
  })

  it('shares nothing with what was copied', () => {
    const given = { list: [{ a: 1 }], at: new Date(5) }
    const copy = copyData(given)
    given.at.setTime(9)
    given.list.push({ a: 2 })
    Object.assign(given.list[0] as object, { a: 3 })
    expect(copy).toEqual({ list: [{ a: 1 }], at: new Date(5) })
  })

  it('keeps a member called __proto__ as one', () => {
    const copy = copyData(JSON.parse('{"__proto__":{"admin":true}}'))
    expect([JSON.stringify(copy), copy.admin]).toEqual(['{"__proto__":{"admin":true}}', undefined])
  })
})

describe('the same data', () => {
  const same = (a: string, b: string) => [
    isSameData(runInNewContext(`(${a})`), runInNewContext(`(${b})`)),
    isSameData(runInNewContext(`(${b})`), runInNewContext(`(${a})`)),
  ]

  it.each([
    [DATA, DATA],
    ['{ a: 1, b: 2 }', '{ b: 2, a: 1 }'],
    ['[]', '[]'],
    ['null', 'null'],
  ])('is %s and %s', (a, b) => expect(same(a, b)).toEqual([true, true]))

  it.each([
    ['{ a: 1 }', '{ a: 2 }'],
    ['{ a: 1 }', '{ a: "1" }'],
    ['{ a: 1 }', '{ a: 1, b: 1 }'],
    ['{ a: undefined }', '{ b: undefined }'],
    ['{ toString: 1 }', '{ a: 1 }'],
    ['{ a: null }', '{ a: {} }'],
    ['[1, 2]', '[2, 1]'],
    ['[1]', '[1, 2]'],
    ['[]', '{}'],
    ['["a"]', '{ 0: "a" }'],
    ['new Date(1)', 'new Date(2)'],
    ['new Date(1)', '1'],
    ['new Date(1)', '{}'],
    ['null', 'undefined'],
  ])('is not %s and %s', (a, b) => expect(same(a, b)).toEqual([false, false]))
})
