import { readFileSync } from 'node:fs'
import express, { type RequestHandler } from 'express'
import Koa from 'koa'
import type { Permissions } from 'latchkey'
import { apiKeyErrorHandler } from 'latchkey/express'
import { ApiKeyStrategy } from 'latchkey/passport'
import passport from 'passport'
import { describe, expect, it } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { type CodeBlock, readCodeBlocks } from '../support/markdown.ts'
import { listen, serve } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { expectShownAnswers } from '../support/shown-answers.ts'
import { createTestKeys } from '../support/test-keys.ts'

const page = new URL('../../docs/resources-and-tenants.md', import.meta.url)
const blocks = readCodeBlocks(readFileSync(page, 'utf8'))
const OWNER = { type: 'organization', id: 'acme' }

describe('the guide to resources and tenants', () => {
  const list: RequestHandler = (_req, res) => void res.json(['a project'])

  async function start(permissions: Permissions) {
    const { keys } = createTestKeys()
    passport.use(new ApiKeyStrategy({ keys }))
    const { key } = await issueKey(keys, { owner: OWNER, permissions })
    const [app, koa] = [express(), new Koa()]
    const run = async (heading: string, n = 0) => {
      const code = blocks.filter((block) => block.heading === heading && block.language === 'ts')[n]
      const projectOf = async (id: string) => id.slice(0, 2)
      await runBlock((code as CodeBlock).text, { app, koa, keys, owner: OWNER, list, projectOf })
      app.use(apiKeyErrorHandler())
    }
    const statusesOf = async (
      ids: readonly string[],
      path = '/projects/',
      handler: typeof app | null = app,
    ) => {
      const ask = await serve(handler ?? koa.callback())
      const answers = ids.map((id) => ask(path + id, [`X-Api-Key: ${key}`]))
      return (await Promise.all(answers)).map(({ status }) => status)
    }
    return { keys, app, koa, key, run, statusesOf }
  }

  it('answers as it shows, to the key that it issues', async () => {
    const { keys, app, run } = await start({})
    await run('Resources and tenants')
    await run('Resources and tenants', 1)
    const { key } = await issueKey(keys, { permissions: { 'project:42': ['read', 'write'] } })
    const shown = blocks.filter(({ heading }) => heading === 'Resources and tenants')
    await expectShownAnswers(shown, await listen(app), { $KEY: key })
  })

  it.each([
    [{ projects: ['admin'] }, 200],
    [{ 'project:1': ['read'] }, 200],
    [{ 'project:2': ['read'] }, 403],
  ])('has alternatives, for %j: %i', async (permissions, status) => {
    const { keys, app, run, key } = await start(permissions)
    const { apiKeyAuth } = await import('latchkey/express')
    app.use(apiKeyAuth(keys))
    await run('Resources and tenants', 2)
    const ask = await serve(app)
    expect((await ask('/projects/1', [`X-Api-Key: ${key}`])).status).toBe(status)
  })

  it('works on Koa and with Passport', async () => {
    const { run, statusesOf } = await start({ 'project:1': ['read'] })
    await run('On every framework')
    expect(await statusesOf(['1', '2', 'a,b'], '/projects/', null)).toEqual([200, 403, 403])
    await run('On every framework', 1)
    expect(await statusesOf(['1', '2', 'a,b'])).toEqual([200, 403, 403])
  })

  it('keeps tenants apart by the owner of the key', async () => {
    const { run, statusesOf } = await start({ reports: ['read'] })
    await run('Tenants')
    expect(
      await Promise.all(['acme', 'globex'].map((id) => statusesOf(['reports'], `/tenants/${id}/`))),
    ).toEqual([[200], [404]])
  })

  it('looks up what it needs after the key is proven', async () => {
    const { run, statusesOf } = await start({ 'project:p1': ['read'] })
    await run('If you have to look something up')
    expect(await statusesOf(['p1-a', 'p2-a'], '/documents/')).toEqual([200, 403])
  })
})
