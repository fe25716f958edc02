import { readFileSync } from 'node:fs'
import express from 'express'
import Koa from 'koa'
import { getAuth } from 'latchkey/express'
import { getAuth as getAuthOfKoa } from 'latchkey/koa'
import { describe, expect, it } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { type CodeBlock, deadLinks, readCodeBlocks } from '../support/markdown.ts'
import { type Ask, serve } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { createTestKeys } from '../support/test-keys.ts'

const page = new URL('../../docs/headers.md', import.meta.url)
const blocks = readCodeBlocks(readFileSync(page, 'utf8'))

it('links to what exists, and is linked from the README', () => {
  expect(deadLinks(page)).toEqual([])
  expect(readFileSync(new URL('../README.md', page), 'utf8')).toContain('(docs/headers.md)')
})

describe.each(['Express', 'Koa'])('a key that comes as the user name of HTTP Basic on %s', (framework) => {
  async function start(): Promise<{ ask: Ask; key: string }> {
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys)
    const [onExpress, onKoa] = blocks as [CodeBlock, CodeBlock]
    if (framework === 'Express') {
      const app = express()
      await runBlock(onExpress.text, { app, keys })
      app.use((req, res) => void res.send(getAuth(req).method))
      return { ask: await serve(app), key }
    }
    const koa = new Koa()
    await runBlock(onKoa.text, { koa, keys })
    koa.use((ctx) => {
      ctx.body = getAuthOfKoa(ctx).method
    })
    return { ask: await serve(koa.callback()), key }
  }

  const basic = (text: string) => `Authorization: Basic ${Buffer.from(text).toString('base64')}`

  it('is verified', async () => {
    const { ask, key } = await start()
    expect((await ask('/api', [basic(`${key}:`)])).body).toBe('apikey')
    expect((await ask('/api', [basic(`${key}:`).replace('Basic ', 'BASIC  ')])).body).toBe('apikey')
  })

  it.each<[string, (key: string) => string[], string]>([
    ['with another secret', (key) => [basic(`${key}0:`)], 'invalid_key'],
    ['with a password', (key) => [basic(`${key}:secret`)], 'missing_key'],
    ['without a colon', (key) => [basic(key)], 'missing_key'],
    ['that is empty', () => [basic(':')], 'missing_key'],
    ['that is not base64', () => ['Authorization: Basic <key>'], 'missing_key'],
    ['beside one in X-Api-Key', (key) => [basic(`${key}:`), `X-Api-Key: ${key}`], 'multiple_credentials'],
  ])('is refused %s', async (_how, lines, code) => {
    const { ask, key } = await start()
    expect((await ask('/api', lines(key))).json()).toMatchObject({ code })
  })
})
