import { readFileSync } from 'node:fs'
import { getRequestListener } from '@hono/node-server'
import express, { type Express } from 'express'
import type { ServiceRateLimit } from 'latchkey'
import type { McpGuard } from 'latchkey/mcp'
import { describe, expect, it, vi } from 'vitest'
import { readPublicTypes } from '../support/compiler.ts'
import { type CurlAnswer, fetcher } from '../support/curl.ts'
import { issueKey } from '../support/issue-key.ts'
import { type CodeBlock, codeIn, readCodeBlocks, readTable } from '../support/markdown.ts'
import { CLIENTS } from '../support/mcp-servers.ts'
import { listen } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { expectShown } from '../support/shown-answers.ts'
import { createTestKeys } from '../support/test-keys.ts'

// A compiler is slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const page = readFileSync(new URL('../../docs/mcp.md', import.meta.url), 'utf8')
const blocks = readCodeBlocks(page)
const blocksOf = (heading: string) => blocks.filter((block) => block.heading === heading)

const MINUTE: ServiceRateLimit = { name: 'minute', limit: 60, windowMs: 60_000 }

/** Runs the code under a heading. */
async function run(heading: string, wanted: string, permissions: Record<string, string[]> = {}) {
  const { keys } = createTestKeys({ rateLimits: [MINUTE] })
  const { key, apiKey } = await issueKey(keys, { permissions })
  const app = express()
  const { text } = blocksOf(heading)[0] as CodeBlock
  const scope = text.includes('const app =') ? { keys } : { keys, app }
  const made = await runBlock(text.replaceAll(/^export /gm, ''), scope, [wanted])
  const used = async () => 60 - ((await keys.limits(apiKey.id))?.[0]?.remaining ?? 0)
  return { keys, key, app, used, made: made[wanted] }
}

const connect = (port: number, key: string) => CLIENTS['SDK 1']?.(port, { authorization: `Bearer ${key}` })

describe('the guide to MCP servers', () => {
  it('answers as it shows, and to a client', async () => {
    const { key, made } = await run('MCP servers', 'app', { docs: ['read'] })
    const port = await listen(made as Express)
    const shown = blocksOf('MCP servers').filter(({ language }) => language !== 'ts')
    expect(shown.map(({ language }) => language)).toEqual(['sh', 'http', 'sh', 'http'])
    const ask = fetcher()
    for (let i = 0; i < shown.length; i += 2) {
      const [command, answer] = shown.slice(i, i + 2) as [CodeBlock, CodeBlock]
      const text = command.text.replace('localhost:3000', `127.0.0.1:${port}`).replace('$KEY', key)
      const [answered] = (await ask(text.replaceAll(' \\\n', ' '))) as [CurlAnswer]
      // An event ends with an empty line, and a block of code does not.
      expectShown(answer, { ...answered, body: answered.body.trimEnd() })
    }
    const client = await connect(port, key)
    expect(await client?.callTool('search', { query: 'x' })).toBe('CI searches for x')
  })

  it('has rules that depend on the call', async () => {
    const { key, made, used } = await run('Rules', 'guard', { 'project:7': ['read'] })
    const app = express().all('/', made as McpGuard, (_req, res) => void res.json({}))
    const port = await listen(app)
    const post = async (method: string, params: object) => {
      const body = JSON.stringify({ jsonrpc: '2.0', id: 1, method, params })
      const headers = { 'content-type': 'application/json', 'x-api-key': key }
      return (await fetch(`http://127.0.0.1:${port}`, { method: 'POST', headers, body })).status
    }
    expect(await post('tools/call', { name: 'open_project', arguments: { id: 7 } })).toBe(200)
    expect(await post('tools/call', { name: 'open_project', arguments: { id: 8 } })).toBe(403)
    expect(await post('tools/call', { name: 'generate' })).toBe(403)
    expect(await post('resources/read', { uri: 'file:///docs/a' })).toBe(403)
    expect(await post('logging/setLevel', { level: 'info' })).toBe(403)
    expect(await used()).toBe(1)
    expect(await post('tools/list', {})).toBe(200)
    expect(await used()).toBe(2)
    expect(await post('tasks/get', { taskId: '1' })).toBe(200)
    expect(await used()).toBe(2)
  })

  it('lists the methods that are free, and no others', async () => {
    const [, text = ''] = /These methods need no rule([\s\S]+?)\. A subscription/.exec(page) ?? []
    const listed = codeIn(text).filter((name) => name !== 'methods')
    const free = readFileSync(new URL('../../lib/mcp/rules.ts', import.meta.url), 'utf8')
    const [, known = ''] = /const FREE_METHODS[^[]+\[([^\]]+)\]/.exec(free) ?? []
    expect(listed.toSorted()).toEqual([...known.matchAll(/'([^']+)'/g)].map(([, name]) => name).toSorted())
  })

  it('keeps sessions', async () => {
    const { key, keys, app } = await run('Sessions', 'guard')
    const port = await listen(app)
    const client = await connect(port, key)
    const headers = { 'mcp-session-id': String(client?.sessionId), accept: 'text/event-stream' }
    const remove = async (own: string) =>
      (
        await fetch(`http://127.0.0.1:${port}/mcp`, {
          method: 'DELETE',
          headers: { ...headers, 'x-api-key': own },
        })
      ).status
    expect(await remove((await issueKey(keys)).key)).toBe(404)
    expect(await remove(key)).toBe(200)
  })

  it('serves with SDK 1', async () => {
    const { key, made } = await run('SDK 1', 'app')
    const client = await connect(await listen(made as Express), key)
    expect(await client?.callTool('whoami')).toBe('CI')
  })

  it('serves web requests', async () => {
    const { key, made } = await run('Web `Request`', 'serveMcp')
    const port = await listen(getRequestListener(made as (request: Request) => Promise<Response>))
    expect(await connect(port, key)).toBeDefined()
    await expect(connect(port, `${key}x`)).rejects.toThrow('invalid_key')
  })

  it('lists every option with its default', () => {
    const rules = readTable(page, 'rules').flatMap(([name = '']) => codeIn(name))
    const shared = codeIn(/how keys are read:\n([\s\S]+?)\n\n/.exec(page)?.[1] ?? '')
    const own = readTable(page, 'option of `mcpGuard`').map(([name = '', value = '']) => [
      codeIn(name)[0],
      value,
    ])
    const members = readPublicTypes('latchkey/mcp').members('McpGuardOptions')
    expect([...rules, ...shared, ...own.map(([name]) => name)].toSorted()).toEqual(
      members.map(({ name }) => name).toSorted(),
    )
    for (const [name, value] of own) {
      const text = members.find((member) => member.name === name)?.defaultText ?? ''
      expect(value).toBe(/^[\w_]+$/.test(text) ? `\`${text}\`` : '')
    }
  })
})
