import { readFileSync } from 'node:fs'
import express, { type RequestHandler } from 'express'
import { type ApiKeys, memoryStore } from 'latchkey'
import { apiKeyAuth } from 'latchkey/express'
import { beforeEach, expect, it } from 'vitest'
import type { CurlAnswer } from '../support/curl.ts'
import { fakeClock } from '../support/fake-clock.ts'
import { issueKey } from '../support/issue-key.ts'
import { type CodeBlock, readCodeBlocks } from '../support/markdown.ts'
import { listen } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { expectAnswer } from '../support/shown-answer.ts'

const blocks = readCodeBlocks(readFileSync(new URL('../../docs/limits.md', import.meta.url), 'utf8'))
const list: RequestHandler = (_req, res) => void res.json([])

let keys: ApiKeys
let get: (path: string) => Promise<CurlAnswer>

beforeEach(async () => {
  const app = express()
  const [program] = blocks as [CodeBlock]
  const code = program.text.replace('memoryRateLimiter()', 'memoryRateLimiter({ clock })')
  const scope = { app, list, store: memoryStore(), clock: fakeClock() }
  keys = (await runBlock(code, scope, ['keys'])).keys as ApiKeys
  for (const rateLimitHeaders of ['draft-7', 'draft-6'] as const) {
    app.get(`/${rateLimitHeaders}`, apiKeyAuth(keys, { rateLimitHeaders }), list)
  }
  const { key } = await issueKey(keys)
  const origin = `http://127.0.0.1:${await listen(app)}`
  get = async (path) => {
    const response = await fetch(origin + path, { headers: { 'X-Api-Key': key } })
    const { status, headers } = response
    return { status, headers: Object.fromEntries(headers), body: await response.text() }
  }
})

const wire = blocks.filter(({ language }) => language === 'http')

it('shows what a program answers, first and when a limit is used up', async () => {
  const [first, limited] = wire as [CodeBlock, CodeBlock]
  expectAnswer(first, await get('/projects'))
  for (let i = 1; i < 20; i++) expect((await get('/projects')).status).toBe(200)
  expectAnswer(limited, await get('/projects'))
})

it.each(['draft-7', 'draft-6'])('shows the header fields of %s', async (draft) => {
  const shown = wire.filter(({ heading }) => heading === 'Other header fields')
  expect(shown).toHaveLength(2)
  expectAnswer(shown[draft === 'draft-7' ? 0 : 1] as CodeBlock, await get(`/${draft}`))
})

it('has a Retry-After only where waiting helps', async () => {
  const { key } = await issueKey(keys, { quota: { remaining: 0 } })
  const { key: refilled } = await issueKey(keys, {
    quota: { remaining: 0, refill: { amount: 5, everyMs: 60_000 } },
  })
  expect(await keys.verify(key, { cost: 21 })).toMatchObject({ ok: false, retryAfterMs: null })
  expect(await keys.verify(key)).toMatchObject({ code: 'quota_exceeded', retryAfterMs: null })
  expect(await keys.verify(refilled)).toMatchObject({
    code: 'quota_exceeded',
    retryAfterMs: expect.any(Number),
  })
})
