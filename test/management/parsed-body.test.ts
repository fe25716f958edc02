import express, { type RequestHandler } from 'express'
import express4 from 'express4'
import Koa from 'koa'
import { apiKeyRouter as expressRouter } from 'latchkey/management/express'
import { apiKeyRouter as koaRouter } from 'latchkey/management/koa'
import getRawBody from 'raw-body'
import { describe, expect, it } from 'vitest'
import { ACTORS, type BuildApp, createWorld } from '../support/management-world.ts'

/** An application that reads bodies before the interface does. */
const behind =
  (make: typeof express, ...parsers: RequestHandler[]): BuildApp =>
  (keys, options) =>
    make()
      .use(...(parsers as [RequestHandler]))
      .use('/api-keys', expressRouter(keys, options as never))

/** What koa-body and @koa/bodyparser do: they put what they have read on `ctx.request.body`. */
const behindKoa =
  (parse: (text: string) => unknown): BuildApp =>
  (keys, options) =>
    new Koa()
      .use(async (ctx, next) => {
        const text = await getRawBody(ctx.req, { encoding: true })
        ;(ctx.request as { body?: unknown }).body = parse(text)
        await next()
      })
      .use(koaRouter(keys, options as never))
      .callback()

const PARSERS: readonly (readonly [string, BuildApp])[] = [
  ['express.json() of Express 5', behind(express, express.json())],
  ['express.json() of Express 4', behind(express4, express4.json())],
  ['express.text()', behind(express, express.text({ type: '*/*' }))],
  ['express.raw()', behind(express, express.raw({ type: '*/*' }))],
  ['express.urlencoded(), which leaves JSON alone', behind(express, express.urlencoded({ extended: true }))],
  ['express.urlencoded() of Express 4', behind(express4, express4.urlencoded({ extended: true }))],
  ['a parser of Koa', behindKoa((text) => (text === '' ? {} : JSON.parse(text)))],
]

describe.each(PARSERS)('behind %s', (_name, build) => {
  const JSON_FORM = { 'Content-Type': 'application/x-www-form-urlencoded' }

  it('refuses a form, whatever it was read as', async () => {
    const { call, keys } = await createWorld({}, build)
    if (_name !== 'a parser of Koa') {
      const answer = await call('POST', '/', { as: 'alice', headers: JSON_FORM, body: 'name=x' })
      expect(answer.body).toMatchObject({ code: 'unsupported_media_type' })
    }
    expect((await keys.list()).apiKeys).toEqual([])
  })

  it('refuses members that are unknown, and __proto__', async () => {
    const { call } = await createWorld({}, build)
    for (const [body, field] of [
      ['{"name":"x","admin":true}', 'admin'],
      ['{"name":"x","__proto__":{"admin":true}}', '__proto__'],
    ]) {
      const answer = await call('POST', '/', { as: 'alice', body: body as string })
      expect(answer.body).toMatchObject({ code: 'invalid_request', field })
    }
  })

  it('reads what is sent, Unicode too, and a body that is empty', async () => {
    const { call } = await createWorld({}, build)
    const made = await call('POST', '/', { as: 'alice', json: { name: 'Schlüssel 🔑' } })
    expect(made.status).toBe(201)
    const { id, name } = made.body.apiKey as { id: string; name: string }
    expect(name).toBe('Schlüssel 🔑')
    expect((await call('POST', `/${id}/disable`, { as: 'alice' })).body).toMatchObject({ enabled: false })
  })
})

it('is a fault where a middleware has read the body and left nothing of it', async () => {
  const drain: RequestHandler = (req, _res, next) => {
    req.resume()
    req.on('end', () => next())
  }
  const { call, eventsOf } = await createWorld({}, behind(express, drain))
  const answer = await call('POST', '/', { as: 'alice', json: { name: 'x' } })
  expect(answer.body).toMatchObject({ status: 503, code: 'unavailable' })
  expect(eventsOf('fault')).toHaveLength(1)
})

it('answers at any path of Koa, and at the root where something else has taken the path away', async () => {
  const build =
    (path: string): BuildApp =>
    (keys, options) =>
      new Koa().use(koaRouter(keys, { ...(options as object), path } as never)).callback()
  const nested = await createWorld({ actor: () => ACTORS.alice as never }, build('/api-keys/v1/'))
  expect((await nested.call('GET', '/v1')).status).toBe(200)
  expect((await nested.call('GET', '/v1/')).status).toBe(200)
  const root = await createWorld({ actor: () => ACTORS.alice as never }, build('/'))
  expect((await root.call('GET', '')).body).toMatchObject({ code: 'not_found' })
  expect((await fetch(`http://127.0.0.1:${root.port}/`)).status).toBe(200)
  await expect(createWorld({}, build('api-keys'))).rejects.toThrow('"path" must begin with "/"')
})
