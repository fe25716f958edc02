import { existsSync, readFileSync } from 'node:fs'
import { expect, it, vi } from 'vitest'
import { compile } from '../support/compiler.ts'
import { readCodeBlocks } from '../support/markdown.ts'

// The compiler is slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const page = new URL('../../docs/migrate.md', import.meta.url)
const text = readFileSync(page, 'utf8')
const blocks = readCodeBlocks(text)

/** What the blocks take from the application that they are part of. */
const APPLICATION = `
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
`

it('has only code that is compiled here', () => {
  expect(new Set(blocks.map(({ language }) => language))).toEqual(new Set(['ts']))
  expect(blocks.length).toBeGreaterThan(8)
})

it('compiles', () => {
  const files = blocks.map((block) => [
    `test/docs/migrate-line-${block.line}.ts`,
    `${block.text}\nexport {}\n`,
  ])
  const application = ['test/docs/migrate-application.ts', APPLICATION]
  expect(compile(Object.fromEntries([application, ...files]))).toEqual([])
})

it('names files that exist', () => {
  const targets = [...text.matchAll(/\]\(([^)]+)\)/g)].map(([, path]) => path as string)
  expect(targets.length).toBeGreaterThan(0)
  expect(targets.filter((path) => !existsSync(new URL(path, page)))).toEqual([])
})
