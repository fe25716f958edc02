import { inspect } from 'node:util'
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

it('shows no key to whoever inspects the request', async () => {
  const { keys } = createTestKeys()
  const { key } = await issueKey(keys)
  const app = express()
  app.use(apiKeyAuth(keys), (req, res) => {
    // As a logger does that takes out what it knows to be secret.
    req.headers = {}
    req.rawHeaders = []
    res.send(inspect(req, { depth: 20, showHidden: true }))
  })
  const { status, body } = await (await serve(app))('/', [`X-Api-Key: ${key}`])
  expect(status).toBe(200)
  expect(body).not.toContain(key)
})

it('is kept beside a stream that takes no properties', async () => {
  const { keys } = createTestKeys()
  const { key } = await issueKey(keys)
  const app = express()
  app.use((req, _res, next) => {
    Object.preventExtensions((req as { _readableState?: object })._readableState)
    next()
  })
  app.use(apiKeyAuth(keys), (req, res) => void res.json(getAuth(req).method))
  expect((await (await serve(app))('/', [`X-Api-Key: ${key}`])).json()).toBe('apikey')
})

it('is that of the request itself, whatever a client makes the application hang on it', async () => {
  const { keys } = createTestKeys()
  const { key } = await issueKey(keys)
  const app = express()
  app.use(express.json(), (req, _res, next) => {
    Object.assign(req, req.body)
    next()
  })
  app.use(apiKeyAuth(keys, { required: false }), (req, res) => void res.json(getAuth(req).method))
  const ask = await serve(app)
  const body = (headers: object) => ({ method: 'POST', json: { ctx: { req: { headers } } } })
  expect((await ask('/', ['X-Api-Key: junk'], body({}))).status).toBe(401)
  expect((await ask('/', [], body({ 'x-api-key': key }))).json()).toBe('none')
})
