import 'reflect-metadata'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ApiKey } from 'latchkey'
import { afterAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { AppModule } from '../../examples/nest/app.module.ts'
import { curlLines } from '../../examples/nest/curl-lines.ts'
import { createDemoUsers, DEMO_LOGIN } from '../../examples/nest/users.ts'
import { serveNest } from '../nest/serve-nest.ts'
import { fetcher, hasCurl, shellIn } from '../support/curl.ts'
import { issueKey } from '../support/issue-key.ts'
import { readTable } from '../support/markdown.ts'
import { readPrintedLines, summaryOf } from '../support/printed-lines.ts'
import { type Program, startProgram } from '../support/program.ts'
import { createTestKeys } from '../support/test-keys.ts'

// Child processes and Nest are slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const READ = { projects: ['read'] }

describe('its README', () => {
  const folder = new URL('../../examples/nest/', import.meta.url)
  const readme = readFileSync(new URL('README.md', folder), 'utf8')

  it('tells what each printed line answers', () => {
    const told = readTable(readme, 'printed as').map(([title, expected]) => [title, expected])
    expect(told).toEqual(curlLines('', '').map(({ title, expect }) => [title, expect]))
  })

  it('names files that exist', () => {
    const targets = [...readme.matchAll(/\]\(([^)]+)\)/g)].map(([, target]) => target as string)
    expect(targets.length).toBeGreaterThan(0)
    expect(targets.filter((target) => !existsSync(new URL(target, folder)))).toEqual([])
  })
})

describe('the program', () => {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-nest-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  // The lines are always run; where there is a curl, they are also pasted into a shell.
  it('answers the lines it prints as they promise', async () => {
    const program = start({ PORT: '0' })
    const lines = readPrintedLines(await program.waitFor(/n=\[1-8\].*\n/))
    const run = hasCurl ? shellIn(folder) : fetcher()
    const told: string[] = []
    for (const { title, command } of lines) told.push(`${title} → ${summaryOf(await run(command))}`)
    expect(told).toEqual(lines.map(({ title, promised }) => `${title} → ${promised}`))
    expect(told).toHaveLength(13)
    program.signal('SIGTERM')
    expect(await program.ended()).toBe(0)
    // Nest would log every refusal that nobody has answered.
    expect(program.stderr).toBe('')
  })

  function start(env: NodeJS.ProcessEnv): Program {
    const program = startProgram(['examples/nest/server.ts'], env)
    onTestFinished(() => program.signal('SIGKILL'))
    return program
  }
})

describe('the application', () => {
  async function startApplication(parts: { prefix?: string } = {}) {
    const test = createTestKeys()
    const { prefix } = parts
    const ask = await serveNest(
      'Express',
      AppModule.register({ keys: test.keys, users: createDemoUsers() }),
      {
        prepare: (app) => void (prefix && app.setGlobalPrefix(prefix)),
      },
    )
    const key = async (permissions = READ) =>
      keyLine((await issueKey(test.keys, { owner: { type: 'user', id: 'u_1' }, permissions })).key)
    const login = async () => {
      const answer = await ask(`/${prefix ? `${prefix}/` : ''}login`, [], {
        method: 'POST',
        json: DEMO_LOGIN,
      })
      expect(answer.status).toBe(200)
      return `Cookie: ${answer.header('Set-Cookie')?.split(';')[0]}`
    }
    return { ...test, ask, key, login }
  }

  it.each([
    ['', '/api-keys'],
    ['v1', '/v1/api-keys'],
  ])('lets whoever is logged in manage their keys, with the global prefix "%s"', async (prefix, path) => {
    const { ask, key, login } = await startApplication({ prefix })
    const lines = [await login()]
    const json = { name: 'CI', permissions: READ }
    const issued = await ask(path, lines, { method: 'POST', json })
    expect([issued.status, issued.json()]).toMatchObject([
      201,
      { apiKey: { owner: { id: 'u_1' }, createdBy: 'u_1' } },
    ])
    const { key: text, apiKey } = issued.json() as { key: string; apiKey: ApiKey }
    const projects = path.replace('api-keys', 'projects')
    expect((await ask(projects, [keyLine(text)])).status).toBe(200)
    expect((await ask(`${path}/self`, [keyLine(text)])).json()).toMatchObject({ id: apiKey.id })
    expect((await ask(`${path}/${apiKey.id}/revoke`, lines, { method: 'POST', json: {} })).status).toBe(200)
    expect((await ask(projects, [keyLine(text)])).status).toBe(401)
    expect((await ask(path)).json()).toMatchObject({ code: 'authentication_required' })
    expect((await ask(path, [...lines, await key()])).json()).toMatchObject({ code: 'session_required' })
    const wide = { name: 'CI', permissions: { projects: ['write'] } }
    expect((await ask(path, lines, { method: 'POST', json: wide })).json()).toMatchObject({
      code: 'permissions_exceeded',
    })
  })

  it('opens no session for a key, and leaves the one that is there alone', async () => {
    const { ask, key, login } = await startApplication()
    const cookie = await login()
    const byKey = await ask('/me', [await key()])
    expect(byKey.json()).toEqual({ user: 'ada', by: 'apikey', key: 'CI' })
    const byBoth = await ask('/me', [await key(), cookie])
    for (const answer of [byKey, byBoth]) {
      expect(answer.status).toBe(200)
      expect(answer.all('Set-Cookie')).toEqual([])
      expect(answer.header('Cache-Control')).toBe('private')
    }
    expect((await ask('/settings', [cookie])).json()).toEqual({ user: 'ada', theme: 'dark' })
  })

  it('keeps keys, good and bad, from what is for sessions, whatever cookie comes with them', async () => {
    const { ask, key, login } = await startApplication()
    const cookie = await login()
    for (const line of [await key(), await key({ '*': ['*'] } as never), keyLine('junk')]) {
      for (const lines of [[line], [line, cookie]]) {
        const answer = await ask('/settings', lines)
        expect(answer.json()).toMatchObject({ status: 403, code: 'session_required' })
      }
    }
    expect((await ask('/settings')).json()).toMatchObject({ status: 401, code: 'authentication_required' })
  })

  it('keeps sessions from what is for keys, and does not fall back from a bad key to one', async () => {
    const { ask, login } = await startApplication()
    const cookie = await login()
    expect((await ask('/key', [cookie])).json()).toMatchObject({ code: 'missing_key' })
    expect((await ask('/key', [cookie, keyLine('junk')])).json()).toMatchObject({ code: 'invalid_key' })
  })

  it('takes either for what is for both, and a bad key for none', async () => {
    const { ask, key, login } = await startApplication()
    const cookie = await login()
    const byKey = { user: 'ada', by: 'apikey', key: 'CI' }
    expect((await ask('/me', [cookie])).json()).toEqual({ user: 'ada', by: 'session' })
    expect((await ask('/me', [await key()])).json()).toEqual(byKey)
    expect((await ask('/me', [await key(), cookie])).json()).toEqual(byKey)
    expect((await ask('/me', [keyLine('junk'), cookie])).json()).toMatchObject({ code: 'invalid_key' })
    expect((await ask('/me')).json()).toMatchObject({ code: 'authentication_required' })
  })

  it('logs nobody in with a wrong password, an unknown name or a form', async () => {
    const { ask } = await startApplication()
    const { username, password } = DEMO_LOGIN
    for (const json of [{ username, password: 'no' }, { username: 'eve', password }, {}, { username }]) {
      const answer = await ask('/login', [], { method: 'POST', json })
      expect(answer.status).toBe('password' in json ? 401 : 400)
      expect(answer.all('Set-Cookie')).toEqual([])
    }
    // Of two, the first content type counts; the quotes of JSON become part of other fields.
    const form = 'Content-Type: application/x-www-form-urlencoded'
    const json = `a=&username=${username}&password=${password}&b=`
    expect((await ask('/login', [form], { method: 'POST', json })).status).toBe(400)
  })

  it('adds a project for a key that may write', async () => {
    const { ask, key } = await startApplication()
    const writer = [await key({ projects: ['write'] })]
    const post = (lines: string[], json: object) => ask('/projects', lines, { method: 'POST', json })
    expect((await post([await key()], { name: 'loom' })).json()).toMatchObject({
      code: 'insufficient_permissions',
      missing: { projects: ['write'] },
    })
    expect((await post(writer, {})).status).toBe(400)
    const added = await post(writer, { name: 'loom' })
    expect([added.status, added.json()]).toEqual([201, { name: 'loom', addedBy: 'u_1' }])
    const { projects } = (await ask('/projects', [await key()])).json()
    expect(projects).toContainEqual({ name: 'loom', addedBy: 'u_1' })
  })
})

function keyLine(key: string): string {
  return `X-Api-Key: ${key}`
}
