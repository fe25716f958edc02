import type { ApiKey, ApiKeyEvent, ApiKeys } from 'latchkey'
import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createApp } from '../../examples/existing-login/app.ts'
import { auditLine } from '../../examples/existing-login/audit-line.ts'
import { curlLines } from '../../examples/existing-login/curl-lines.ts'
import { createKeys } from '../../examples/existing-login/keys.ts'
import {
  createDemoUsers,
  DEMO_PASSWORDS,
  type User,
  type Users,
} from '../../examples/existing-login/users.ts'
import { describeReadme } from '../support/example.ts'
import { type Answer, type Ask, listen, serve } from '../support/raw-http.ts'
import { slowBody } from '../support/slow-body.ts'

const DAY_MS = 86_400_000
const UNKNOWN = '0000000000000000'

describeReadme('existing-login', curlLines('', '', ''))

describe('the application', () => {
  let users: Users
  let everybody: User[]
  let keys: ApiKeys
  let events: ApiKeyEvent[]
  let ask: Ask

  beforeAll(async () => {
    users = await createDemoUsers()
    everybody = ['u_1', 'u_2', 'u_3'].map((id) => users.find(id) as User)
  })
  beforeEach(async () => {
    for (const user of everybody) users.save(user)
    events = []
    keys = createKeys(users, (event) => events.push(event))
    ask = await serve(createApp({ keys, users }))
    return () => keys.close()
  })

  async function logIn(username: keyof typeof DEMO_PASSWORDS): Promise<string> {
    const answer = await ask('/login', [], {
      method: 'POST',
      json: { username, password: DEMO_PASSWORDS[username] },
    })
    expect(answer.status).toBe(200)
    return `Cookie: ${answer.header('Set-Cookie')?.split(';')[0]}`
  }

  /** A key that its owner might have, made without asking the interface. */
  async function issueFor(userId: string, permissions: ApiKey['permissions'] = { notes: ['read', 'write'] }) {
    const owner = { type: 'user', id: userId }
    const { key, apiKey } = await keys.issue({ owner, name: 'test', permissions, createdBy: userId })
    return { id: apiKey.id, apiKey, line: `X-Api-Key: ${key}` }
  }

  const post = (path: string, lines: readonly string[], json: object = {}) =>
    ask(`/api-keys${path}`, lines, { method: 'POST', json })
  const patch = (path: string, lines: readonly string[], json: object) =>
    ask(`/api-keys${path}`, lines, { method: 'PATCH', json })

  /** Asks for all that may be done with a key, and a bit that is about none. */
  async function askForEverything(lines: readonly string[], id: string): Promise<Answer[]> {
    return [
      ...(await askAbout(lines, id)),
      await ask('/api-keys', lines),
      await post('', lines, { name: 'x' }),
    ]
  }

  async function askAbout(lines: readonly string[], id: string): Promise<Answer[]> {
    const answers = [await ask(`/api-keys/${id}`, lines), await patch(`/${id}`, lines, { name: 'x' })]
    for (const action of ['enable', 'disable', 'rotate', 'revoke']) {
      answers.push(await post(`/${id}/${action}`, lines))
    }
    return answers
  }

  const codesOf = (answers: readonly Answer[]) => [...new Set(answers.map(codeOf))]
  const codeOf = (answer: Answer) => `${answer.status} ${answer.json().code}`

  it('logs nobody in with a wrong password, an unknown name or a form', async () => {
    for (const json of [
      { username: 'ada', password: 'no' },
      { username: 'eve', password: DEMO_PASSWORDS.ada },
    ]) {
      const answer = await ask('/login', [], { method: 'POST', json })
      expect([answer.status, answer.all('Set-Cookie')]).toEqual([401, []])
    }
    const form = `username=ada&password=${DEMO_PASSWORDS.ada}`
    const lines = [
      'Content-Type: application/x-www-form-urlencoded',
      `Content-Length: ${form.length}`,
      '',
      form,
    ]
    const answer = await ask('/login', lines, { method: 'POST' })
    expect([answer.status, answer.all('Set-Cookie')]).toEqual([400, []])
  })

  it('gives a cookie that scripts and other sites cannot use', async () => {
    const json = { username: 'ada', password: DEMO_PASSWORDS.ada }
    const answer = await ask('/login', [], { method: 'POST', json })
    expect(answer.header('Set-Cookie')).toMatch(/; HttpOnly; SameSite=Lax$/)
  })

  it('lets nobody manage keys who is not logged in, or not any more', async () => {
    const { id } = await issueFor('u_1')
    const cookie = await logIn('ada')
    await ask('/logout', [cookie], { method: 'POST' })
    const gone = await logIn('grace')
    users.remove('u_2')
    for (const lines of [[], ['Cookie: session=s%3Aforged'], [cookie], [gone]]) {
      expect(codesOf(await askForEverything(lines, id))).toEqual(['401 authentication_required'])
    }
  })

  it('lets no key manage keys, whatever session comes with it', async () => {
    const { id, line } = await issueFor('u_1', { '*': ['*'] })
    const cookie = await logIn('ada')
    for (const lines of [[line], [line, cookie]]) {
      expect(codesOf(await askForEverything(lines, id))).toEqual(['403 session_required'])
    }
    for (const lines of [['X-Api-Key: junk'], ['X-Api-Key: junk', cookie]]) {
      expect(codesOf(await askForEverything(lines, id))).toEqual(['401 invalid_key'])
    }
    expect(await keys.get(id)).toMatchObject({
      name: 'test',
      enabled: true,
      revokedAt: null,
      rotatedTo: null,
    })
  })

  it('answers another’s key as one that does not exist', async () => {
    const { id } = await issueFor('u_1')
    const grace = await logIn('grace')
    const [others, unknown] = [await askAbout([grace], id), await askAbout([grace], UNKNOWN)]
    expect(codesOf(others)).toEqual(['404 not_found'])
    expect(others.map(({ body }) => body)).toEqual(unknown.map(({ body }) => body))
    expect((await ask('/api-keys', [grace])).json()).toEqual({ apiKeys: [] })
    expect(await keys.get(id)).toMatchObject({ name: 'test', version: 1 })
  })

  it.each([
    ['ada', { account: ['close'] }],
    ['ada', { notes: ['read'], account: ['close'] }],
    ['ada', { notes: ['*'] }],
    ['ada', { '*': ['*'] }],
    ['grace', { notes: ['write'] }],
    ['grace', { notes: ['read', 'write'] }],
  ] as const)('gives no key of %s’s %j', async (username, permissions) => {
    const cookie = await logIn(username)
    expect(codeOf(await post('', [cookie], { name: 'x', permissions }))).toBe('403 permissions_exceeded')
    const { id } = await issueFor(username === 'ada' ? 'u_1' : 'u_2', { notes: ['read'] })
    expect(codeOf(await patch(`/${id}`, [cookie], { permissions }))).toBe('403 permissions_exceeded')
    expect((await keys.get(id))?.permissions).toEqual({ notes: ['read'] })
  })

  it.each([
    ['an end beyond 90 days', { expiresAt: new Date(Date.now() + 91 * DAY_MS) }, 'ceiling_exceeded'],
    ['no end', { expiresAt: null }, 'ceiling_exceeded'],
    ['limits', { rateLimits: null }, 'field_not_allowed'],
    ['a quota', { quota: null }, 'field_not_allowed'],
    ['metadata', { metadata: {} }, 'field_not_allowed'],
    ['a prefix', { prefix: 'demo' }, 'field_not_allowed'],
    ['an issuer', { createdBy: 'u_2' }, 'field_not_allowed'],
    ['another owner', { owner: { type: 'user', id: 'u_2' } }, 'not_permitted'],
    ['an owner of another kind', { owner: { type: 'organisation', id: 'u_1' } }, 'not_permitted'],
    ['what is unknown', { scopes: [] }, 'invalid_request'],
  ])('refuses a key with %s, by name', async (_what, asked, code) => {
    const answer = await post('', [await logIn('ada')], { name: 'x', ...asked })
    expect(answer.json()).toMatchObject({ code, field: Object.keys(asked)[0] })
    expect((await keys.list({})).apiKeys).toEqual([])
  })

  it('gives a key ninety days where nothing is said', async () => {
    const before = Date.now()
    const { apiKey } = (await post('', [await logIn('ada')], { name: 'x' })).json() as { apiKey: ApiKey }
    const lasts = new Date(String(apiKey.expiresAt)).getTime() - 90 * DAY_MS
    expect(lasts).toBeGreaterThanOrEqual(before)
    expect(lasts).toBeLessThanOrEqual(Date.now())
  })

  it('lets a user have five keys, and not one more by asking at once', async () => {
    const ada = await logIn('ada')
    const answers = await Promise.all([1, 2, 3, 4, 5, 6, 7].map((n) => post('', [ada], { name: `${n}` })))
    const refused = answers.filter(({ status }) => status !== 201)
    expect(refused.map(codeOf)).toEqual(['409 too_many_keys', '409 too_many_keys'])
    await post(`/${(await keys.list({ limit: 1 })).apiKeys[0]?.id}/revoke`, [ada])
    expect((await post('', [ada], { name: 'another' })).status).toBe(201)
  })

  it('takes nothing that a page of another site can make a browser send', async () => {
    const { id } = await issueFor('u_1')
    const ada = await logIn('ada')
    for (const path of [
      '',
      '/revoke',
      ...['enable', 'disable', 'rotate', 'revoke'].map((a) => `/${id}/${a}`),
    ]) {
      for (const type of ['application/x-www-form-urlencoded', 'text/plain', 'multipart/form-data']) {
        const lines = [ada, `Content-Type: ${type}`, 'Content-Length: 2', '', '{}']
        const answer = await ask(`/api-keys${path}`, lines, { method: 'POST' })
        expect(codeOf(answer)).toBe('415 unsupported_media_type')
      }
      const scripted = await post(path, [ada, 'Sec-Fetch-Site: cross-site'], { name: 'x' })
      expect(codeOf(scripted)).toBe('403 cross_site')
      expect(scripted.header('Access-Control-Allow-Origin')).toBeUndefined()
    }
    expect((await keys.list({})).apiKeys).toHaveLength(1)
    expect(await keys.get(id)).toMatchObject({ version: 1 })
  })

  it('changes only the version that was seen', async () => {
    const { id } = await issueFor('u_1')
    const ada = await logIn('ada')
    const seen = (await ask(`/api-keys/${id}`, [ada])).header('ETag')
    const ifMatch = `If-Match: ${seen}`
    const changed = await patch(`/${id}`, [ada, ifMatch], { name: 'renamed' })
    expect(changed.json().name).toBe('renamed')
    expect(changed.header('ETag')).not.toBe(seen)
    expect(codeOf(await patch(`/${id}`, [ada, ifMatch], { name: 'lost' }))).toBe('412 precondition_failed')
    expect(codeOf(await post(`/${id}/revoke`, [ada, ifMatch]))).toBe('412 precondition_failed')
    expect(await keys.get(id)).toMatchObject({ name: 'renamed', revokedAt: null })
  })

  it('makes one key of a request that is repeated, and tells its text once', async () => {
    const ada = [await logIn('ada'), 'Idempotency-Key: laptop']
    const first = await post('', ada, { name: 'laptop' })
    const again = await post('', ada, { name: 'laptop' })
    expect([first.status, codeOf(again)]).toEqual([201, '409 already_done'])
    expect(again.json().apiKey).toMatchObject({ id: (first.json().apiKey as ApiKey).id })
    expect(again.text).not.toContain(first.json().key)
    expect((await keys.list({})).apiKeys).toHaveLength(1)
  })

  it('does nothing by a right that has ended while the body came', async () => {
    let tellOfLookUp = () => {}
    const watched: Users = {
      ...users,
      find(id) {
        tellOfLookUp()
        return users.find(id)
      },
    }
    const app = createApp({ keys, users: watched })
    ask = await serve(app)
    const [, cookie = ''] = (await logIn('ada')).split(': ')
    const port = await listen(app)
    const isLookedUp = new Promise<void>((resolve) => {
      tellOfLookUp = resolve
    })
    const removeAda = async () => {
      await isLookedUp
      users.remove('u_1')
    }
    const answer = await fetch(`http://127.0.0.1:${port}/api-keys`, {
      method: 'POST',
      headers: { Cookie: cookie, 'Content-Type': 'application/json' },
      body: slowBody('{"name":', removeAda, '"late"}'),
      duplex: 'half',
    } as RequestInit)
    expect([answer.status, await answer.json()]).toMatchObject([401, { code: 'authentication_required' }])
    expect((await keys.list({})).apiKeys).toEqual([])
  })

  it('lets a key do no more than its owner may do now', async () => {
    const { line } = await issueFor('u_1')
    const add = () => ask('/notes', [line], { method: 'POST', json: { text: 'call Charles' } })
    expect((await add()).status).toBe(201)
    users.save({ ...(users.find('u_1') as User), permissions: { notes: ['read'] } })
    await keys.invalidateOwner({ type: 'user', id: 'u_1' })
    expect(codeOf(await add())).toBe('403 insufficient_permissions')
    expect((await ask('/notes', [line])).json().notes).toContain('call Charles')
  })

  it('lets a key of a user who is gone do nothing at all', async () => {
    const { line } = await issueFor('u_1')
    expect((await ask('/api-keys/self', [line])).status).toBe(200)
    users.remove('u_1')
    await keys.invalidateOwner({ type: 'user', id: 'u_1' })
    for (const path of ['/notes', '/api-keys/self']) {
      expect(codeOf(await ask(path, [line]))).toBe('401 invalid_key')
    }
  })

  it('takes keys where it says so, by their permissions, and no session', async () => {
    const [ada, nothing] = [await logIn('ada'), await issueFor('u_1', {})]
    expect(codeOf(await ask('/notes', [ada]))).toBe('401 missing_key')
    expect(codeOf(await ask('/notes', [nothing.line]))).toBe('403 insufficient_permissions')
    const reader = await issueFor('u_1', { notes: ['read'] })
    const refused = await ask('/notes', [reader.line], { method: 'POST', json: { text: 'x' } })
    expect(codeOf(refused)).toBe('403 insufficient_permissions')
    const { line } = await issueFor('u_1')
    for (const json of [{}, { text: 7 }, { text: ' ' }, { text: 'x'.repeat(1_001) }]) {
      expect((await ask('/notes', [line], { method: 'POST', json })).status).toBe(400)
    }
    expect((await ask('/nowhere', [line])).status).toBe(404)
    expect((await ask('/notes', [line])).json()).toEqual({ notes: ['weave algebraic patterns'] })
    expect((await ask('/notes', [(await issueFor('u_2')).line])).json()).toEqual({ notes: [] })
  })

  describe('lets an administrator', () => {
    it('have no text of a key that may do something, nor give it to another', async () => {
      const { id, line } = await issueFor('u_1')
      const hedy = await logIn('hedy')
      expect(codeOf(await post(`/${id}/rotate`, [hedy]))).toBe('403 permissions_exceeded')
      for (const owner of ['u_1', 'u_3'].map((userId) => ({ type: 'user', id: userId }))) {
        const asked = { name: 'x', owner, permissions: { notes: ['read'] } }
        expect(codeOf(await post('', [hedy], asked))).toBe('403 permissions_exceeded')
      }
      const asked = { name: 'x', owner: { type: 'user', id: 'u_1' } }
      const { key } = (await post('', [hedy], asked)).json()
      expect(codeOf(await ask('/notes', [`X-Api-Key: ${key}`]))).toBe('403 insufficient_permissions')
      expect((await ask('/notes', [line])).status).toBe(200)
    })

    it('list everybody’s keys, and logs each that is another’s', async () => {
      const [adas, graces, own] = [await issueFor('u_1'), await issueFor('u_2'), await issueFor('u_3', {})]
      const hedy = await logIn('hedy')
      events.length = 0
      const listed = (await ask('/api-keys', [hedy])).json() as { apiKeys: ApiKey[] }
      expect(listed.apiKeys.map(({ id }) => id).sort()).toEqual([adas.id, graces.id, own.id].sort())
      await ask(`/api-keys/${adas.id}`, [hedy])
      await ask(`/api-keys/${own.id}`, [hedy])
      expect(events.map(auditLine).sort()).toEqual(
        [
          `key.read ${adas.id} of user u_1 by u_3`,
          `key.read ${adas.id} of user u_1 by u_3`,
          `key.read ${graces.id} of user u_2 by u_3`,
        ].sort(),
      )
      events.length = 0
      await ask('/api-keys', [await logIn('ada')])
      expect(events).toEqual([])
    })

    it('revoke a key, or all of a user', async () => {
      const [first, second, graces] = [await issueFor('u_1'), await issueFor('u_1'), await issueFor('u_2')]
      const hedy = await logIn('hedy')
      events.length = 0
      await post(`/${first.id}/revoke`, [hedy], { reason: 'found in a repository' })
      const all = await post('/revoke', [hedy], { owner: { type: 'user', id: 'u_1' } })
      expect(all.json()).toEqual({ revoked: 1 })
      expect(events.map(auditLine)).toEqual([
        `key.revoked ${first.id} of user u_1 by u_3`,
        `key.revoked ${second.id} of user u_1 by u_3`,
        'owner.revoked of user u_1 by u_3',
      ])
      expect(await keys.get(first.id)).toMatchObject({
        revokedBy: 'u_3',
        revokedReason: 'found in a repository',
      })
      for (const { line } of [first, second])
        expect(codeOf(await ask('/notes', [line]))).toBe('401 invalid_key')
      expect((await ask('/notes', [graces.line])).status).toBe(200)
    })

    it('do none of it once she is none, in the same session', async () => {
      const { id } = await issueFor('u_1')
      const hedy = await logIn('hedy')
      users.save({ ...(users.find('u_3') as User), isAdmin: false })
      expect(codesOf(await askAbout([hedy], id))).toEqual(['404 not_found'])
      expect((await ask('/api-keys', [hedy])).json()).toEqual({ apiKeys: [] })
      const all = await post('/revoke', [hedy], { owner: { type: 'user', id: 'u_1' } })
      expect(codeOf(all)).toBe('403 not_permitted')
    })
  })

  it('lets a user issue, list, rotate and revoke keys, and logs who did it without any key', async () => {
    const ada = await logIn('ada')
    const asked = { name: 'laptop', permissions: { notes: ['read', 'write'] } }
    const first = (await post('', [ada], asked)).json() as { key: string; apiKey: ApiKey }
    const { id } = first.apiKey
    const listed = await ask('/api-keys', [ada])
    expect(listed.json()).toMatchObject({ apiKeys: [{ id, name: 'laptop' }] })
    const second = (await post(`/${id}/rotate`, [ada], { graceMs: 3_600_000 })).json() as typeof first
    const lines = [first, second].map(({ key }) => `X-Api-Key: ${key}`)
    for (const line of lines) expect((await ask('/notes', [line])).status).toBe(200)
    await post(`/${id}/revoke`, [ada])
    const statuses = [await ask('/notes', [lines[0] as string]), await ask('/notes', [lines[1] as string])]
    expect(statuses.map(({ status }) => status)).toEqual([401, 200])
    const log = events.map(auditLine)
    expect(log).toEqual([
      `key.issued ${id} of user u_1 by u_1`,
      `key.rotated ${id} of user u_1 by u_1`,
      `key.revoked ${id} of user u_1 by u_1`,
      `key.refused revoked ${id} of user u_1`,
    ])
    for (const { key } of [first, second]) {
      expect(`${listed.text}\n${JSON.stringify(events)}`).not.toContain(key)
    }
  })

  it('lets a key look at itself and give itself up', async () => {
    const { id, line } = await issueFor('u_1')
    expect((await ask('/api-keys/self', [line])).json()).toMatchObject({ id })
    expect((await post('/self/revoke', [line])).status).toBe(200)
    expect(codeOf(await ask('/api-keys/self', [line]))).toBe('401 invalid_key')
  })
})
