import 'reflect-metadata'
import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import {
  type DynamicModule,
  type INestApplication,
  Module,
  type OnApplicationShutdown,
  type Type,
} from '@nestjs/common'
import type { ApiKeys } from 'latchkey'
import { API_KEYS, LatchkeyModule } from 'latchkey/nest'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { listenerOf, startNest } from '../nest/serve-nest.ts'
import { issueKey } from '../support/issue-key.ts'
import { type CodeBlock, readCodeBlocks } from '../support/markdown.ts'
import { serve } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { expectShownAnswers } from '../support/shown-answers.ts'
import { createTestKeys } from '../support/test-keys.ts'

// Nest is slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const blocks = readCodeBlocks(readFileSync(new URL('../../docs/nest.md', import.meta.url), 'utf8'))
const blocksOf = (heading: string) => blocks.filter((block) => block.heading === heading)
const users = { find: (id: string) => (id ? { id } : null) }

/** Runs a block of code under a heading, and returns what it declares. */
function run(heading: string, name: string, keys: ApiKeys, number = 0): Promise<Type> {
  const code = blocksOf(heading).filter(({ language }) => language === 'ts')[number] as CodeBlock
  return runBlock(code.text, { keys, users }, [name]).then((declared) => declared[name] as Type)
}

function appOf(keys: ApiKeys, imports: (Type | DynamicModule)[], controllers: Type[] = []): Type {
  class AppModule {}
  Module({ imports: [LatchkeyModule.forRoot({ keys }), ...imports], controllers })(AppModule)
  return AppModule
}

async function keysWithOne(permissions = { projects: ['read'] }) {
  const test = createTestKeys({ rateLimits: [{ name: 'minute', limit: 60, windowMs: 60_000 }] })
  const { key } = await issueKey(test.keys, { owner: { type: 'user', id: 'u_1' }, permissions })
  return { ...test, line: `X-Api-Key: ${key}`, key }
}

describe('the guide to Nest', () => {
  it.each(['Express', 'Fastify'] as const)('answers as it shows, on %s', async (platform) => {
    const { keys, key } = await keysWithOne()
    const app = await startNest(platform, await run('Nest', 'AppModule', keys))
    await app.listen(0, '127.0.0.1')
    const { port } = app.getHttpServer().address() as AddressInfo
    await expectShownAnswers(blocksOf('Nest'), port, { $KEY: key })
  })

  it('has routes that require what it says', async () => {
    const { keys, line } = await keysWithOne({ projects: ['write'], 'project:1': ['read'] } as never)
    const controller = await run('What a route requires', 'ProjectsController', keys)
    const ask = await serve(await listenerOf(await startNest('Express', appOf(keys, [], [controller]))))
    expect((await ask('/projects/1', [line])).json()).toEqual({ project: 'one' })
    expect((await ask('/projects/2', [line])).json()).toMatchObject({ missing: { 'project:2': ['read'] } })
    expect((await ask('/projects/public/names')).status).toBe(200)
    const added = await ask('/projects', [line], { method: 'POST' })
    expect([added.status, added.header('RateLimit')]).toEqual([201, '"minute";r=57;t=60'])
  })

  it('tells a session from a key on Express, and lets users manage keys', async () => {
    const { keys, line } = await keysWithOne()
    const session = await run('Sessions', 'SessionModule', keys)
    const management = await run('Let users manage keys', 'ManagementModule', keys)
    const controller = await run('Who is calling', 'MeController', keys)
    const app = await startNest('Express', appOf(keys, [session, management], [controller]))
    const ask = await serve(await listenerOf(app))
    expect((await ask('/me', ['Cookie: u_1'])).json()).toEqual({ user: 'u_1' })
    expect((await ask('/me', [line])).json()).toEqual({ user: 'u_1', by: 'CI' })
    expect((await ask('/me')).json()).toMatchObject({ code: 'authentication_required' })
    expect((await ask('/api-keys', ['Cookie: u_1'])).json()).toMatchObject({ apiKeys: [{ name: 'CI' }] })
    expect((await ask('/api-keys')).json()).toMatchObject({ code: 'authentication_required' })
  })

  it('tells a session from a key on Fastify', async () => {
    const { keys, line } = await keysWithOne()
    const controller = await run('Who is calling', 'MeController', keys)
    const start = await run('Sessions', 'start', keys, 1)
    const app = (await (start as unknown as (module: Type) => unknown)(
      appOf(keys, [], [controller]),
    )) as INestApplication
    onTestFinished(() => app.close())
    await app.init()
    const ask = await serve(await listenerOf(app))
    expect((await ask('/me', ['Cookie: u_1'])).json()).toEqual({ user: 'u_1' })
    expect((await ask('/me', ['Cookie: u_1', line])).json()).toEqual({ user: 'u_1', by: 'CI' })
  })

  it('makes keys with a provider, and closes them', async () => {
    const { keys } = createTestKeys()
    const code = blocksOf('Make the keys with a provider')[0] as CodeBlock
    const inMemory = code.text.replace("'keys.db'", "':memory:'")
    const { AppModule } = await runBlock(inMemory, { keys, users }, ['AppModule'])
    const app = await startNest('Express', AppModule as Type)
    const made: ApiKeys = app.get(API_KEYS)
    expect(await made.verify((await issueKey(made)).key)).toMatchObject({ ok: true })
    const close = vi.spyOn((AppModule as Type<OnApplicationShutdown>).prototype, 'onApplicationShutdown')
    await app.close()
    expect(close.mock.results).toEqual([{ type: 'return', value: made.close() }])
  })

  it('has a strategy that Passport takes', async () => {
    const { keys } = createTestKeys()
    const Strategy = await run('Passport', 'ApiKeyStrategy', keys)
    expect(new Strategy(keys)).toMatchObject({ name: 'apikey' })
  })
})
