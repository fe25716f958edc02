import { readFileSync } from 'node:fs'
import express from 'express'
import { apiKeyRouter } from 'latchkey/management/express'
import { expect, it } from 'vitest'
import { type CurlAnswer, fetcher } from '../support/curl.ts'
import { issueKey } from '../support/issue-key.ts'
import { readCodeBlocks } from '../support/markdown.ts'
import { listen } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { expectAnswer } from '../support/shown-answer.ts'
import { createTestKeys } from '../support/test-keys.ts'

const page = readFileSync(new URL('../../docs/why-refused.md', import.meta.url), 'utf8')
const blocks = readCodeBlocks(page)
const codeOf = (language: string) =>
  blocks.filter((block) => block.language === language).map(({ text }) => text)

/** Runs a block, and returns what it has printed. */
async function printedBy(text: string, scope: Record<string, unknown>): Promise<unknown[][]> {
  const printed: unknown[][] = []
  await runBlock(text, { ...scope, console: { log: (...line: unknown[]) => void printed.push(line) } })
  return printed
}

it('prints what the guide says', async () => {
  const { keys } = createTestKeys()
  const { key } = await issueKey(keys)
  const [text = ''] = codeOf('ts')
  const printed = (await printedBy(text, { keys, key })).map((line) => line.join(' '))
  const shown = text.split('\n').filter((line) => line.startsWith('// ') && line !== '// …')
  expect(shown).toHaveLength(5)
  for (const line of shown) expect(printed).toContain(line.slice(3))
  expect(`${printed[0]} null`).toBe('insufficient_permissions  null')
})

it('says that a cost wider than a limit never passes', async () => {
  const { keys } = createTestKeys({
    rateLimits: [{ name: 'tokens', limit: 1_000, windowMs: 60_000, only: 'named' }],
  })
  const { apiKey } = await issueKey(keys)
  const printed = await printedBy(codeOf('ts')[1] ?? '', { keys, id: apiKey.id })
  expect(printed).toMatchObject([[[{ name: 'tokens', limit: 1_000 }], null]])
})

it('answers over HTTP as the guide says', async () => {
  const { keys } = createTestKeys({ prefix: 'acme' })
  const { key, apiKey } = await issueKey(keys, { name: 'Deploys' })
  await keys.revoke(apiKey.id)
  const app = express().use('/api-keys', apiKeyRouter(keys, { actor: () => ({ id: 'u_1', admin: true }) }))
  const origin = `http://127.0.0.1:${await listen(app)}`
  const [command = ''] = codeOf('sh')
  const sent = command.trim().replace('http://localhost:3000', origin).replace('acme_…', key)
  const [answer] = (await fetcher()(sent)) as [CurlAnswer]
  const shown = blocks.find(({ language }) => language === 'http')
  expectAnswer(shown as NonNullable<typeof shown>, answer)
})
