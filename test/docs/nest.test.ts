import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { readCodeBlocks } from '../support/markdown.ts'

const page = new URL('../../docs/nest.md', import.meta.url)
const example = new URL('../../examples/nest/', import.meta.url)
const text = readFileSync(page, 'utf8')
const blocks = readCodeBlocks(text)

it('shows only code of the example, which is compiled and run', () => {
  expect(new Set(blocks.map(({ language }) => language))).toEqual(new Set(['ts', 'sh']))
  const files = readdirSync(example).filter((file) => file.endsWith('.ts'))
  const sources = files.map((file) => readFileSync(new URL(file, example), 'utf8'))
  // A whole file is none of the example's: guides.test.ts compiles it.
  const code = blocks.filter(({ language, text }) => language === 'ts' && !text.startsWith('import '))
  expect(code.length).toBeGreaterThan(5)
  const foreign = code.filter((block) => !sources.some((source) => source.includes(block.text)))
  expect(foreign.map(({ line }) => line)).toEqual([])
})

it('names files that exist, and is linked from the README', () => {
  const targets = [...text.matchAll(/\]\(([^)]+)\)/g)].map(([, path]) => path as string)
  expect(targets.length).toBeGreaterThan(0)
  expect(targets.filter((path) => !existsSync(new URL(path, page)))).toEqual([])
  expect(readFileSync(new URL('../README.md', page), 'utf8')).toContain('(docs/nest.md)')
})
