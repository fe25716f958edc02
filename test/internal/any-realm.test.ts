import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import * as anyRealm from '../../lib/internal/any-realm.ts'

const { isDate, isError, isNumber, isRegExp, isTypeError, isUint8Array, isValidDate, messageOf } = anyRealm

const KINDS: [check: (value: unknown) => boolean, made: string[]][] = [
  [isDate, ['new Date(0)', 'new Date(NaN)', 'new (class extends Date {})(0)']],
  [isValidDate, ['new Date(0)', 'new (class extends Date {})(0)']],
  [isRegExp, ['/a/', 'new RegExp("a", "g")']],
  [isUint8Array, ['new Uint8Array(1)', 'new (class extends Uint8Array {})(1)']],
  [isNumber, ['1', 'NaN', 'new Number(1)']],
  [isError, ['new Error("a")', 'new TypeError("a")', 'new (class extends RangeError {})("a")']],
  [isTypeError, ['new TypeError("a")']],
]
const OTHERS = ['null', 'undefined', '"a"', '({})', '[]', '(() => {})', 'new Map()', 'Symbol()', '0n']
const everything = [...new Set([...KINDS.flatMap(([, made]) => made), ...OTHERS])]

describe.each(KINDS.map(([check, made]) => [check.name, check, made] as const))(
  '%s',
  (_name, check, made) => {
    it.each([
      ['this realm', (program: string) => new Function(`return ${program}`)()],
      ['another one', (program: string) => runInNewContext(program)],
    ])('knows what is made in %s, and nothing else', (_realm, make) => {
      expect(everything.filter((program) => check(make(program)))).toEqual(made)
    })
  },
)

it('takes no object for a date or an expression because of its prototype', () => {
  expect([isDate(Object.create(Date.prototype)), isRegExp(Object.create(RegExp.prototype))]).toEqual([
    false,
    false,
  ])
})

it('takes no view of other bytes for an Uint8Array', () => {
  const pretender = { [Symbol.toStringTag]: 'Uint8Array' }
  expect([new Uint16Array(1), new DataView(new ArrayBuffer(1)), pretender].some(isUint8Array)).toBe(false)
})

it('reads what is an error for the platform alone, and what an error says', () => {
  const aborted = AbortSignal.abort().reason
  expect(isError(aborted)).toBe(true)
  const said = [aborted, runInNewContext('new Error("a")'), { message: 1 }, null, 'text'].map(messageOf)
  expect(said).toEqual(['This operation was aborted', 'a', '', '', ''])
})
