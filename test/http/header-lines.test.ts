import { createServer as createHttpServer } from 'node:http'
import { connect, createServer as createHttp2Server, type IncomingHttpHeaders } from 'node:http2'
import { type AddressInfo, connect as connectTcp } from 'node:net'
import express, { type RequestHandler } from 'express'
import Koa from 'koa'
import { apiKeyAuth, getAuth, requireAuth, requireSession } from 'latchkey/express'
import { apiKeyAuth as koaApiKeyAuth } from 'latchkey/koa'
import { describe, expect, it, onTestFinished } from 'vitest'
import { EXPRESSES } from '../support/expresses.ts'
import { issueKey } from '../support/issue-key.ts'
import { serve } from '../support/raw-http.ts'
import { createTestKeys, forgeKey } from '../support/test-keys.ts'

const trim: RequestHandler = (req, _res, next) => {
  for (const [name, value] of Object.entries(req.headers)) {
    if (typeof value === 'string') req.headers[name] = value.trim().replace(/^api-key /i, 'Api-Key ')
  }
  next()
}

const replaceAll: RequestHandler = (req, _res, next) => {
  req.headers = { host: 'localhost' }
  next()
}

describe.each(EXPRESSES)('header fields that a middleware has rewritten on %s', (_name, createApp) => {
  async function start(...before: RequestHandler[]) {
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys)
    const app = createApp()
    for (const middleware of before) app.use(middleware)
    app.get('/', apiKeyAuth(keys), (req, res) => void res.send(getAuth(req).method))
    app.get('/optional', apiKeyAuth(keys, { required: false }), requireAuth({ accept: ['apikey'] }))
    app.get('/session', (req, res, next) => {
      req.user = {} as Express.User
      requireSession()(req, res, next)
    })
    const ask = await serve(app)
    const codeOf = async (path: string, lines: string[]) => {
      const { body } = await ask(path, lines)
      return body.startsWith('{') ? (JSON.parse(body) as { code: string }).code : body
    }
    return { key, codeOf }
  }

  it('do not hide that a key came twice where they were only tidied up', async () => {
    const { key, codeOf } = await start(trim)
    expect(await codeOf('/', [`Authorization: API-KEY ${key}`])).toBe('apikey')
    for (const lines of [
      ['Authorization: API-KEY K', 'Authorization: API-KEY K'],
      ['Authorization: API-KEY K', 'Authorization: Bearer e30', 'authorization: api-key J'],
      ['X-Api-Key: K', 'X-Api-Key: J'],
      ['X-Api-Key: J', 'x-api-key: K', 'X-Api-Key:'],
    ]) {
      const sent = lines.map((line) =>
        line.replace(/\bJ$/, forgeKey(key, { secret: '0' })).replace(/\bK$/, key),
      )
      expect(await codeOf('/', sent), sent.join()).toBe('multiple_credentials')
    }
  })

  it('are gone where all were replaced at once', async () => {
    const { key, codeOf } = await start(replaceAll)
    expect(await codeOf('/', [`X-Api-Key: ${key}`, `X-Api-Key: ${key}`])).toBe('missing_key')
    expect(await codeOf('/optional', [`Authorization: Api-Key ${key}`])).toBe('missing_key')
  })

  it('decide for guards that nothing reads keys before', async () => {
    const [bare, put, cleared] = await Promise.all([
      start(),
      start((req, _res, next) => {
        req.headers.authorization = 'Api-Key junk'
        next()
      }),
      start((req, _res, next) => {
        req.headers['x-api-key'] = undefined
        next()
      }),
    ])
    expect(await bare.codeOf('/session', [])).toBe('session_required')
    expect(await bare.codeOf('/session', ['X-Api-Key: junk'])).toBe('session_required')
    expect(await put.codeOf('/session', [])).toBe('session_required')
    expect(await cleared.codeOf('/optional', ['X-Api-Key: junk'])).toBe('missing_key')
  })

  it('that are no text are a malformed key', async () => {
    for (const value of [7, {}, ['', Buffer.from('key')]]) {
      const { codeOf } = await start((req, _res, next) => {
        Object.assign(req.headers, { 'x-api-key': value })
        next()
      })
      expect(await codeOf('/', [])).toBe('invalid_key')
    }
  })
})

it('counts a field that Node joins where it is told to join all', async () => {
  const { keys } = createTestKeys()
  const { key } = await issueKey(keys)
  const app = express().use(apiKeyAuth(keys, { refuseWith: 'problem' }))
  const server = createHttpServer({ joinDuplicateHeaders: true }, app)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void server.close())
  const line = `Authorization: Api-Key ${key}\r\n`
  const answer = await new Promise<string>((resolve) => {
    const socket = connectTcp((server.address() as AddressInfo).port, '127.0.0.1', () =>
      socket.end(`GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${line}${line}\r\n`),
    )
    socket.once('data', (chunk) => resolve(chunk.toString()))
  })
  expect(answer).toContain('multiple_credentials')
})

describe('header fields of HTTP/2, with Koa', () => {
  /** What is answered to these fields; `{key}` stands for a good key. */
  async function ask(
    fields: Record<string, string | string[]>,
    rewrite: (headers: IncomingHttpHeaders) => void = () => {},
  ): Promise<string> {
    const { keys } = createTestKeys()
    const { key } = await issueKey(keys)
    const app = new Koa()
    app.use((ctx, next) => {
      rewrite(ctx.request.headers)
      return next()
    })
    app.use(koaApiKeyAuth(keys))
    app.use((ctx) => {
      ctx.body = 'admitted'
    })
    const server = createHttp2Server(app.callback())
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const client = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    const filled = JSON.parse(JSON.stringify(fields).replaceAll('{key}', key)) as typeof fields
    const stream = client.request({ ':path': '/', ...filled }).setEncoding('utf8')
    let body = ''
    for await (const chunk of stream) body += chunk
    client.close()
    server.close()
    return body === 'admitted' ? body : (JSON.parse(body) as { code: string }).code
  }

  it('are read, and counted', async () => {
    expect(await ask({ 'x-api-key': '{key}' })).toBe('admitted')
    expect(await ask({ authorization: 'api-key {key}' })).toBe('admitted')
    expect(await ask({ 'x-api-key': ['{key}', '{key}'] })).toBe('multiple_credentials')
    expect(await ask({ 'x-api-key': '{key}', authorization: 'api-key {key}' })).toBe('multiple_credentials')
  })

  it('are what a middleware has made of them', async () => {
    const remove = (headers: IncomingHttpHeaders) => {
      delete headers['x-api-key']
    }
    expect(await ask({ 'x-api-key': ['{key}', '{key}'] }, remove)).toBe('missing_key')
    const move = (headers: IncomingHttpHeaders) => {
      headers['x-api-key'] = String(headers['x-ticket'])
    }
    expect(await ask({ 'x-ticket': '{key}' }, move)).toBe('admitted')
  })
})
