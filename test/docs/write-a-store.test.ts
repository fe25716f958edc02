import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, vi } from 'vitest'
import { compile, readPublicTypes } from '../support/compiler.ts'
import { readCodeBlocks } from '../support/markdown.ts'

// A compiler is slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const root = fileURLToPath(new URL('../../', import.meta.url))
const guide = readFileSync(`${root}docs/write-a-store.md`, 'utf8')
const blocks = readCodeBlocks(guide)

/** The reader's own. */
const MY_STORE = `
import type { KeyStore } from 'latchkey'

export declare function connect(): Promise<{ drop(): Promise<void> }>
export declare function myStore(database?: object): KeyStore
`

describe('the guide to stores', () => {
  it('has code that compiles', () => {
    const files = blocks
      .filter(({ language }) => language === 'ts')
      .map(({ heading, line, text }) => [
        `test/docs/${heading} (line ${line}).ts`,
        text.replace('.js', '.ts'),
      ])
    expect(files.length).toBeGreaterThanOrEqual(5)
    expect(compile({ 'test/docs/my-store.ts': MY_STORE, ...Object.fromEntries(files) })).toEqual([])
  })

  it('is of languages that are known here', () => {
    expect(new Set(blocks.map(({ language }) => language))).toEqual(new Set(['ts', 'sql']))
  })

  it('runs the kit in three lines, imports aside', () => {
    const lines = blocks[0]?.text.split('\n').filter((line) => line !== '' && !line.startsWith('import'))
    expect(lines).toEqual(['storeConformance({ test, assert }, () => myStore())'])
  })

  it('has a section for every method, optional ones as such', () => {
    const methods = readPublicTypes('latchkey').members('KeyStore')
    const sections = [...guide.matchAll(/^## `(\w+)`(.*)$/gm)].map(([, name]) => name)
    expect(sections).toEqual(methods.map(({ name }) => name))
    const optional = [...guide.matchAll(/^## `(\w+)`, optional$/gm)].map(([, name]) => name)
    expect(optional).toEqual(['recordUsage', 'swapQuota', 'swapQuotas'])
  })

  it('has links that lead somewhere, and is linked from the README', () => {
    const targets = [...guide.matchAll(/\]\(([^)]+)\)/g)].map(([, target]) => `${root}docs/${target}`)
    expect(targets.length).toBeGreaterThan(0)
    expect(targets.filter((target) => !existsSync(target))).toEqual([])
    expect(readFileSync(`${root}README.md`, 'utf8')).toContain('(docs/write-a-store.md)')
  })
})
