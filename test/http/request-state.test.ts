import express, { type RequestHandler } from 'express'
import { apiKeyAuth, getAuth } from 'latchkey/express'
import { expect, it } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { serve } from '../support/raw-http.ts'
import { createTestKeys } from '../support/test-keys.ts'

/** Serves an application that authenticates and then runs `route`; answers what came of a request with a key. */
async function askWithKey(route: RequestHandler) {
  const { keys } = createTestKeys()
  const app = express()
  app.use(apiKeyAuth(keys), route)
  const ask = await serve(app)
  return ask('/', [`X-Api-Key: ${(await issueKey(keys)).key}`])
}

it('proves nothing of an object that stands for the same stream', async () => {
  const answer = await askWithKey((req, res) => {
    const methods = [Object.create(req), new Proxy(req, {}), { ...req }, req].map(
      (one) => getAuth(one).method,
    )
    res.json(methods)
  })
  expect(answer.json()).toEqual(['other', 'other', 'other', 'apikey'])
})

it('is of no property that a request can be seen to have', async () => {
  const answer = await askWithKey((req, res) => {
    res.json(
      Reflect.ownKeys(req)
        .map(String)
        .filter((name) => name.includes('latchkey')),
    )
  })
  expect(answer.json()).toEqual([])
})
