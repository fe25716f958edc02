import { readFileSync } from 'node:fs'
import express, { type Express, type RequestHandler } from 'express'
import { apiKeyAuth } from 'latchkey/express'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { readPublicTypes } from '../support/compiler.ts'
import { issueKey } from '../support/issue-key.ts'
import { type CodeBlock, readCodeBlocks } from '../support/markdown.ts'
import { byName, declaredOptions, listedOptions } from '../support/option-table.ts'
import { listen } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { expectShownAnswers } from '../support/shown-answers.ts'
import { createTestKeys, type TestKeys } from '../support/test-keys.ts'

// A compiler is slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const page = readFileSync(new URL('../../docs/express.md', import.meta.url), 'utf8')
const blocks = readCodeBlocks(page)
const users = { find: () => ({ id: 'u_1' }) }
const answer: RequestHandler = (req, res) => void res.json({ key: req.apiKey?.name })

describe('the guide to Express', () => {
  let world: TestKeys
  let app: Express
  let key: string
  let port: number
  let areExported: boolean

  beforeEach(async () => {
    world = createTestKeys({ rateLimits: [{ name: 'minute', limit: 60, windowMs: 60_000 }] })
    const permissions = { projects: ['read'], exports: ['write'] }
    key = (await issueKey(world.keys, { permissions })).key
    app = express()
    port = await listen(app)
    areExported = true
  })

  async function run(heading: string): Promise<void> {
    const found = blocks.filter((block) => block.heading === heading && block.language === 'ts')
    expect(found).toHaveLength(1)
    const exportAll = async () => areExported
    const scope = { app, keys: world.keys, users, list: answer, remove: answer, exportAll }
    await runBlock((found[0] as CodeBlock).text, scope)
  }

  const ask = (path: string, headers: Record<string, string> = {}, method = 'GET') =>
    fetch(`http://localhost:${port}${path}`, { method, headers })

  const shownIn = (heading: string) => blocks.filter((block) => block.heading === heading)

  it('answers as it shows', async () => {
    await run('Express')
    await expectShownAnswers(shownIn('Express'), port, { $KEY: key })
    await run('Render refusals yourself')
    await expectShownAnswers(shownIn('Render refusals yourself'), port)
  })

  it('reads keys where it says', async () => {
    app.get('/api', apiKeyAuth(world.keys), answer)
    await run('Where keys are read')
    app.get('/partners', answer)
    const statuses = async (path: string, fields: Record<string, string>[]) =>
      Promise.all(fields.map(async (headers) => (await ask(path, headers)).status))
    const usual: Record<string, string>[] = [
      { 'X-Api-Key': key },
      { Authorization: `Bearer ${key}` },
      { Authorization: `Api-Key ${key}` },
    ]
    expect(await statuses('/api', usual)).toEqual([200, 200, 200])
    expect(await statuses('/partners', usual)).toEqual([401, 401, 401])
    expect(await statuses('/partners', [{ 'X-Partner-Key': key }])).toEqual([200])
    const hinted = await (await ask('/partners', usual[1])).json()
    expect(hinted).toMatchObject({ code: 'missing_key', detail: expect.stringContaining('X-Partner-Key') })
  })

  it('gives back what a failed request has cost', async () => {
    await run('Charge a request')
    const { status, headers } = await ask('/exports', { 'X-Api-Key': key }, 'POST')
    expect([status, headers.get('RateLimit')]).toEqual([201, '"minute";r=55;t=60'])
    areExported = false
    expect((await ask('/exports', { 'X-Api-Key': key }, 'POST')).status).toBe(502)
    app.get('/left', apiKeyAuth(world.keys, { cost: 0 }), answer)
    expect((await ask('/left', { 'X-Api-Key': key })).headers.get('RateLimit')).toBe('"minute";r=55;t=60')
  })

  it('charges by route under a shared middleware that costs nothing, and only there', async () => {
    app.use('/free', apiKeyAuth(world.keys, { cost: 0 }))
    app.use('/charged', apiKeyAuth(world.keys))
    app.get(['/free', '/charged'], apiKeyAuth(world.keys, { cost: 5 }), answer)
    app.get('/left', apiKeyAuth(world.keys, { cost: 0 }), answer)
    const left = async (path: string) => {
      await ask(path, { 'X-Api-Key': key })
      return (await ask('/left', { 'X-Api-Key': key })).headers.get('RateLimit')
    }
    expect(await left('/free')).toBe('"minute";r=55;t=60')
    expect(await left('/charged')).toBe('"minute";r=54;t=60')
  })

  it('passes requests without a key, and none with a bad one', async () => {
    await run('Let requests without a key pass')
    expect(await (await ask('/status')).json()).toEqual({ plan: 'public' })
    expect(await (await ask('/status', { 'X-Api-Key': key })).json()).toEqual({ plan: 'partner' })
    expect((await ask('/status', { 'X-Api-Key': `${key}0` })).status).toBe(401)
  })

  it('lists every option with its default', () => {
    const declared = declaredOptions(readPublicTypes('latchkey/express').members('ApiKeyAuthOptions'))
    expect(byName(listedOptions(page, 'option of `apiKeyAuth`'))).toEqual(byName(declared))
  })
})
