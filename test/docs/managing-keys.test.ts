import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { readCodeBlocks } from '../support/markdown.ts'
import { runBlock } from '../support/run-block.ts'
import { ALICE, createTestKeys } from '../support/test-keys.ts'

const blocks = readCodeBlocks(readFileSync(new URL('../../docs/managing-keys.md', import.meta.url), 'utf8'))
const silent = { log() {} }

/** Runs the block under a heading, with a key of its own. */
async function run(heading: string, wanted: readonly string[] = []) {
  const { keys, eventsOf } = createTestKeys()
  const { key, apiKey } = await issueKey(keys)
  const block = blocks.find((one) => one.heading === heading)
  const declares = (name: string) =>
    new RegExp(`const (?:${name}|\\{.*\\b${name}\\b.*\\}) =`).test(block?.text ?? '')
  const given = { keys, owner: ALICE, id: apiKey.id, key, apiKey, console: silent }
  const scope = Object.fromEntries(Object.entries(given).filter(([name]) => !declares(name)))
  const declared = await runBlock(block?.text ?? '', scope, wanted)
  return { keys, eventsOf, id: apiKey.id, key, declared }
}

it('issues, lists, changes and revokes a key', async () => {
  const { keys, declared } = await run('Manage keys in code', ['key', 'apiKey'])
  const { key, apiKey } = declared as { key: string; apiKey: { id: string } }
  expect(await keys.verify(key)).toMatchObject({ ok: false, reason: 'revoked' })
  expect(await keys.get(apiKey.id)).toMatchObject({
    name: 'CI, new',
    revokedBy: 'u_1',
    revokedReason: 'left in a log',
  })
})

it('lists page by page', async () => {
  const { declared } = await run('Read and list', ['apiKeys', 'nextCursor', 'next'])
  expect(declared).toMatchObject({
    apiKeys: [{ name: 'CI' }],
    nextCursor: undefined,
    next: { apiKeys: [{ name: 'CI' }] },
  })
})

it('changes one version, and enables what was disabled', async () => {
  const { keys, id } = await run('Change')
  expect(await keys.get(id)).toMatchObject({ rateLimits: [], expiresAt: null, enabled: true })
})

it('lets both keys work for an hour after a rotation', async () => {
  const { keys, id, key, declared } = await run('Rotate', ['key'])
  expect(await keys.verify(key)).toMatchObject({ ok: true })
  expect(await keys.verify(declared.key as string)).toMatchObject({ ok: true })
  await expect(keys.rotate(id)).rejects.toMatchObject({ code: 'conflict' })
})

it('revokes keys one by one, of an owner and of an issuer', async () => {
  const { keys, id, eventsOf } = await run('Revoke')
  expect(await keys.get(id)).toMatchObject({ revokedBy: 'u_1' })
  expect([eventsOf('owner.revoked').length, eventsOf('creator.revoked').length]).toEqual([1, 2])
})

it('removes an owner, working keys included', async () => {
  const { keys, id } = await run('Remove')
  expect(await keys.get(id)).toBeNull()
})

it('takes ids, so that a second try finds the first', async () => {
  const { keys } = await run('Retries')
  const again = { id: 'XbC3f8K2mPq9TzRw', owner: ALICE, name: 'CI' }
  await expect(keys.issue(again)).rejects.toMatchObject({ code: 'duplicate_key' })
  expect(await keys.get('k7Qm2VxPz9LtRw4B')).toMatchObject({ name: 'CI' })
})

it.each(['Verify', 'When a change takes effect', 'Find leaked keys'])(
  'has code that runs: %s',
  async (heading) => {
    await expect(run(heading)).resolves.toBeDefined()
  },
)
