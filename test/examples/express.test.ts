import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ApiKeys, createApiKeys, memoryRateLimiter, memoryStore, type Permissions } from 'latchkey'
import request from 'supertest'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { createApp } from '../../examples/express/app.ts'
import { curlLines } from '../../examples/express/curl-lines.ts'
import { createDemoUsers, DEMO_PASSWORDS, type Users } from '../../examples/express/users.ts'
import { describeReadme, itAnswersItsLines } from '../support/example.ts'
import { readPrintedLines } from '../support/printed-lines.ts'
import { type Program, startProgram } from '../support/program.ts'

// Child processes are slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const SERVER = 'examples/express/server.ts'

describeReadme('express', curlLines('', ''))

describe('the program', () => {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-example-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  /** A folder of its own for each program. */
  const dataFolder = () => mkdtempSync(join(folder, 'data-'))

  itAnswersItsLines('express', {
    count: 9,
    last: /n=\[1-8\].*\n/,
    env: () => ({ DATA_DIR: dataFolder() }),
  })

  it('prints why a key was refused, and no key', async () => {
    const program = start({ PORT: '0', DATA_DIR: dataFolder() })
    const lines = readPrintedLines(await program.waitFor(/n=\[1-8\].*\n/))
    const [, key = ''] = /X-Api-Key: ([^']+)/.exec(lines[0]?.command ?? '') ?? []
    const url = /http:\S+(?=\/projects)/.exec(lines[0]?.command ?? '')?.[0]
    const send = (text: string) =>
      fetch(`${url}/projects`, { method: 'POST', headers: { 'X-Api-Key': text } })
    await send(key.replace('demo', 'demo2'))
    await send(key)
    const output = await program.waitFor(/key\.refused insufficient_permissions \w{16}\n$/)
    expect(output).toContain('\nkey.refused malformed\n')
    const shown = lines.filter(({ command }) => command.includes(key))
    expect(output.split(key)).toHaveLength(shown.length + 1)
    await stop(program, 'SIGTERM')
  })
})

describe('the application', () => {
  let users: Users
  let keys: ApiKeys
  let app: ReturnType<typeof createApp>

  beforeAll(async () => {
    users = await createDemoUsers()
  })
  beforeEach(() => {
    keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'demo' })
    app = createApp({ keys, users })
    return () => keys.close()
  })

  async function login(username: keyof typeof DEMO_PASSWORDS) {
    const agent = request.agent(app)
    await agent.post('/login').send({ username, password: DEMO_PASSWORDS[username] }).expect(200)
    return agent
  }

  async function issueKey(permissions: Permissions = { projects: ['read'] }): Promise<string> {
    const { key } = await keys.issue({ owner: { type: 'user', id: 'u_1' }, name: 'test', permissions })
    return key
  }

  it('logs nobody in with a wrong password or an unknown name', async () => {
    const { ada } = DEMO_PASSWORDS
    for (const body of [{ username: 'ada', password: 'no' }, { username: 'eve', password: ada }, {}]) {
      const answer = await request(app).post('/login').send(body)
      expect(answer.status).toBe('username' in body ? 401 : 400)
      expect(answer.headers['set-cookie']).toBeUndefined()
    }
  })

  it('reads no forms, which other sites can send', async () => {
    await request(app)
      .post('/login')
      .type('form')
      .send({ username: 'ada', password: DEMO_PASSWORDS.ada })
      .expect(400)
    const ada = await login('ada')
    await ada.post('/keys').type('form').send({ name: 'CI' }).expect(400)
  })

  it('gives a cookie that scripts and other sites cannot use', async () => {
    const { headers } = await request(app)
      .post('/login')
      .send({ username: 'ada', password: DEMO_PASSWORDS.ada })
    expect(String(headers['set-cookie'])).toMatch(/; HttpOnly; SameSite=Lax$/)
  })

  it('ends the session at logout', async () => {
    const ada = await login('ada')
    await ada.get('/settings').expect(200, { user: 'ada', theme: 'dark' })
    await ada.post('/logout').expect(204)
    await ada.get('/settings').expect(401)
  })

  it('lets a person issue, list and revoke keys', async () => {
    const ada = await login('ada')
    const issued = await ada.post('/keys').send({ name: 'CI' }).expect(201)
    const { id, key } = issued.body
    await request(app).get('/projects').set('X-Api-Key', key).expect(200)
    const listed = await ada.get('/keys').expect(200)
    expect(listed.body.keys).toEqual([expect.objectContaining({ id, name: 'CI', status: 'active' })])
    expect(listed.text).not.toContain(key)
    await ada.delete(`/keys/${id}`).expect(204)
    await request(app).get('/projects').set('X-Api-Key', key).expect(401)
    expect((await ada.get('/keys')).body.keys[0].status).toBe('revoked')
  })

  it("answers another's key as one that does not exist", async () => {
    const [ada, grace] = [await login('ada'), await login('grace')]
    const { id, key } = (await ada.post('/keys').send({ name: 'CI' })).body
    const others = await grace.delete(`/keys/${id}`).expect(404)
    const unknown = await grace.delete('/keys/0000000000000000').expect(404)
    expect(others.text).toBe(unknown.text)
    await grace.delete(`/keys/${'x'.repeat(300)}`).expect(404)
    expect((await grace.get('/keys')).body).toEqual({ keys: [] })
    await request(app).get('/projects').set('X-Api-Key', key).expect(200)
  })

  it('gives a key no more than its issuer holds', async () => {
    const [ada, grace] = [await login('ada'), await login('grace')]
    const both = { name: 'CI', permissions: { projects: ['read', 'write'] } }
    await ada.post('/keys').send(both).expect(201)
    await grace.post('/keys').send(both).expect(403)
    await ada
      .post('/keys')
      .send({ name: 'CI', permissions: { '*': ['*'] } })
      .expect(403)
    await ada
      .post('/keys')
      .send({ name: 'CI', permissions: { projects: ['*'] } })
      .expect(403)
  })

  it.each([
    ['no name', {}],
    ['a name that is no text', { name: 7 }],
    ['a long name', { name: 'x'.repeat(101) }],
    ['alternatives', { name: 'CI', permissions: [] }],
    ['no permissions', { name: 'CI', permissions: null }],
    ['a resource without actions', { name: 'CI', permissions: { '***': [] } }],
    ['actions that are no list', { name: 'CI', permissions: { projects: 'read' } }],
  ])('refuses to issue a key for %s', async (_what, body) => {
    const ada = await login('ada')
    await ada.post('/keys').send(body).expect(400)
  })

  it('lets no key issue, list or revoke keys or see settings, whatever session comes with it', async () => {
    const ada = await login('ada')
    const key = await issueKey({ '*': ['*'] })
    for (const client of [ada, request(app)]) {
      await client.post('/keys').set('X-Api-Key', key).send({ name: 'CI' }).expect(403)
      await client.get('/keys').set('X-Api-Key', key).expect(403)
      await client.delete('/keys/0000000000000000').set('X-Api-Key', key).expect(403)
      const { body } = await client.get('/settings').set('X-Api-Key', key).expect(403)
      expect(body.code).toBe('session_required')
    }
    await ada.get('/settings').expect(200)
  })

  it('adds a project for a key that may write', async () => {
    const [reader, writer] = [await issueKey(), await issueKey({ projects: ['write'] })]
    const refused = await request(app)
      .post('/projects')
      .set('X-Api-Key', reader)
      .send({ name: 'loom' })
      .expect(403)
    expect(refused.body).toMatchObject({ code: 'insufficient_permissions', missing: { projects: ['write'] } })
    const added = { name: 'loom', addedBy: 'u_1' }
    await request(app).post('/projects').set('X-Api-Key', writer).send({ name: 'loom' }).expect(201, added)
    await request(app).post('/projects').set('X-Api-Key', writer).send({}).expect(400)
    const { body } = await request(app).get('/projects').set('X-Api-Key', reader).expect(200)
    expect(body.projects).toContainEqual(added)
  })

  it('lets no session read projects', async () => {
    const ada = await login('ada')
    const { body } = await ada.get('/projects').expect(401)
    expect(body.code).toBe('missing_key')
  })

  it('takes a session or a key for /me, and says which', async () => {
    const ada = await login('ada')
    await ada.get('/me').expect(200, { user: 'ada', by: 'session' })
    const key = await issueKey()
    const byKey = await request(app).get('/me').set('Authorization', `Api-Key ${key}`)
    expect(byKey.body).toEqual({ user: 'ada', by: 'apikey', key: 'test' })
    expect(byKey.headers['set-cookie']).toBeUndefined()
    expect((await request(app).get('/me').expect(401)).body.code).toBe('authentication_required')
  })

  it('does not fall back from a bad key to a session', async () => {
    const ada = await login('ada')
    expect((await ada.get('/me').set('X-Api-Key', 'junk').expect(401)).body.code).toBe('invalid_key')
  })

  it('refuses the keys of somebody who is not a user here', async () => {
    const { key } = await keys.issue({ owner: { type: 'organization', id: 'u_1' }, name: 'org' })
    await request(app).get('/me').set('X-Api-Key', key).expect(401)
  })

  it('answers bad JSON, too much of it and unknown addresses with problem bodies', async () => {
    const post = (body: string) => request(app).post('/login').type('json').send(body)
    const answers = [
      await post('{'),
      await post(`"${'x'.repeat(20_000)}"`),
      await request(app).get('/nowhere'),
    ]
    expect(answers.map(({ status, type }) => [status, type])).toEqual([
      [400, 'application/problem+json'],
      [413, 'application/problem+json'],
      [404, 'application/problem+json'],
    ])
  })

  it('keeps answers out of shared caches', async () => {
    const key = await issueKey()
    const good = await request(app).get('/projects').set('X-Api-Key', key)
    const bad = await request(app).get('/projects')
    expect([good, bad].map(({ headers }) => headers['cache-control'])).toEqual(['private', 'no-store'])
  })
})

function start(env: NodeJS.ProcessEnv): Program {
  const program = startProgram([SERVER], env)
  onTestFinished(() => program.signal('SIGKILL'))
  return program
}

async function stop(program: Program, signal: NodeJS.Signals): Promise<void> {
  program.signal(signal)
  expect(await program.ended()).toBe(0)
  expect(program.stderr).toBe('')
}
