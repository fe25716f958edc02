import { readFileSync } from 'node:fs'
import Router from '@koa/router'
import Koa from 'koa'
import { markSession } from 'latchkey/koa'
import { apiKeyRouter } from 'latchkey/management/koa'
import { describe, expect, it } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { type CodeBlock, readCodeBlocks } from '../support/markdown.ts'
import { listen, serve } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { expectShownAnswers } from '../support/shown-answers.ts'
import { createTestKeys } from '../support/test-keys.ts'

const blocks = readCodeBlocks(readFileSync(new URL('../../docs/koa.md', import.meta.url), 'utf8'))
const blocksOf = (heading: string) => blocks.filter((block) => block.heading === heading)
const codeOf = (heading: string) => blocksOf(heading)[0] as CodeBlock

describe('the guide to Koa', () => {
  async function start() {
    const { keys } = createTestKeys({ rateLimits: [{ name: 'minute', limit: 60, windowMs: 60_000 }] })
    const users = { find: (id: string) => ({ id }) }
    const { app } = await runBlock(codeOf('Koa').text, { keys, users }, ['app'])
    return { keys, handler: (app as Koa).callback() }
  }

  it('answers as it shows', async () => {
    const { keys, handler } = await start()
    const owner = { type: 'user', id: 'u_1' }
    const { key } = await issueKey(keys, { owner, permissions: { projects: ['read'] } })
    await expectShownAnswers(blocksOf('Koa'), await listen(handler), { $KEY: key })
  })

  it('refuses a key without the permission', async () => {
    const { keys, handler } = await start()
    const { key } = await issueKey(keys, { permissions: { projects: ['write'] } })
    const answer = await (await serve(handler))('/', [`X-Api-Key: ${key}`])
    expect([answer.status, answer.json().code]).toEqual([403, 'insufficient_permissions'])
  })

  it('has routes that ask for permissions', async () => {
    const { keys } = createTestKeys({ rateLimits: [{ name: 'minute', limit: 60, windowMs: 60_000 }] })
    const { key } = await issueKey(keys, { permissions: { projects: ['write'] } })
    const koa = new Koa()
    await runBlock(codeOf('Routes').text, { keys, koa })
    const ask = await serve(koa.callback())
    const lines = [`X-Api-Key: ${key}`]
    expect((await ask('/projects', lines)).json()).toMatchObject({ missing: { projects: ['read'] } })
    const posted = await ask('/projects', lines, { method: 'POST' })
    expect([posted.status, posted.header('RateLimit')]).toEqual([201, '"minute";r=55;t=60'])
  })

  it('lets users manage keys, and nobody else', async () => {
    const { keys } = createTestKeys()
    const koa = new Koa()
    koa.use(markSession({ user: (ctx) => (ctx.get('X-Log-In') ? { id: 'u_1' } : null) }))
    await runBlock(codeOf('Let users manage keys').text, { keys, koa })
    koa.use((ctx) => {
      ctx.body = 'the rest'
    })
    const { key } = await issueKey(keys, { owner: { type: 'user', id: 'u_2' } })
    const ask = await serve(koa.callback())
    const json = { name: 'CI', permissions: { projects: ['write'] } }
    const issued = await ask('/api-keys', ['X-Log-In: yes'], { method: 'POST', json })
    expect([issued.status, issued.json()]).toMatchObject([201, { apiKey: { owner: { id: 'u_1' } } }])
    const listed = await ask('/api-keys', ['X-Log-In: yes'])
    expect(listed.json().apiKeys).toMatchObject([{ owner: { id: 'u_1' }, name: 'CI' }])
    expect((await ask('/api-keys')).json()).toMatchObject({ code: 'authentication_required' })
    expect((await ask('/api-keys', [`X-Api-Key: ${key}`])).json().code).toBe('session_required')
    expect((await ask('/other')).body).toBe('the rest')
  })

  it('says where that does not answer', async () => {
    const { keys } = createTestKeys()
    const actor = () => ({ id: 'u_1' })
    const koa = new Koa()
    const router = new Router()
    router.use(apiKeyRouter(keys, { path: '/in-router', actor }))
    router.get('/other', (ctx) => {
      ctx.body = 'other'
    })
    const ask = await serve(koa.use(router.routes()).callback())
    expect([(await ask('/other')).status, (await ask('/in-router')).status]).toEqual([200, 404])
  })

  it('passes sessions, and neither nobody nor a key', async () => {
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys)
    const source = codeOf('Sessions').text.replace('app.use(markSession', 'app.use(logIn)\n$&')
    const logIn: Koa.Middleware = (ctx, next) => {
      if (ctx.get('X-Log-In')) Object.assign(ctx, { session: { user: { id: 'u_1' } } })
      return next()
    }
    const { app } = await runBlock(source, { secret: 'only for this test', logIn }, ['app'])
    const showUser: Koa.Middleware = (ctx) => {
      ctx.body = ctx.state.user
    }
    const ask = await serve((app as Koa).use(showUser).callback())
    expect((await ask('/')).json().code).toBe('authentication_required')
    expect((await ask('/', ['X-Log-In: yes'])).json()).toEqual({ id: 'u_1' })
    const both = await ask('/', ['X-Log-In: yes', `X-Api-Key: ${key}`])
    expect(both.json().code).toBe('session_required')
  })
})
