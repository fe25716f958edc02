import type { RequestHandler } from 'express'
import { apiKeyAuth, getAuth, requireApiKey, requirePermissions } from 'latchkey/express'
import { describe, expect, it } from 'vitest'
import { EXPRESSES } from '../support/expresses.ts'
import { serve } from '../support/raw-http.ts'
import { createTestKeys, NAME } from '../support/test-keys.ts'

const WRITE = { projects: ['write'] }

const show: RequestHandler = (req, res) => {
  const auth = getAuth(req)
  const marked = auth.method === 'apikey' ? auth.apiKey.permissions : null
  res.json({ request: req.apiKey?.permissions, marked })
}

describe.each(EXPRESSES)('a key whose owner holds less, on %s', (_name, createApp) => {
  async function start() {
    const { keys } = createTestKeys({ ownerPermissions: () => ({ '*': ['read'] }) })
    const { key } = await keys.issue({ ...NAME, permissions: { projects: ['read', 'write'] } })
    const app = createApp()
    app.get('/auth', apiKeyAuth(keys, { permissions: WRITE }), show)
    app.get('/again', apiKeyAuth(keys), apiKeyAuth(keys, { permissions: WRITE }), show)
    app.get('/guard', apiKeyAuth(keys), requirePermissions(WRITE), show)
    app.get('/key', apiKeyAuth(keys), requireApiKey({ permissions: WRITE }), show)
    app.get('/', apiKeyAuth(keys, { permissions: { projects: ['read'] } }), show)
    const ask = await serve(app)
    return (path: string) => ask(path, [`X-Api-Key: ${key}`])
  }

  it.each(['/auth', '/again', '/guard', '/key'])(
    'is refused what only the key is permitted: %s',
    async (path) => {
      const answer = await (await start())(path)
      expect(answer.status).toBe(403)
      expect(answer.json()).toMatchObject({ code: 'insufficient_permissions', missing: WRITE })
    },
  )

  it('shows what both may do', async () => {
    const answer = await (await start())('/')
    expect(answer.status).toBe(200)
    expect(answer.json()).toEqual({ request: { projects: ['read'] }, marked: { projects: ['read'] } })
  })
})
