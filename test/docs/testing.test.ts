import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { type CodeBlock, readCodeBlocks } from '../support/markdown.ts'
import { runBlock } from '../support/run-block.ts'

const blocks = readCodeBlocks(readFileSync(new URL('../../docs/testing.md', import.meta.url), 'utf8'))
const [application, ...tests] = blocks as [CodeBlock, ...CodeBlock[]]
const { createApp } = await runBlock(application.text.replace('export ', ''), {}, ['createApp'])

it('has tests in every block but the first', () => {
  expect(tests.filter(({ text }) => !/^it\(/m.test(text))).toEqual([])
  expect(tests).toHaveLength(5)
})

// Each block is the text of a test file, whose tests are run as they are.
describe.each(tests)('the tests at line $line', async ({ text }) => {
  await runBlock(text.replace(/^import .* from '\.\/create-app\.js'\n/m, ''), { createApp })
})
