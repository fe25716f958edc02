import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, vi } from 'vitest'
import { compile, readPublicTypes } from '../support/compiler.ts'
import { readCodeBlocks } from '../support/markdown.ts'

// A compiler is slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const root = fileURLToPath(new URL('../../', import.meta.url))
const guide = readFileSync(`${root}docs/serverless.md`, 'utf8')
const blocks = readCodeBlocks(guide)

/** The reader's own. */
const FILES = {
  'test/docs/keys.ts': `import type { ApiKeys } from 'latchkey'\nexport declare const keys: ApiKeys`,
  'test/docs/run-app.ts': 'export declare function runApp(event: object, context: object): Promise<object>',
  'test/docs/platform.ts': 'export declare function waitUntil(work: Promise<unknown>): void',
  'test/docs/server.ts': `import type { Server } from 'node:http'\nexport declare const server: Server`,
}

describe('the guide to serverless functions', () => {
  it('has code that compiles', () => {
    const files = blocks.map(({ heading, line, text }) => [
      `test/docs/${heading.replaceAll('/', ' ')} (line ${line}).ts`,
      text.replaceAll(".js'", ".ts'"),
    ])
    expect(files.length).toBeGreaterThanOrEqual(4)
    expect(new Set(blocks.map(({ language }) => language))).toEqual(new Set(['ts']))
    expect(compile({ ...FILES, ...Object.fromEntries(files) })).toEqual([])
  })

  it('names options as they are, with their defaults', () => {
    const members = readPublicTypes('latchkey').members('ApiKeysOptions')
    const rows = [...guide.matchAll(/^\| `([\w.]+)` \| `([^`]+)` \|/gm)]
    expect(rows.length).toBeGreaterThanOrEqual(5)
    for (const [, name, value] of rows) {
      expect(members).toContainEqual({ name, defaultText: expect.stringMatching(new RegExp(`^\`?${value}`)) })
    }
  })

  it('has links that lead somewhere, and is linked from the README', () => {
    const targets = [...guide.matchAll(/\]\(([^)]+)\)/g)].map(([, target]) => target as string)
    const files = targets.filter((target) => !target.startsWith('https://'))
    expect(files.filter((target) => !existsSync(`${root}docs/${target}`))).toEqual([])
    expect(readFileSync(`${root}README.md`, 'utf8')).toContain('(docs/serverless.md)')
  })
})
