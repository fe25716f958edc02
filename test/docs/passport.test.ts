import { readFileSync } from 'node:fs'
import express, { type RequestHandler } from 'express'
import { apiKeyErrorHandler } from 'latchkey/express'
import passport, { type Strategy, type StrategyCreated } from 'passport'
import { describe, expect, it, vi } from 'vitest'
import { readPublicTypes } from '../support/compiler.ts'
import { issueKey } from '../support/issue-key.ts'
import { type CodeBlock, readCodeBlocks } from '../support/markdown.ts'
import { byName, declaredOptions, listedOptions } from '../support/option-table.ts'
import { listen } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { expectShownAnswers } from '../support/shown-answers.ts'
import { createTestKeys } from '../support/test-keys.ts'

// A compiler is slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const page = readFileSync(new URL('../../docs/passport.md', import.meta.url), 'utf8')
const blocks = readCodeBlocks(page)

describe('the guide to Passport', () => {
  const list: RequestHandler = (req, res) => void res.json({ user: req.user, projects: ['loom'] })
  const users = { find: () => ({ id: 'u_1' }) }

  async function start() {
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys, { permissions: { projects: ['read'] } })
    const app = express()
    const port = await listen(app)
    const run = async (heading: string, n = 0) => {
      const code = blocks.filter((block) => block.heading === heading && block.language === 'ts')[n]
      await runBlock((code as CodeBlock).text, { app, keys, users, list, create: list })
    }
    const ask = (path: string, headers: Record<string, string> = {}) =>
      fetch(`http://localhost:${port}${path}`, { headers, redirect: 'manual' })
    return { app, key, port, run, ask }
  }

  it('answers as it shows', async () => {
    const { key, port, run } = await start()
    await run('Passport')
    const shown = blocks.filter(({ heading }) => heading === 'Passport')
    await expectShownAnswers(shown, port, { $KEY: key })
  })

  it('finds users by a verify callback', async () => {
    const { app, key, run, ask } = await start()
    await run('Find the user')
    app.get('/', passport.authenticate('apikey'), list)
    expect(await (await ask('/', { 'X-Api-Key': key })).json()).toMatchObject({ user: { id: 'u_1' } })
  })

  it('tells a custom callback of refusals', async () => {
    const { app, key, run, ask } = await start()
    await run('Passport')
    await run('Refusals')
    app.use(apiKeyErrorHandler())
    const missing = await ask('/export')
    expect([missing.status, missing.headers.get('Location')]).toEqual([302, '/developers'])
    expect((await ask('/export', { 'X-Api-Key': `${key}0` })).status).toBe(401)
    expect(await (await ask('/export', { 'X-Api-Key': key })).json()).toEqual({ user: { id: 'u_1' } })
  })

  it('lets another strategy have its turn', async () => {
    const { key, run, ask } = await start()
    const jwt: Strategy = {
      authenticate(this: StrategyCreated<Strategy>) {
        this.success({ id: 'u_3' })
      },
    }
    passport.use('jwt', jwt)
    await run('Several strategies')
    expect(await (await ask('/reports')).json()).toMatchObject({ user: { id: 'u_3' } })
    expect(await (await ask('/reports', { 'X-Api-Key': key })).json()).toMatchObject({
      user: { type: 'user' },
    })
  })

  it('lists every option with its default', () => {
    const types = readPublicTypes('latchkey/passport')
    for (const [title, name] of [
      ['option of `ApiKeyStrategy`', 'ApiKeyStrategyOptions'],
      ['option of a route', 'ApiKeyRouteOptions'],
    ] as const) {
      expect(byName(listedOptions(page, title))).toEqual(byName(declaredOptions(types.members(name))))
    }
  })
})
