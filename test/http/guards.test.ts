import express from 'express'
import { apiKeyAuth, markSession, requireAuth, requirePermissions, requireSession } from 'latchkey/express'
import request from 'supertest'
import { describe, expect, it } from 'vitest'
import { createTestKeys, NAME } from '../support/test-keys.ts'

const SESSION_USER = { id: 'u_session' }

describe('a guard of sessions', () => {
  it.each([
    ['another header', { headers: ['X-Partner-Key'] }, (key: string) => ({ 'X-Partner-Key': key })],
    ['a bearer token', { bearer: true }, (key: string) => ({ Authorization: `Bearer ${key}` })],
    ['another scheme', { scheme: 'Acme' }, (key: string) => ({ Authorization: `acme ${key}` })],
  ] as const)('sees a key that another middleware reads from %s', async (_title, options, present) => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    const app = express()
    app.use(markSession({ user: () => SESSION_USER }))
    app.use('/api', apiKeyAuth(keys, options))
    app.get('/settings', requireSession(), (_req, res) => void res.json({}))
    app.get(
      '/write',
      requirePermissions({ a: ['b'] }, { accept: ['session'] }),
      (_req, res) => void res.json({}),
    )
    app.get('/told', requireSession({ headers: ['X-Api-Key'] }), (_req, res) => void res.json({}))
    await request(app).get('/settings').expect(200)
    for (const path of ['/settings', '/write']) {
      const answer = await request(app).get(path).set(present(key)).expect(403)
      expect(answer.body).toMatchObject({ code: 'session_required' })
    }
    // A guard that is told where to look looks nowhere else.
    await request(app).get('/told').set(present(key)).expect(200)
  })
})

describe('markSession', () => {
  it.each([
    ['false', false, 401],
    ['null', null, 401],
    ['undefined', undefined, 401],
    ['a promise', Promise.resolve(SESSION_USER), 500],
    ['0, which is a user like any other', 0, 200],
  ])('takes %s for what it is', async (_title, user, status) => {
    const app = express()
    app.set('env', 'test')
    app.use(markSession({ user: () => user }))
    app.get('/', requireAuth(), (_req, res) => void res.json({}))
    await request(app).get('/').expect(status)
  })
})

describe('a requirement', () => {
  it('stays what it was when the route was made', async () => {
    const { keys } = createTestKeys()
    const { key } = await keys.issue(NAME)
    const permissions = { projects: ['write'] }
    const app = express()
    app.get('/', apiKeyAuth(keys, { permissions }), (_req, res) => void res.json({}))
    permissions.projects.pop()
    await request(app).get('/').set('X-Api-Key', key).expect(403)
  })
})

describe('two verifications of one request at once', () => {
  it('charge it once, though neither has the record at hand', async () => {
    const { keys } = createTestKeys({ rateLimits: [{ name: 'minute', limit: 10, windowMs: 60_000 }] })
    const { key } = await keys.issue(NAME)
    const authenticate = apiKeyAuth(keys)
    const app = express()
    app.get('/', (req, res) => {
      const run = () => new Promise((resolve) => authenticate(req, res, resolve))
      void Promise.all([run(), run()]).then(() => res.json({}))
    })
    await request(app).get('/').set('X-Api-Key', key).expect(200)
    expect(await keys.verify(key, { cost: 0 })).toMatchObject({ limits: [{ remaining: 9 }] })
  })
})
