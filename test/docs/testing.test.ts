import { readFileSync } from 'node:fs'
import { describe, expect, it, vi } from 'vitest'
import { type CodeBlock, readCodeBlocks } from '../support/markdown.ts'
import { runBlock } from '../support/run-block.ts'

const blocks = readCodeBlocks(readFileSync(new URL('../../docs/testing.md', import.meta.url), 'utf8'))
const [jest] = blocks.filter(({ language }) => language === 'js') as [CodeBlock]
const [application, ...tests] = blocks.filter(({ language }) => language === 'ts') as [
  CodeBlock,
  ...CodeBlock[],
]
const { createApp } = await runBlock(application.text.replace('export ', ''), {}, ['createApp'])

it('has tests in every block but the first', () => {
  expect(tests.filter(({ text }) => !/^it\(/m.test(text))).toEqual([])
  expect(tests).toHaveLength(6)
})

// Each block is the text of a test file, whose tests are run as they are.
describe.each(tests)('the tests at line $line', async ({ text }) => {
  await runBlock(text.replace(/^import .* from '\.\/create-app\.js'\n/m, ''), { createApp })
})

it('names for Jest everything that Jest fakes in Node, except Date', async () => {
  const faked = vi.fn()
  const restored = vi.fn()
  await runBlock(jest.text, {
    jest: { useFakeTimers: faked, useRealTimers: restored },
    beforeEach: (run: () => void) => run(),
    afterEach: (run: () => void) => run(),
  })
  expect(restored).toHaveBeenCalledOnce()
  const [[{ doNotFake }]] = faked.mock.calls as [[{ doNotFake: string[] }]]
  const timers = [
    'setTimeout',
    'clearTimeout',
    'setInterval',
    'clearInterval',
    'setImmediate',
    'clearImmediate',
  ]
  expect(doNotFake).toEqual([...timers, 'nextTick', 'queueMicrotask', 'hrtime', 'performance'])
})
