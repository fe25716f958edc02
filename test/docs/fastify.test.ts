import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import { describe, expect, it, onTestFinished } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { type CodeBlock, readCodeBlocks } from '../support/markdown.ts'
import { runBlock } from '../support/run-block.ts'
import { expectShownAnswers } from '../support/shown-answers.ts'
import { createTestKeys } from '../support/test-keys.ts'

const blocks = readCodeBlocks(readFileSync(new URL('../../docs/fastify.md', import.meta.url), 'utf8'))
const blocksOf = (heading: string) => blocks.filter((block) => block.heading === heading)

/** Runs the code under a heading, and answers with its application. */
async function start(heading: string) {
  const test = createTestKeys({ rateLimits: [{ name: 'minute', limit: 60, windowMs: 60_000 }] })
  const owner = { type: 'user', id: 'u_1' }
  const { key } = await issueKey(test.keys, { owner, permissions: { projects: ['read'] } })
  const users = { find: (id: string) => (id ? { id } : null) }
  const { text } = blocksOf(heading)[0] as CodeBlock
  const { app } = (await runBlock(text, { keys: test.keys, users }, ['app'])) as { app: FastifyInstance }
  onTestFinished(() => app.close())
  const ask = async (url: string, headers: Record<string, string>) => {
    const { statusCode, body } = await app.inject({ url, headers })
    return [statusCode, JSON.parse(body)]
  }
  return { ...test, key, app, ask }
}

describe('the guide to Fastify', () => {
  it('answers as it shows', async () => {
    const { app, key } = await start('Fastify')
    await app.listen({ host: '127.0.0.1', port: 0 })
    const { port } = app.server.address() as AddressInfo
    await expectShownAnswers(blocksOf('Fastify'), port, { $KEY: key })
  })

  it('has hooks that do the same', async () => {
    const { keys, key, ask } = await start('Hooks')
    expect(await ask('/projects', { 'x-api-key': key })).toEqual([200, { method: 'apikey' }])
    const other = await issueKey(keys, { permissions: { projects: ['write'] } })
    expect(await ask('/projects', { 'x-api-key': other.key })).toMatchObject([403, { missing: {} }])
    expect(await ask('/projects', {})).toMatchObject([401, { code: 'missing_key' }])
  })

  it('tells a session from a key', async () => {
    const { key, ask } = await start('Sessions')
    expect(await ask('/settings', { cookie: 'u_1' })).toEqual([
      200,
      { method: 'session', user: { id: 'u_1' } },
    ])
    expect(await ask('/settings', { cookie: 'u_1', 'x-api-key': key })).toMatchObject([403, {}])
    expect(await ask('/me', { cookie: 'u_1' })).toEqual([200, { by: 'session' }])
    expect(await ask('/me', { cookie: 'u_1', 'x-api-key': key })).toEqual([200, { by: 'apikey' }])
    expect(await ask('/me', {})).toMatchObject([401, { code: 'authentication_required' }])
  })

  it('shows an error as Fastify writes it', async () => {
    const { app, keys } = await start('Hooks')
    const { requirePermissions } = await import('latchkey/fastify')
    const onRequest = requirePermissions({ projects: ['write'] }, { refuseWith: 'error' })
    app.get('/error', { onRequest }, () => 'in')
    const { key } = await issueKey(keys)
    const answer = await app.inject({ url: '/error', headers: { 'x-api-key': key } })
    expect(answer.json()).toEqual(JSON.parse(blocksOf('Errors')[0]?.text ?? ''))
  })
})
