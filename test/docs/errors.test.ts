import { readdirSync, readFileSync } from 'node:fs'
import express, { type RequestHandler } from 'express'
import { type ErrorCode, LatchkeyError } from 'latchkey'
import { apiKeyAuth } from 'latchkey/express'
import { expect, it, vi } from 'vitest'
import { toProblem } from '../../lib/http/problem.ts'
import { readPublicTypes } from '../support/compiler.ts'
import { type CurlAnswer, fetcher } from '../support/curl.ts'
import { issueKey } from '../support/issue-key.ts'
import { type CodeBlock, codeIn, readCodeBlocks, readTable } from '../support/markdown.ts'
import { listen } from '../support/raw-http.ts'
import { expectShown } from '../support/shown-answers.ts'
import { createTestKeys } from '../support/test-keys.ts'

// A compiler is slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const page = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8')
const sections = [...page.matchAll(/^### `(\w+)`\n\n(?:\*\*(\d+)\.\*\*)?/gm)]

it('has a section for every code, with its status', () => {
  const listed = sections.filter(([, , status]) => status).map(([, code, status]) => [code, Number(status)])
  const codes = readPublicTypes('latchkey').literals('ErrorCode') as ErrorCode[]
  expect(sorted(listed)).toEqual(sorted(codes.map((code) => [code, new LatchkeyError(code).status])))
})

it('is found by the end of `type`, for every code', () => {
  const headings = [...page.matchAll(/^### `(.+)`$/gm)].map(([, heading]) => heading)
  for (const code of readPublicTypes('latchkey').literals('ErrorCode') as ErrorCode[]) {
    const { type } = toProblem(new LatchkeyError(code))
    expect(headings).toContain(type.split(':').at(-1))
  }
})

it('has a section for every process warning', () => {
  const listed = sections.filter(([, , status]) => !status).map(([, name]) => name)
  const lib = new URL('../../lib/', import.meta.url)
  const given = readdirSync(lib, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .flatMap((name) => readFileSync(new URL(name, lib), 'utf8').match(/(?<=')LATCHKEY_\w+(?=')/g) ?? [])
  expect(sorted(listed)).toEqual(sorted([...new Set(given)]))
})

it('lists every reason for an invalid key', () => {
  const listed = readTable(page, 'reason').flatMap(([names = '']) => codeIn(names))
  expect(sorted(listed)).toEqual(sorted(readPublicTypes('latchkey').literals('InvalidReason')))
})

it('shows refusals as they are answered', async () => {
  const { keys } = createTestKeys({ rateLimits: [{ name: 'minute', limit: 1, windowMs: 60_000 }] })
  const answer: RequestHandler = (_req, res) => void res.json({})
  const app = express()
  app.get('/', apiKeyAuth(keys), answer)
  app.post('/', apiKeyAuth(keys, { permissions: { projects: ['write'] } }), answer)
  const url = `http://localhost:${await listen(app)}/`
  const { key } = await issueKey(keys, { permissions: { projects: ['read'] } })
  const run = fetcher()
  const [forbidden] = await run(`curl -i -X POST ${url} -H 'X-Api-Key: ${key}'`)
  await run(`curl -i ${url} -H 'X-Api-Key: ${key}'`)
  const [limited] = await run(`curl -i ${url} -H 'X-Api-Key: ${key}'`)
  const shown = readCodeBlocks(page).filter(({ language }) => language === 'http')
  expect(shown).toHaveLength(2)
  expectShown(shown[0] as CodeBlock, forbidden as CurlAnswer)
  expectShown(shown[1] as CodeBlock, limited as CurlAnswer)
})

function sorted<T>(values: readonly T[]): T[] {
  return [...values].sort((a, b) => String(a).localeCompare(String(b)))
}
