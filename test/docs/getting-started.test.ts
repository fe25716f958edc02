import { readFileSync } from 'node:fs'
import express, { type RequestHandler } from 'express'
import type { ApiKey, ApiKeys } from 'latchkey'
import { expect, it } from 'vitest'
import { type CodeBlock, readCodeBlocks } from '../support/markdown.ts'
import { listen } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { expectShownAnswers } from '../support/shown-answers.ts'

const page = readFileSync(new URL('../../docs/getting-started.md', import.meta.url), 'utf8')
const blocks = readCodeBlocks(page)

it('answers as the guide shows, step by step', async () => {
  const printed: string[] = []
  const create: RequestHandler = (_req, res) => void res.sendStatus(201)
  const console = { log: (text: string) => void printed.push(text) }
  const app = express()
  const scope: Record<string, unknown> = { app, create, console }
  const port = await listen(app)
  const run = async (step: string, wanted: string[] = []) => {
    const [code] = blocksOf(step, ['ts'])
    Object.assign(
      scope,
      await runBlock((code as CodeBlock).text.replace('keys.db', ':memory:'), scope, wanted),
    )
  }
  const expectAnswers = (step: string) => {
    const shown = blocksOf(step, ['sh', 'http']).filter(({ text }) => !text.startsWith('npm '))
    return expectShownAnswers(shown, port, { $KEY: scope.key as string })
  }

  await run('1. Store keys', ['keys', 'store'])
  await run('2. Issue a key', ['key', 'apiKey'])
  expect(printed).toEqual([scope.key, (scope.apiKey as ApiKey).id])
  await run('3. Protect a route')
  await expectAnswers('3. Protect a route')
  await run('4. Let users make keys')
  await expectAnswers('4. Let users make keys')
  await run('5. Revoke a key')
  await expectAnswers('5. Revoke a key')
  await (scope.keys as ApiKeys).close()
})

function blocksOf(heading: string, languages: readonly string[]): CodeBlock[] {
  const found = blocks.filter((block) => block.heading === heading && languages.includes(block.language))
  expect(found.length, heading).toBeGreaterThan(0)
  return found
}
