import { describe, expect, it } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { CLIENTS, RULES, SERVERS } from '../support/mcp-servers.ts'
import { createTestKeys } from '../support/test-keys.ts'

const cases = Object.entries(SERVERS).flatMap(([serverName, start]) =>
  Object.entries(CLIENTS).map(([clientName, open]) => ({ clientName, serverName, start, open })),
)

describe('a client', () => {
  it.each(cases)('of $clientName calls a server of $serverName', async ({ start, open }) => {
    const { keys } = createTestKeys({ rateLimits: [{ name: 'minute', limit: 10, windowMs: 60_000 }] })
    const { key, apiKey } = await issueKey(keys, { permissions: { docs: ['read'], 'doc:1': ['read'] } })
    const { port, calls } = await start(keys, RULES)
    const used = async () => 10 - ((await keys.limits(apiKey.id))?.[0]?.remaining ?? 0)

    for (const [headers, status] of [
      [{}, 401],
      [{ 'x-api-key': 'junk' }, 401],
      [{ 'x-api-key': key, authorization: `Bearer ${key}` }, 400],
    ] as [Record<string, string>, number][]) {
      await expect(open(port, headers)).rejects.toThrow(new RegExp(`"status":${status},|HTTP ${status}`))
    }

    const headers = { authorization: `Bearer ${key}` }
    const client = await open(port, headers)
    expect(await client.listTools()).toContain('search')
    expect(await used()).toBe(0)

    expect(await client.callTool('search', { q: 'x' })).toBe('found x')
    expect(await used()).toBe(3)
    expect(await client.callTool('open', { id: '1' })).toBe('1')
    const seen = await client.callTool('whoami')
    expect(JSON.parse(seen)).toMatchObject({
      name: 'CI',
      clientId: apiKey.lineageId,
      scopes: ['docs:read', 'doc:1:read'],
    })
    expect(seen).not.toContain(key)
    expect(await used()).toBe(5)

    await expect(client.callTool('secret')).rejects.toThrow('"code":"operation_not_allowed"')
    await expect(client.callTool('__proto__')).rejects.toThrow('"code":"operation_not_allowed"')
    await expect(client.callTool('constructor')).rejects.toThrow('"code":"operation_not_allowed"')
    await expect(client.callTool('open', { id: '2' })).rejects.toThrow('"missing":{"doc:2":["read"]}')
    await expect(client.readResource('docs://secret')).rejects.toThrow('"code":"operation_not_allowed"')
    expect(await used()).toBe(5)
    expect(await client.readResource('docs://public/a')).toMatchObject({ contents: [{ text: 'public' }] })

    await client.callTool('search', { q: 'x' })
    await expect(client.callTool('search', { q: 'x' })).rejects.toThrow('"code":"rate_limited"')
    expect(await used()).toBe(9)
    expect(calls).toEqual(['search', 'open', 'whoami', 'search'])

    // Whoever steals the id of a session needs its key too.
    const other = await issueKey(keys, { permissions: { docs: ['read'] } })
    headers.authorization = `Bearer ${other.key}`
    const stolen = client.callTool('search', { q: 'x' })
    if (client.sessionId) await expect(stolen).rejects.toThrow('"code":"session_not_found"')
    else expect(await stolen).toBe('found x')
    headers.authorization = `Bearer ${key}`

    await keys.revoke(apiKey.id)
    await expect(client.callTool('whoami')).rejects.toThrow('"code":"invalid_key"')
  })

  it.each([
    ['SDK 2 as a handler of web requests', '2026-07-28'],
    ['SDK 2 on Express with sessions', '2025-11-25'],
  ])('finds out through the guard what a server of %s speaks', async (serverName, revision) => {
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys)
    const { port } = (await SERVERS[serverName]?.(keys, RULES)) ?? { port: 0 }
    const client = await CLIENTS['SDK 2, of 2026-07-28 if the server knows it']?.(port, { 'x-api-key': key })
    expect(client?.protocolVersion).toBe(revision)
  })
})
