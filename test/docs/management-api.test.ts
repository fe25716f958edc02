import { readFileSync } from 'node:fs'
import express, { type RequestHandler } from 'express'
import { apiKeyRouter } from 'latchkey/management/express'
import { afterEach, expect, it, vi } from 'vitest'
import { type CurlAnswer, fetcher, type RunCurl } from '../support/curl.ts'
import { type CodeBlock, readCodeBlocks } from '../support/markdown.ts'
import { listen } from '../support/raw-http.ts'
import { runBlock } from '../support/run-block.ts'
import { expectAnswer } from '../support/shown-answer.ts'
import { createTestKeys } from '../support/test-keys.ts'

const codeOf = (page: string) =>
  readCodeBlocks(readFileSync(new URL(`../../docs/${page}`, import.meta.url), 'utf8'))

afterEach(() => void vi.useRealTimers())

it('answers the commands of the guide as it says', async () => {
  const blocks = codeOf('management-api.md')
  const { keys, clock } = createTestKeys({ prefix: 'acme' })
  // The router of the guide goes by the machine's clock.
  vi.useFakeTimers({ now: clock.now(), toFake: ['Date'] })
  const app = express().use(loginByCookie)
  await runBlock(blocks.find(({ language }) => language === 'ts')?.text ?? '', { app, keys })
  const run = fetcher()
  const origin = `http://127.0.0.1:${await listen(app)}`
  await run(`curl -c cookies.txt ${origin}/login`)

  let issued = ''
  const wire = blocks.filter(({ language }) => language === 'sh' || language === 'http')
  expect(wire.length).toBeGreaterThanOrEqual(14)
  let command = ''
  for (const block of wire) {
    // An answer without a command before it is that to the same request, sent again.
    if (block.language === 'sh') {
      command = block.text.trim().replace('http://localhost:3000', origin).replace('acme_…', issued)
      continue
    }
    const [answer] = (await run(command)) as [CurlAnswer]
    issued ||= JSON.parse(answer.body).key
    expectAnswer(block, answer)
  }
})

it('answers another service as the guide says', async () => {
  const blocks = codeOf('remote-verification.md').filter(({ language }) => language !== 'ts')
  const [command, valid, invalid] = blocks as [CodeBlock, CodeBlock, CodeBlock]
  expect(blocks).toHaveLength(3)
  const { keys } = createTestKeys({
    prefix: 'acme',
    rateLimits: [{ name: 'minute', limit: 100, windowMs: 60_000 }],
  })
  const permissions = { 'api-keys': ['verify'] }
  const service = await keys.issue({
    owner: { type: 'service', id: 'reports' },
    name: 'reports',
    permissions,
  })
  const client = await keys.issue({
    owner: { type: 'user', id: 'u_1' },
    name: 'CI',
    permissions: { projects: ['read'] },
  })
  const app = express().use('/api-keys', apiKeyRouter(keys, { actor: () => null }))
  const origin = `http://127.0.0.1:${await listen(app)}`
  const ask = async (run: RunCurl, key: string) => {
    const line = command.text.trim().replace('http://localhost:3000', origin)
    const [answer] = await run(
      line.replace('<key of the service>', service.key).replace('<key of the client>', key),
    )
    return answer as CurlAnswer
  }
  expectAnswer(valid, await ask(fetcher(), client.key))
  const refused = await ask(fetcher(), 'anything')
  expectAnswer(invalid, refused)
  expect(JSON.parse(refused.body)).toEqual({ active: false })
})

/** A login as an application may have it. */
const loginByCookie: RequestHandler = (req, res, next) => {
  if (req.path === '/login') {
    res.setHeader('Set-Cookie', 'session=ada; HttpOnly').end()
    return
  }
  if (req.get('Cookie') === 'session=ada') Object.assign(req, { user: { id: 'u_1', isAdmin: false } })
  next()
}
