import { readFileSync } from 'node:fs'
import express, { type RequestHandler } from 'express'
import { type ApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import { getAuth } from 'latchkey/express'
import { describe, expect, it } from 'vitest'
import { type CodeBlock, deadLinks, readCodeBlocks } from '../support/markdown.ts'
import { serve } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'

const page = new URL('../../docs/migrate.md', import.meta.url)
const text = readFileSync(page, 'utf8')
const blocks = readCodeBlocks(text)

it('has only code that is compiled here', () => {
  expect(new Set(blocks.map(({ language }) => language))).toEqual(new Set(['ts']))
  expect(blocks.length).toBeGreaterThan(8)
})

it('links to what exists', () => {
  expect(text).toContain('](')
  expect(deadLinks(page)).toEqual([])
})

describe('the step after the drop-in', () => {
  const [importing, both] = blocks.filter(({ heading }) => heading === 'The step after')

  /** What the old table is asked for, by the statements of the page. */
  function createTable(rows: Record<string, unknown>[]) {
    const pool = {
      async query(sql: string, [value]: unknown[]) {
        if (sql === 'update api_keys set imported_at = now() where id = $1') {
          for (const row of rows) if (row.id === value) row.imported_at = new Date()
          return { rows: [] }
        }
        const [statement, asked] =
          /^select user_id from api_keys where api_key = \$1 and active( and imported_at is null)?$/.exec(
            sql,
          ) ?? []
        if (statement === undefined) throw new Error(`what does this mean: ${sql}`)
        const isLeftToIt = (row: Record<string, unknown>) => asked === undefined || row.imported_at === null
        return { rows: rows.filter((row) => row.api_key === value && row.active && isLeftToIt(row)) }
      },
    }
    async function* rowsOf() {
      yield* rows
    }
    return { pool, rowsOf }
  }

  const textOf = (letter: string) => letter.repeat(40)
  const rowOf = (id: number, letter: string, members: object = {}) => {
    const name = `key ${letter}`
    return { id, api_key: textOf(letter), user_id: 1, name, active: true, imported_at: null, ...members }
  }

  async function start(code = (both as CodeBlock).text) {
    const rows: Record<string, unknown>[] = [rowOf(1, 'a'), rowOf(2, 'b', { active: false })]
    const app = express()
    const list: RequestHandler = (req, res) => void res.json({ method: getAuth(req).method })
    const store = memoryStore()
    const users = { find: async (id: string) => ({ id }) }
    const scope = { ...createTable(rows), app, list, store, users, rateLimiter: memoryRateLimiter() }
    const run = () => runBlock((importing as CodeBlock).text, scope, ['keys'])
    const { keys } = (await run()) as { keys: ApiKeys }
    await run() // may be run again
    rows.push(rowOf(3, 'c'))
    await runBlock(code, { ...scope, keys })
    const serverAsk = await serve(app)
    const ask = async (letter: string) => {
      const answer = await serverAsk('/projects', [`X-Api-Key: ${textOf(letter)}`])
      return answer.status === 200 ? answer.json().method : answer.status
    }
    return { keys, ask }
  }

  it('takes imported keys and those that are not imported yet', async () => {
    const { ask } = await start()
    expect([await ask('a'), await ask('c'), await ask('d')]).toEqual(['apikey', 'other', 401])
  })

  it('lets no imported key in again that is switched off, revoked or sent from elsewhere', async () => {
    const { keys, ask } = await start()
    const [imported] = (await keys.list({ name: 'key a' })).apiKeys
    const id = imported?.id as string
    await keys.update(id, { allowedIps: ['192.0.2.1'] })
    const elsewhere = await ask('a')
    await keys.revoke(id)
    expect([await ask('b'), elsewhere, await ask('a')]).toEqual([401, 403, 401])
  })

  it('lets them in again where verify finds imported keys, as the page warns', async () => {
    const { keys, ask } = await start((both as CodeBlock).text.replace(' and imported_at is null', ''))
    const [imported] = (await keys.list({ name: 'key a' })).apiKeys
    await keys.revoke(imported?.id as string)
    expect(await ask('a')).toBe('other')
  })
})
