import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import express from 'express'
import { type IssuedKey, secretScanningPattern } from 'latchkey'
import { apiKeyRouter } from 'latchkey/management/express'
import { expect, it } from 'vitest'
import { fetcher } from '../support/curl.ts'
import { readCodeBlocks } from '../support/markdown.ts'
import { listen } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { createTestKeys, NAME, type TestKeys } from '../support/test-keys.ts'

const blocks = readCodeBlocks(readFileSync(new URL('../../docs/key-leaked.md', import.meta.url), 'utf8'))
const under = (heading: string) => blocks.filter((block) => block.heading === heading).map(({ text }) => text)
const [rotate = '', revoke = '', ...requests] = under('A key has leaked')

async function setUp(): Promise<TestKeys & IssuedKey> {
  const made = createTestKeys()
  return { ...made, ...(await made.keys.issue({ ...NAME, rateLimits: [] })) }
}

it('replaces a key at once', async () => {
  const { keys, key, apiKey, events } = await setUp()
  const successor = await runBlock(rotate, { keys, id: apiKey.id }, ['key'])
  expect((await keys.verify(key)).ok).toBe(false)
  expect((await keys.verify(successor.key as string)).ok).toBe(true)
  expect(events).toContainEqual(expect.objectContaining({ type: 'key.refused', reason: 'expired' }))
})

it('revokes a key at once', async () => {
  const { keys, key, apiKey, events } = await setUp()
  await runBlock(revoke, { keys, id: apiKey.id })
  expect((await keys.verify(key)).ok).toBe(false)
  expect(events).toContainEqual(expect.objectContaining({ type: 'key.refused', reason: 'revoked' }))
})

it('does both over HTTP, and lets a key end itself', async () => {
  const { keys } = createTestKeys()
  const app = express()
  app.use('/api-keys', apiKeyRouter(keys, { actor: () => ({ id: 'u_admin', owners: [], admin: true }) }))
  const url = `http://127.0.0.1:${await listen(app)}`
  const commands = requests.flatMap((text) => text.trim().split('\n'))
  expect(commands).toHaveLength(3)
  for (const command of commands) {
    const { key, apiKey } = await keys.issue(NAME)
    const line = command
      .replace('https://app.example.com', url)
      .replace('$ID', apiKey.id)
      .replace('$KEY', key)
      .replace(' -b cookies.txt', '')
    const [answer] = await fetcher()(line)
    expect([command, answer?.status]).toEqual([command, command.includes('/rotate') ? 201 : 200])
    expect((await keys.verify(key)).ok).toBe(false)
  }
})

it('finds the id of a key', async () => {
  const { keys, key, apiKey } = await setUp()
  const [byText = '', byAsking = ''] = under('Find the id')
  const { idOf } = await runBlock(byText.replace('export ', ''), {}, ['idOf'])
  expect((idOf as (key: string) => string)(key)).toBe(apiKey.id)
  expect((idOf as (key: string) => unknown)('sk_live_1')).toBeUndefined()
  const { result } = await runBlock(byAsking, { keys, key, console: { log() {} } }, ['result'])
  expect(result).toMatchObject({ ok: true, apiKey: { id: apiKey.id } })
})

it('shows the pattern that finds keys, for grep too', async () => {
  const [pattern = '', scan = ''] = under('Find leaks before others do')
  const source = secretScanningPattern('acme_live')
  expect(pattern).toContain(`// ${quote(source)}\n`)
  expect(scan).toContain(`'${source}'`)
  const { keys } = createTestKeys({ prefix: 'acme_live' })
  const { key } = await keys.issue(NAME)
  const command = scan.replace(/^git .* \| /, '')
  const { stdout } = spawnSync('sh', ['-c', command], { input: `nothing\nkey: "${key}"\n`, encoding: 'utf8' })
  expect(stdout).toBe(`key: "${key}"\n`)
})

function quote(text: string): string {
  return `'${text.replaceAll('\\', '\\\\')}'`
}
