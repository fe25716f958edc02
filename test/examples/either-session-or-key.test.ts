import { type ApiKeys, createApiKeys, memoryRateLimiter, memoryStore, type Permissions } from 'latchkey'
import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createApp } from '../../examples/either-session-or-key/app.ts'
import { curlLines } from '../../examples/either-session-or-key/curl-lines.ts'
import { createDemoUsers, DEMO_PASSWORDS, type Users } from '../../examples/express/users.ts'
import { describeReadme } from '../support/example.ts'
import { type Answer, type Ask, type AskOptions, serve } from '../support/raw-http.ts'

const ORIGIN = 'https://app.example'
const OWN_PAGE = `Origin: ${ORIGIN}`
const JUNK = 'X-Api-Key: junk'

describeReadme('either-session-or-key', curlLines('', ''))

describe('the application', () => {
  let users: Users
  let keys: ApiKeys
  let ask: Ask

  beforeAll(async () => {
    users = await createDemoUsers()
  })
  beforeEach(async () => {
    keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'demo' })
    ask = await serve(createApp({ keys, users, origin: ORIGIN }))
    return () => keys.close()
  })

  async function keyLineOf(userId: string, permissions: Permissions = { projects: ['read', 'write'] }) {
    const { key } = await keys.issue({ owner: { type: 'user', id: userId }, name: 'test', permissions })
    return `X-Api-Key: ${key}`
  }

  async function logIn(username: keyof typeof DEMO_PASSWORDS, lines = [OWN_PAGE]): Promise<string> {
    const json = { username, password: DEMO_PASSWORDS[username] }
    const answer = await ask('/login', lines, { method: 'POST', json })
    expect(answer.status).toBe(200)
    return `Cookie: ${answer.header('Set-Cookie')?.split(';')[0]}`
  }

  /** What each route that changes something is asked. */
  const CHANGES: Record<string, AskOptions> = {
    '/projects': { method: 'POST', json: { name: 'loom' } },
    '/settings': { method: 'PUT', json: { theme: 'dark' } },
    '/keys': { method: 'POST', json: { name: 'CI' } },
    '/keys/0000000000000000': { method: 'DELETE' },
    '/logout': { method: 'POST' },
    '/login': { method: 'POST', json: { username: 'ada', password: DEMO_PASSWORDS.ada } },
  }

  it.each([
    ['nothing', []],
    ['another page', ['Origin: https://evil.example']],
    ['a page of a sibling', ['Origin: https://app.example.evil.example', 'Sec-Fetch-Site: same-site']],
    ['a page without an origin', ['Origin: null', 'Sec-Fetch-Site: cross-site']],
    ['another page that gives our origin', [OWN_PAGE, 'Sec-Fetch-Site: cross-site']],
    ['the address bar', ['Sec-Fetch-Site: none']],
    ['a token of another kind', ['Authorization: Bearer junk']],
    ['an empty key', ['X-Api-Key:', 'Authorization: Api-Key']],
  ])('changes nothing for a cookie from %s', async (_where, lines) => {
    const cookie = await logIn('ada')
    for (const [path, options] of Object.entries(CHANGES)) {
      const answer = await ask(path, [cookie, ...lines], options)
      expect([path, answer.status, answer.json().title]).toEqual([
        path,
        403,
        'Only our own pages may ask for this',
      ])
    }
    expect((await ask('/settings', [cookie])).json()).toEqual({ user: 'ada', theme: 'light' })
    expect((await ask('/projects', [cookie])).body).not.toContain('loom')
  })

  // A page that logs its visitor in under an account of its own sees what the visitor then writes there.
  it.each([
    ['another page', ['Origin: https://evil.example']],
    ['another page, over HTTPS', ['Origin: https://evil.example', 'Sec-Fetch-Site: cross-site']],
    ['nowhere', []],
  ])('logs nobody in who is nobody yet, from %s', async (_where, lines) => {
    const answer = await ask('/login', lines, CHANGES['/login'])
    expect([answer.status, answer.json().title]).toEqual([403, 'Only our own pages may ask for this'])
    expect(answer.all('Set-Cookie')).toEqual([])
  })

  it.each([
    ['junk', () => JUNK],
    ['junk under the scheme', () => 'Authorization: Api-Key junk'],
    [
      'a revoked key',
      async () => {
        const line = await keyLineOf('u_1')
        await keys.revokeOwner({ type: 'user', id: 'u_1' })
        return line
      },
    ],
    ['the key of nobody here', () => keyLineOf('u_9')],
  ])('changes nothing for a cookie with %s, from our own page or another', async (_what, present) => {
    const cookie = await logIn('ada')
    const line = await present()
    for (const lines of [
      [cookie, line],
      [cookie, line, OWN_PAGE],
    ]) {
      for (const [path, options] of Object.entries(CHANGES)) {
        const answer = await ask(path, lines, options)
        expect([path, answer.status, answer.json().code]).toEqual([path, 401, 'invalid_key'])
      }
    }
    expect((await ask('/settings', [cookie])).json()).toEqual({ user: 'ada', theme: 'light' })
  })

  it.each([
    ['Origin', [OWN_PAGE]],
    ['Sec-Fetch-Site', ['Sec-Fetch-Site: same-origin']],
  ])('takes a cookie from our own page, by %s', async (_name, lines) => {
    const cookie = await logIn('ada', lines)
    const answers: Answer[] = []
    for (const path of ['/projects', '/settings', '/keys', '/logout']) {
      answers.push(await ask(path, [cookie, ...lines], CHANGES[path]))
    }
    expect(answers.map(({ status }) => status)).toEqual([201, 200, 201, 204])
    expect((await ask('/settings', [cookie])).status).toBe(401)
  })

  it('takes a key from anywhere, and lets it do what it is permitted', async () => {
    const [reader, writer] = [await keyLineOf('u_2', { projects: ['read'] }), await keyLineOf('u_2')]
    for (const lines of [[], ['Origin: https://evil.example', 'Sec-Fetch-Site: cross-site']]) {
      const added = await ask('/projects', [writer, ...lines], CHANGES['/projects'])
      expect([added.status, added.json().by]).toEqual([201, 'grace'])
      expect((await ask('/projects', [reader, ...lines], CHANGES['/projects'])).json().code).toBe(
        'insufficient_permissions',
      )
    }
    expect((await ask('/projects', [reader])).status).toBe(200)
  })

  it('lets no key touch settings or keys, or end a session, whatever cookie comes with it', async () => {
    const cookie = await logIn('ada')
    const key = await keyLineOf('u_1', { '*': ['*'] })
    for (const lines of [[key], [cookie, key], [cookie, key, OWN_PAGE]]) {
      for (const path of ['/settings', '/keys', '/keys/0000000000000000', '/logout']) {
        const answer = await ask(path, lines, CHANGES[path])
        expect([path, answer.status, answer.json().code]).toEqual([path, 403, 'session_required'])
      }
      for (const path of ['/settings', '/keys']) expect((await ask(path, lines)).status).toBe(403)
    }
    expect((await ask('/settings', [cookie])).json()).toEqual({ user: 'ada', theme: 'light' })
  })

  it('is the key’s where both come, with no right of the session’s, and sets no cookie', async () => {
    const cookie = await logIn('ada')
    const reader = await keyLineOf('u_2', { projects: ['read'] })
    const answer = await ask('/me', [cookie, reader])
    expect(answer.json()).toEqual({ user: 'grace', by: 'apikey' })
    const refused = await ask('/projects', [cookie, reader, OWN_PAGE], CHANGES['/projects'])
    expect([refused.status, refused.json().code]).toEqual([403, 'insufficient_permissions'])
    expect([...answer.all('Set-Cookie'), ...refused.all('Set-Cookie')]).toEqual([])
    expect((await ask('/me', [cookie])).json()).toEqual({ user: 'ada', by: 'session' })
  })

  it('begins a new session at every login, and none for a wrong password', async () => {
    const cookie = await logIn('ada')
    expect(await logIn('grace', [OWN_PAGE, cookie])).not.toBe(cookie)
    expect((await ask('/me', [cookie])).status).toBe(401)
    for (const json of [{ username: 'ada', password: 'wrong' }, { username: 'ada' }, {}]) {
      const answer = await ask('/login', [OWN_PAGE], { method: 'POST', json })
      expect([answer.status, answer.all('Set-Cookie')]).toEqual([401, []])
    }
  })

  it('lets people issue, list and revoke keys of their own', async () => {
    const cookie = await logIn('ada')
    const issued = (await ask('/keys', [cookie, OWN_PAGE], CHANGES['/keys'])).json()
    const line = `X-Api-Key: ${issued.key}`
    expect((await ask('/me', [line])).json()).toEqual({ user: 'ada', by: 'apikey' })
    expect((await ask('/keys', [cookie])).json()).toMatchObject({ keys: [{ id: issued.id }] })
    expect((await ask(`/keys/${issued.id}`, [cookie, OWN_PAGE], { method: 'DELETE' })).status).toBe(204)
    expect((await ask('/me', [line])).status).toBe(401)
  })
})
