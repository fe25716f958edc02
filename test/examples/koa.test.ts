import { type ApiKeys, createApiKeys, memoryRateLimiter, memoryStore, type Permissions } from 'latchkey'
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { createDemoUsers, DEMO_PASSWORDS } from '../../examples/express/users.ts'
import { createApp } from '../../examples/koa/app.ts'
import { curlLines } from '../../examples/koa/curl-lines.ts'
import { describeReadme } from '../support/example.ts'
import { type Ask, serve } from '../support/raw-http.ts'

describeReadme('koa', curlLines('', ''))

describe('the application', () => {
  let ask: Ask
  let keys: ApiKeys

  beforeEach(() => {
    keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'demo' })
  })

  async function start(): Promise<void> {
    // What Koa has to say of the client's mistakes is no line in a log.
    const stderr = vi.spyOn(console, 'error')
    ask = await serve(createApp({ keys, users: await createDemoUsers() }).callback())
    onTestFinished(() => expect(stderr).not.toHaveBeenCalled())
  }

  async function keyLine(permissions: Permissions, id = 'u_1'): Promise<string> {
    const { key } = await keys.issue({ owner: { type: 'user', id }, name: 'test', permissions })
    return `X-Api-Key: ${key}`
  }

  async function logIn(password: string = DEMO_PASSWORDS.ada) {
    const answer = await ask('/login', [], { method: 'POST', json: { username: 'ada', password } })
    const cookie = answer.all('Set-Cookie').map((value) => value.split(';')[0])
    return { answer, cookie: `Cookie: ${cookie.join('; ')}` }
  }

  it('begins no session for a wrong password, or for what is no JSON', async () => {
    await start()
    const { answer } = await logIn('analytical')
    expect(answer.status).toBe(401)
    expect(answer.all('WWW-Authenticate')).toEqual(['Session realm="Users"'])
    expect(answer.all('Set-Cookie')).toEqual([])
    const form = ['Content-Type: application/x-www-form-urlencoded', 'Content-Length: 0']
    expect((await ask('/login', form, { method: 'POST' })).status).toBe(415)
    const long = { method: 'POST', json: { username: 'x'.repeat(20_000) } }
    expect((await ask('/login', [], long)).status).toBe(413)
    expect((await ask('/login', [], { method: 'POST', json: null })).status).toBe(401)
    const broken = ['Content-Type: application/json', 'Content-Length: 1', '', '{']
    expect((await ask('/login', broken, { method: 'POST' })).status).toBe(400)
  })

  it('begins a session in a cookie that scripts and other sites cannot use', async () => {
    await start()
    const { answer, cookie } = await logIn()
    for (const value of answer.all('Set-Cookie')) expect(value).toMatch(/; samesite=lax; httponly$/)
    expect((await ask('/settings', [cookie])).json()).toEqual({ user: 'ada', theme: 'dark' })
    expect((await ask('/me', [cookie])).json()).toEqual({ user: 'ada', by: 'session' })
    expect((await ask('/settings', [cookie.replace(/session=./, 'session=X')])).status).toBe(401)
  })

  it('lets no key into settings, whatever session comes with it', async () => {
    await start()
    const { cookie } = await logIn()
    for (const key of [await keyLine({ '*': ['*'] }), 'X-Api-Key: junk']) {
      for (const lines of [[key], [key, cookie]]) {
        expect((await ask('/settings', lines)).json()).toMatchObject({ code: 'session_required' })
      }
    }
    expect((await ask('/me', [cookie, 'X-Api-Key: junk'])).json()).toMatchObject({ code: 'invalid_key' })
  })

  it('takes keys where it says so, by their permissions, and no session', async () => {
    await start()
    const { cookie } = await logIn()
    const [reader, writer] = [await keyLine({ projects: ['read'] }), await keyLine({ projects: ['write'] })]
    expect((await ask('/projects', [cookie])).json()).toMatchObject({ code: 'missing_key' })
    expect((await ask('/projects', [reader])).status).toBe(200)
    expect((await ask('/projects', [writer])).status).toBe(403)
    expect((await ask('/projects/loom', [writer], { method: 'DELETE' })).status).toBe(204)
    expect((await ask('/me', [reader])).json()).toEqual({ user: 'ada', by: 'apikey', key: 'test' })
    expect((await ask('/me', [await keyLine({}, 'u_nobody')])).status).toBe(401)
  })

  it('answers other methods and addresses as routers do, and keeps answers out of shared caches', async () => {
    await start()
    expect((await ask('/projects', [], { method: 'PUT' })).status).toBe(405)
    expect((await ask('/nowhere')).status).toBe(404)
    expect((await ask('/')).all('Cache-Control')).toEqual(['private'])
    expect((await ask('/projects')).all('Cache-Control')).toEqual(['no-store'])
  })
})
