import { existsSync, readFileSync } from 'node:fs'
import { describe, expect, it, vi } from 'vitest'
import { compile, readPublicTypes } from '../support/compiler.ts'
import { readCodeBlocks } from '../support/markdown.ts'

// A compiler is slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const docs = new URL('../../docs/', import.meta.url)
const readPage = (name: string) => readFileSync(new URL(name, docs), 'utf8')

interface Page {
  /** From the folder of the guides. */
  readonly file: string
  /** The languages that its blocks of code are written in. */
  readonly languages: readonly string[]
  readonly leastBlocks: number
  /** What its code takes from the application that it is part of: globals, or files of the reader's. */
  readonly application: Readonly<Record<string, string>>
}

const PAGES: readonly Page[] = [
  {
    file: '../README.md',
    languages: ['ts', 'sh', 'http'],
    leastBlocks: 6,
    application: {
      'application.ts': `
import type { Express, RequestHandler } from 'express'
import type { ApiKeys, KeyStore, Owner } from 'latchkey'
import type { BetterAuthRow } from 'latchkey/import'

declare global {
  const app: Express
  const keys: ApiKeys
  const users: { find(id: string): { id: string } | null; isActive(id: string): boolean }
  const list: RequestHandler
  const create: RequestHandler
  const secret: string
  const pepper: string
  const exportAll: () => Promise<boolean>
  const store: KeyStore
  const yourStore: () => KeyStore
  const rows: AsyncIterable<BetterAuthRow>
  const owner: Owner
  const id: string
  const key: string
}
`,
    },
  },
  {
    file: 'headers.md',
    languages: ['ts'],
    leastBlocks: 2,
    application: {
      'application.ts': `
import type { Express } from 'express'
import type Koa from 'koa'
import type { ApiKeys } from 'latchkey'

declare global {
  const app: Express
  const koa: Koa
  const keys: ApiKeys
}
`,
    },
  },
  {
    file: 'migrate.md',
    languages: ['ts'],
    leastBlocks: 9,
    application: {
      'application.ts': `
import type { Express, RequestHandler } from 'express'
import type { ApiKeys, ApiKeysOptions, KeyStore, RateLimiter } from 'latchkey'
import type { Pool } from 'pg'

declare global {
  const app: Express
  const keys: ApiKeys
  const store: KeyStore
  const rateLimiter: RateLimiter
  const pool: Pool
  const list: RequestHandler
  const users: {
    find(id: string): Promise<{ id: string } | null>
    findByKey(apiKey: string, path?: string): Promise<{ id: string } | null>
  }
  const createApiKeys: (options: ApiKeysOptions) => ApiKeys
  function rowsOf(table: string): AsyncGenerator<any>
}
`,
    },
  },
  {
    file: 'serverless.md',
    languages: ['ts'],
    leastBlocks: 4,
    application: {
      'keys.ts': `import type { ApiKeys } from 'latchkey'\nexport declare const keys: ApiKeys`,
      'run-app.ts': 'export declare function runApp(event: object, context: object): Promise<object>',
      'platform.ts': `
export declare function ipAddress(request: Request): string | undefined
export declare function waitUntil(work: Promise<unknown>): void
`,
      'server.ts': `import type { Server } from 'node:http'\nexport declare const server: Server`,
    },
  },
  {
    file: 'write-a-store.md',
    languages: ['ts', 'sql'],
    leastBlocks: 5,
    application: {
      'my-store.ts': `
import type { KeyStore } from 'latchkey'

export declare function connect(): Promise<{ drop(): Promise<void> }>
export declare function myStore(database?: object): KeyStore
`,
    },
  },
]

describe.each(PAGES)('the code of $file', ({ file, languages, leastBlocks, application }) => {
  const blocks = readCodeBlocks(readPage(file))
  const code = blocks.filter(({ language }) => language === 'ts')

  it('is of languages that are checked here', () => {
    expect(new Set(blocks.map(({ language }) => language))).toEqual(new Set(languages))
    expect(code.length).toBeGreaterThanOrEqual(leastBlocks)
  })

  it('compiles', () => {
    const own = Object.entries(application).map(([name, text]) => [`test/docs/${name}`, text])
    const files = code.map(({ line, text }) => [`test/docs/line-${line}.ts`, asModule(text)])
    expect(compile(Object.fromEntries([...own, ...files]))).toEqual([])
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
    expect(optional).toEqual(['forget', 'recordUsage', 'swapQuota', 'swapQuotas', 'agree'])
  })
})

it.each(['serverless.md', 'write-a-store.md'])(
  '%s has links that lead somewhere, and is linked from the README',
  (file) => {
    const targets = [...readPage(file).matchAll(/\]\(([^)]+)\)/g)].map(([, target]) => target as string)
    const files = targets.filter((target) => !target.startsWith('https://'))
    expect(targets.length).toBeGreaterThan(0)
    expect(files.filter((target) => !existsSync(new URL(target, docs)))).toEqual([])
    expect(readPage('../README.md')).toContain(`(docs/${file})`)
  },
)
