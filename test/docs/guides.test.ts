import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it, vi } from 'vitest'
import { compile, readPublicTypes } from '../support/compiler.ts'
import { codeIn, deadLinks, readCodeBlocks, readTable } from '../support/markdown.ts'
import { APPLICATION } from './application.ts'

// A compiler is slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const docs = new URL('../../docs/', import.meta.url)
const readPage = (name: string) => readFileSync(new URL(name, docs), 'utf8')

/** Every page written by hand, from the folder of the guides. */
const PAGES = ['../README.md', ...readdirSync(docs).filter((name) => name.endsWith('.md') && !isMade(name))]

function isMade(name: string): boolean {
  return readPage(name).includes('<!-- Made by ')
}

const LANGUAGES = ['ts', 'js', 'sh', 'http', 'json', 'sql', 'yaml']

describe('the code of the guides', () => {
  const blocks = PAGES.flatMap((page) =>
    readCodeBlocks(readPage(page)).map((block) => ({ ...block, page: page.replace(/^.*\/|\.md$/g, '') })),
  )

  it('is of languages that are known here', () => {
    expect(LANGUAGES).toEqual(expect.arrayContaining(blocks.map(({ language }) => language)))
  })

  it('compiles', () => {
    const code = blocks.filter(({ language }) => language === 'ts')
    expect(code.length).toBeGreaterThan(40)
    const files = code.map(({ page, line, text }) => [`test/docs/${page}-line-${line}.ts`, asModule(text)])
    const application = Object.entries(APPLICATION).map(([name, text]) => [`test/docs/${name}`, text])
    expect(compile(Object.fromEntries([...application, ...files]))).toEqual([])
  })
})

/** Each block by itself; readers compile to the files that imports name. */
function asModule(text: string): string {
  return `${text.replaceAll(/(from '\.[^']*)\.js'/g, "$1.ts'")}\nexport {}\n`
}

describe('the guide to serverless functions', () => {
  const guide = readPage('serverless.md')

  it('names options as they are, with their defaults', () => {
    const members = readPublicTypes('latchkey').members('ApiKeysOptions')
    const rows = [...guide.matchAll(/^\| `([\w.]+)` \| `([^`]+)` \|/gm)]
    expect(rows.length).toBeGreaterThanOrEqual(5)
    for (const [, name, value] of rows) {
      expect(members).toContainEqual({ name, defaultText: expect.stringMatching(new RegExp(`^\`?${value}`)) })
    }
  })
})

describe('the guide to stores', () => {
  const guide = readPage('write-a-store.md')
  const blocks = readCodeBlocks(guide)

  it('runs the kit in three lines, imports aside', () => {
    const lines = blocks[0]?.text.split('\n').filter((line) => line !== '' && !line.startsWith('import'))
    expect(lines).toEqual(['storeConformance({ test, assert }, () => myStore())'])
  })

  it('has a section for every method, optional ones as such', () => {
    const methods = readPublicTypes('latchkey').members('KeyStore')
    const sections = [...guide.matchAll(/^## `(\w+)`(.*)$/gm)].map(([, name]) => name)
    expect(sections).toEqual(methods.map(({ name }) => name))
    const optional = [...guide.matchAll(/^## `(\w+)`, optional$/gm)].map(([, name]) => name)
    expect(optional).toEqual([
      'count',
      'forget',
      'recordUsage',
      'swapQuota',
      'swapQuotas',
      'agree',
      'addUsage',
      'readUsage',
      'removeUsage',
    ])
  })
})

describe('the guide to limiters', () => {
  const guide = readPage('write-a-limiter.md')

  it('says what every member is for', () => {
    const members = readPublicTypes('latchkey').members('RateLimiter')
    const listed = readTable(guide, 'member').flatMap(([names = '']) => codeIn(names))
    expect(listed.sort()).toEqual(members.map(({ name }) => name).sort())
  })

  it('names what a limiter may do without', () => {
    const names = readPublicTypes('latchkey/testing').literals('LimiterCapability')
    expect(guide).toContain(`without: [${names.map((name) => `'${name}'`).join(', ')}]`)
  })
})

describe('the guide to refusals', () => {
  it('has a row for each step', () => {
    const steps = readPublicTypes('latchkey').literals('ExplainedStepName')
    const listed = readTable(readPage('why-refused.md'), 'step').flatMap(([name = '']) => codeIn(name))
    expect(listed.sort()).toEqual([...steps].sort())
  })
})

describe('every guide', () => {
  it.each(PAGES)('has links that lead somewhere: %s', (page) => {
    expect(deadLinks(new URL(page, docs))).toEqual([])
  })
})
