import { readFileSync } from 'node:fs'
import type { ApiKey, ApiKeyEvent, ApiKeys, Permissions } from 'latchkey'
import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { auditLine } from '../../examples/existing-login/audit-line.ts'
import { createApp } from '../../examples/organisations/app.ts'
import { curlLines } from '../../examples/organisations/curl-lines.ts'
import { createKeys } from '../../examples/organisations/keys.ts'
import {
  createDemoOrganisations,
  type Organisation,
  type Organisations,
  type Role,
} from '../../examples/organisations/organisations.ts'
import {
  createDemoPeople,
  DEMO_PASSWORDS,
  type People,
  type Person,
} from '../../examples/organisations/people.ts'
import { describeReadme } from '../support/example.ts'
import { readTable } from '../support/markdown.ts'
import { type Answer, type Ask, listen, serve } from '../support/raw-http.ts'
import { slowBody } from '../support/slow-body.ts'

const README = new URL('../../examples/organisations/README.md', import.meta.url)
const ACME = { type: 'organization', id: 'acme' }
const GLOBEX = { type: 'organization', id: 'globex' }

describeReadme('organisations', curlLines('', ''))

describe('the application', () => {
  let people: People
  let everybody: Person[]
  let organisations: Organisations
  let keys: ApiKeys
  let events: ApiKeyEvent[]
  let ask: Ask

  beforeAll(async () => {
    people = await createDemoPeople()
    everybody = ['u_1', 'u_2', 'u_3', 'u_4', 'u_5'].map((id) => people.find(id) as Person)
  })
  beforeEach(async () => {
    for (const person of everybody) people.save(person)
    organisations = createDemoOrganisations()
    events = []
    keys = createKeys(organisations, (event) => events.push(event))
    ask = await serve(createApp({ keys, people, organisations }).callback())
    return () => keys.close()
  })

  async function logIn(username: keyof typeof DEMO_PASSWORDS): Promise<string> {
    const json = { username, password: DEMO_PASSWORDS[username] }
    const answer = await ask('/login', [], { method: 'POST', json })
    expect(answer.status).toBe(200)
    return `Cookie: ${answer
      .all('Set-Cookie')
      .map((value) => value.split(';')[0])
      .join('; ')}`
  }

  async function issueFor(
    owner: { type: string; id: string },
    createdBy = 'u_1',
    permissions: Permissions = { reports: ['read', 'write'] },
  ) {
    const { key, apiKey } = await keys.issue({ owner, name: 'test', permissions, createdBy })
    return { id: apiKey.id, line: `X-Api-Key: ${key}` }
  }

  const send = (method: string, path: string, lines: readonly string[], json: object = {}) =>
    ask(path, lines, { method, json })
  const post = (path: string, lines: readonly string[], json: object = {}) =>
    send('POST', `/api-keys${path}`, lines, json)
  const rename = (id: string, lines: readonly string[]) =>
    send('PATCH', `/api-keys/${id}`, lines, { name: 'renamed' })
  const suspend = (lines: readonly string[], suspended: boolean) =>
    send('PUT', '/organisations/acme/suspension', lines, { suspended })
  const write = (line: string) => send('POST', '/reports', [line], { title: 'anvils' })

  const codeOf = (answer: Answer) => `${answer.status} ${answer.json().code}`
  const listedBy = async (lines: readonly string[], query = '') =>
    ((await ask(`/api-keys${query}`, lines)).json().apiKeys as ApiKey[]).map(({ id }) => id)

  it('logs nobody in with a wrong password, and shows no keys to nobody', async () => {
    const json = { username: 'ada', password: 'no' }
    const answer = await ask('/login', [], { method: 'POST', json })
    expect([answer.status, answer.all('Set-Cookie')]).toEqual([401, []])
    for (const lines of [[], ['Cookie: session=e30=; session.sig=forged']]) {
      expect(codeOf(await ask('/api-keys', lines))).toBe('401 authentication_required')
      expect((await send('PUT', '/organisations/acme/plan', lines, { plan: 'free' })).status).toBe(401)
      expect((await suspend(lines, true)).status).toBe(401)
      expect((await send('DELETE', '/people/u_3', lines)).status).toBe(401)
    }
  })

  it('lets no key manage keys, plans or people, whatever session comes with it', async () => {
    const { id, line } = await issueFor(ACME, 'u_1', { '*': ['*'] })
    for (const lines of [[line], [line, await logIn('ada')], [line, await logIn('margaret')]]) {
      for (const answer of [
        await ask('/api-keys', lines),
        await post('', lines, { name: 'x', owner: ACME }),
        await rename(id, lines),
        await post('/revoke', lines, { createdBy: 'u_1' }),
        await send('PUT', '/organisations/acme/plan', lines, { plan: 'free' }),
        await suspend(lines, true),
        await send('DELETE', '/people/u_3', lines),
      ]) {
        expect(codeOf(answer)).toBe('403 session_required')
      }
    }
  })

  it('takes nothing that a page of another site can make a browser send', async () => {
    const { id } = await issueFor(ACME)
    const cookie = await logIn('ada')
    for (const path of ['', '/revoke', `/${id}/revoke`, `/${id}/rotate`]) {
      const form = [cookie, 'Content-Type: application/x-www-form-urlencoded', 'Content-Length: 0']
      const sent = await ask(`/api-keys${path}`, form, { method: 'POST' })
      expect(codeOf(sent)).toBe('415 unsupported_media_type')
      expect(codeOf(await post(path, [cookie, 'Sec-Fetch-Site: cross-site']))).toBe('403 cross_site')
    }
    expect(await keys.get(id)).toMatchObject({ version: 1 })
    const json = { username: 'ada', password: DEMO_PASSWORDS.ada }
    const { all } = await ask('/login', [], { method: 'POST', json })
    for (const value of all('Set-Cookie')) expect(value).toMatch(/; samesite=lax; httponly$/)
  })

  it('answers a key of an organisation that one is not of as one that does not exist', async () => {
    const { id } = await issueFor(GLOBEX)
    for (const username of ['ada', 'joan', 'linda'] as const) {
      const lines = [await logIn(username)]
      for (const answer of [
        await ask(`/api-keys/${id}`, lines),
        await rename(id, lines),
        await post(`/${id}/revoke`, lines),
        await post(`/${id}/rotate`, lines),
      ]) {
        expect(codeOf(answer)).toBe('404 not_found')
      }
      expect(await listedBy(lines)).toEqual([])
      expect(codeOf(await post('', lines, { name: 'x', owner: GLOBEX }))).toBe('403 not_permitted')
      expect(codeOf(await post('/revoke', lines, { owner: GLOBEX }))).toBe('403 not_permitted')
    }
    expect(await keys.get(id)).toMatchObject({ version: 1 })
  })

  const roles = readTable(readFileSync(README, 'utf8'), 'role').map(
    ([role, ...cells]) => [role as Role, cells.map((cell) => cell === 'yes')] as const,
  )

  it('has a row of its README for each role', () => {
    expect(roles.map(([role]) => role)).toEqual(['owner', 'admin', 'member', 'viewer'])
  })

  it.each(roles)('lets an organisation’s %s do what its README says', async (role, told) => {
    organisations.save({ ...(organisations.find('acme') as Organisation), roles: new Map([['u_1', role]]) })
    const lines = [await logIn('ada')]
    const { id } = await issueFor(ACME, 'u_9')
    const isDone = ({ status }: Answer) => status < 300
    const reads = [await ask('/api-keys', lines), await ask(`/api-keys/${id}`, lines)].map(isDone)
    const issues = isDone(await post('', lines, { name: 'x', permissions: { reports: ['read'] } }))
    const changes = [
      await rename(id, lines),
      await post(`/${id}/disable`, lines),
      await post(`/${id}/enable`, lines),
      await post(`/${id}/rotate`, lines),
    ].map(isDone)
    const revokes = [await post(`/${id}/revoke`, lines), await post('/revoke', lines, { owner: ACME })].map(
      isDone,
    )
    const pays = isDone(await send('PUT', '/organisations/acme/plan', lines, { plan: 'free' }))
    for (const all of [reads, changes, revokes]) expect(new Set(all).size).toBe(1)
    expect([reads[0], issues, changes[0], revokes[0], pays]).toEqual(told)
  })

  it('goes by the role of this moment, in the same session', async () => {
    const { id } = await issueFor(ACME)
    const joan = [await logIn('joan')]
    const acme = organisations.find('acme') as Organisation
    expect((await rename(id, joan)).status).toBe(200)
    organisations.save({ ...acme, roles: new Map([...acme.roles, ['u_2', 'viewer']]) })
    expect(codeOf(await rename(id, joan))).toBe('403 not_permitted')
    organisations.save({ ...acme, roles: new Map([['u_1', 'owner']]) })
    expect(codeOf(await rename(id, joan))).toBe('404 not_found')
  })

  it('grants no more than keys are for, whatever role and plan', async () => {
    const ada = [await logIn('ada')]
    for (const permissions of [{ plans: ['write'] }, { reports: ['*'] }, { '*': ['*'] }]) {
      const answer = await post('', ada, { name: 'x', permissions })
      expect(codeOf(answer)).toBe('403 permissions_exceeded')
    }
    expect(codeOf(await post('', ada, { name: 'x', expiresAt: null }))).toBe('403 ceiling_exceeded')
    expect(codeOf(await post('', ada, { name: 'x', createdBy: 'u_2' }))).toBe('403 field_not_allowed')
  })

  it('lets an organisation have twenty keys', async () => {
    const ada = [await logIn('ada')]
    for (let n = 1; n <= 19; n++) await issueFor(ACME)
    expect((await post('', ada, { name: 'x' })).status).toBe(201)
    expect(codeOf(await post('', ada, { name: 'x' }))).toBe('409 too_many_keys')
  })

  it('does nothing by a right that has ended while the body came', async () => {
    let tellOfLookUp = () => {}
    const watched: People = {
      ...people,
      find(id) {
        tellOfLookUp()
        return people.find(id)
      },
    }
    const app = createApp({ keys, people: watched, organisations }).callback()
    ask = await serve(app)
    const [, cookie = ''] = (await logIn('ada')).split(': ')
    const port = await listen(app)
    const isLookedUp = new Promise<void>((resolve) => {
      tellOfLookUp = resolve
    })
    const removeAda = async () => {
      await isLookedUp
      people.remove('u_1')
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

  it('shows whoever is of several organisations the keys of all, in one order, page by page', async () => {
    const made: string[] = []
    for (const owner of [ACME, GLOBEX, ACME, GLOBEX, ACME]) made.push((await issueFor(owner)).id)
    await issueFor({ type: 'organization', id: 'initech' })
    const grace = [await logIn('grace')]
    const inOrder = await listedBy(grace)
    expect([...inOrder].sort()).toEqual([...made].sort())
    const paged: string[] = []
    let query = '?limit=2'
    for (;;) {
      const page = (await ask(`/api-keys${query}`, grace)).json() as {
        apiKeys: ApiKey[]
        nextCursor?: string
      }
      paged.push(...page.apiKeys.map(({ id }) => id))
      if (page.nextCursor === undefined) break
      query = `?limit=2&cursor=${encodeURIComponent(page.nextCursor)}`
    }
    expect(paged).toEqual(inOrder)
    const one = await listedBy(grace, '?ownerType=organization&ownerId=globex')
    expect([...one].sort()).toEqual([made[1], made[3]].sort())
  })

  it('asks whoever is of several organisations whose a new key is', async () => {
    const grace = [await logIn('grace')]
    expect((await post('', grace, { name: 'x' })).json()).toMatchObject({
      code: 'invalid_request',
      field: 'owner',
    })
    for (const owner of [ACME, GLOBEX]) {
      const { apiKey } = (await post('', grace, { name: 'x', owner })).json()
      expect(apiKey).toMatchObject({ owner, createdBy: 'u_3' })
    }
    // Where one may issue for one of several, there is nothing to ask.
    const acme = organisations.find('acme') as Organisation
    organisations.save({ ...acme, roles: new Map([['u_3', 'viewer']]) })
    expect((await post('', grace, { name: 'x' })).json().apiKey).toMatchObject({ owner: GLOBEX })
    expect(codeOf(await post('', grace, { name: 'x', owner: ACME }))).toBe('403 not_permitted')
  })

  it('lets a key do no more than the plan, from the moment it changes', async () => {
    const [ada, { id, line }] = [[await logIn('ada')], await issueFor(ACME)]
    const pay = (plan: unknown) => send('PUT', '/organisations/acme/plan', ada, { plan })
    expect((await write(line)).status).toBe(201)
    for (const plan of ['free', 'free', 'team'] as const) {
      expect((await pay(plan)).status).toBe(200)
      const written = await write(line)
      if (plan === 'team') expect(written.status).toBe(201)
      else expect(written.json()).toMatchObject({ status: 403, missing: { reports: ['write'] } })
      expect((await ask('/reports', [line])).status).toBe(200)
    }
    for (const plan of ['gold', 'toString', '__proto__', null, {}, undefined]) {
      expect((await pay(plan)).status).toBe(400)
    }
    expect((await keys.get(id))?.permissions).toEqual({ reports: ['read', 'write'] })
    expect(codeOf(await rename(id, [...ada, 'If-Match: "1"']))).toBe('412 precondition_failed')
  })

  it('gives a key what the plan does not have yet, which opens nothing', async () => {
    const asked = { name: 'x', owner: GLOBEX, permissions: { reports: ['write'] } }
    const { key } = (await post('', [await logIn('grace')], asked)).json()
    expect(codeOf(await write(`X-Api-Key: ${key}`))).toBe('403 insufficient_permissions')
  })

  it('lets nobody but an owner change the plan, and tells nobody else of the organisation', async () => {
    const change = async (username: keyof typeof DEMO_PASSWORDS, id: string) =>
      (await send('PUT', `/organisations/${id}/plan`, [await logIn(username)], { plan: 'free' })).status
    expect(await change('joan', 'acme')).toBe(403)
    expect([await change('ada', 'globex'), await change('ada', 'nothing')]).toEqual([404, 404])
    expect(organisations.find('acme')?.plan).toBe('team')
  })

  it('lets nobody but the staff suspend an organisation or remove people', async () => {
    const ada = [await logIn('ada')]
    expect((await suspend(ada, true)).status).toBe(403)
    expect((await send('DELETE', '/people/u_3', ada)).status).toBe(403)
    const margaret = [await logIn('margaret')]
    const wrong = await send('PUT', '/organisations/acme/suspension', margaret, { suspended: 'yes' })
    const unknown = await send('PUT', '/organisations/nothing/suspension', margaret, { suspended: true })
    expect([wrong.status, unknown.status]).toEqual([400, 404])
    expect(organisations.find('acme')?.isSuspended).toBe(false)
  })

  it('has no key of a suspended organisation work, until it goes on', async () => {
    const [acmes, globexes] = [await issueFor(ACME), await issueFor(GLOBEX)]
    const margaret = [await logIn('margaret')]
    expect((await ask('/reports', [acmes.line])).status).toBe(200)
    await suspend(margaret, true)
    expect(codeOf(await ask('/reports', [acmes.line]))).toBe('401 invalid_key')
    expect(events.at(-1)).toMatchObject({ type: 'key.refused', reason: 'owner_inactive' })
    expect((await ask('/reports', [globexes.line])).status).toBe(200)
    await suspend(margaret, false)
    expect((await ask('/reports', [acmes.line])).status).toBe(200)
  })

  it('lets members of a suspended organisation see and revoke its keys, and nothing else', async () => {
    const { id } = await issueFor(ACME)
    const ada = [await logIn('ada')]
    await suspend([await logIn('margaret')], true)
    for (const answer of [
      await post('', ada, { name: 'x', owner: ACME }),
      await rename(id, ada),
      await post(`/${id}/rotate`, ada),
      await post(`/${id}/enable`, ada),
    ]) {
      expect(codeOf(answer)).toBe('403 not_permitted')
    }
    expect(await listedBy(ada)).toEqual([id])
    expect((await post(`/${id}/revoke`, ada)).status).toBe(200)
    const viewer = [await logIn('linda')]
    expect(codeOf(await post(`/${id}/revoke`, viewer))).toBe('403 not_permitted')
  })

  it('takes no key whose owner is no organisation, or none that is there', async () => {
    for (const owner of [
      { type: 'user', id: 'acme' },
      { type: 'organization', id: 'initech' },
    ]) {
      const { line } = await issueFor(owner)
      expect(codeOf(await ask('/reports', [line]))).toBe('401 invalid_key')
    }
  })

  it('keeps the reports of an organisation from the keys of others', async () => {
    organisations.save({ ...(organisations.find('globex') as Organisation), plan: 'team' })
    const [acmes, globexes] = [await issueFor(ACME), await issueFor(GLOBEX)]
    await write(acmes.line)
    await send('POST', '/reports', [globexes.line], { title: 'globes' })
    expect((await ask('/reports', [acmes.line])).json()).toEqual({
      reports: ['anvils, first quarter', 'anvils'],
    })
    expect((await ask('/reports', [globexes.line])).json()).toEqual({ reports: ['globes'] })
    for (const title of [7, '', 'x'.repeat(101)]) {
      expect((await send('POST', '/reports', [acmes.line], { title })).status).toBe(400)
    }
  })

  describe('when somebody leaves', () => {
    it('lets only the staff revoke by creator', async () => {
      const { id } = await issueFor(ACME, 'u_3')
      for (const username of ['ada', 'joan', 'grace', 'linda'] as const) {
        const answer = await post('/revoke', [await logIn(username)], { createdBy: 'u_3' })
        expect(codeOf(answer)).toBe('403 not_permitted')
      }
      expect(await keys.get(id)).toMatchObject({ revokedAt: null })
    })

    it('keeps their keys working, though nobody is behind them', async () => {
      const { id, line } = await issueFor(ACME, 'u_3')
      const grace = [await logIn('grace')]
      await send('DELETE', '/people/u_3', [await logIn('margaret')])
      expect(codeOf(await ask('/api-keys', grace))).toBe('401 authentication_required')
      expect(organisations.of('u_3')).toEqual([])
      expect(organisations.of('u_1')).toHaveLength(1)
      expect((await ask('/login', [], { method: 'POST', json: loginOf('grace') })).status).toBe(401)
      expect((await ask('/reports', [line])).status).toBe(200)
      expect(await listedBy([await logIn('ada')], '?createdBy=u_3')).toEqual([id])
    })

    it('revokes all whose text they have seen, in every organisation, and no other', async () => {
      const [own, globexes, adas] = [
        await issueFor(ACME, 'u_3'),
        await issueFor(GLOBEX, 'u_3'),
        await issueFor(ACME),
      ]
      const others = await issueFor(GLOBEX, 'u_9')
      const rotated = (await post(`/${others.id}/rotate`, [await logIn('grace')])).json()
      const margaret = [await logIn('margaret')]
      await send('DELETE', '/people/u_3', margaret)
      events.length = 0
      const revoked = await post('/revoke', margaret, { createdBy: 'u_3', reason: 'has left' })
      expect(revoked.json()).toEqual({ revoked: 3 })
      const works = async (line: string) => (await ask('/reports', [line])).status
      for (const line of [own.line, globexes.line, `X-Api-Key: ${rotated.key}`])
        expect(await works(line)).toBe(401)
      for (const { line } of [adas, others]) expect(await works(line)).toBe(200)
      const log = events.filter(({ type }) => type !== 'key.refused').map(auditLine)
      expect(log.slice(0, -1).sort()).toEqual(
        [
          `key.revoked ${own.id} of organization acme by u_5`,
          `key.revoked ${globexes.id} of organization globex by u_5`,
          `key.revoked ${(rotated.apiKey as ApiKey).id} of organization globex by u_5`,
        ].sort(),
      )
      expect(log.at(-1)).toBe('creator.revoked issued by u_3 by u_5')
      expect(await keys.get(own.id)).toMatchObject({ revokedBy: 'u_5', revokedReason: 'has left' })
    })

    it('lets an owner revoke what somebody has issued there, and nothing elsewhere', async () => {
      const [own, globexes, adas] = [
        await issueFor(ACME, 'u_3'),
        await issueFor(GLOBEX, 'u_3'),
        await issueFor(ACME),
      ]
      const ada = [await logIn('ada')]
      expect(codeOf(await post('/revoke', ada, { owner: GLOBEX, createdBy: 'u_3' }))).toBe(
        '403 not_permitted',
      )
      expect((await post('/revoke', ada, { owner: ACME, createdBy: 'u_3' })).json()).toEqual({ revoked: 1 })
      expect((await ask('/reports', [own.line])).status).toBe(401)
      for (const { line } of [globexes, adas]) expect((await ask('/reports', [line])).status).toBe(200)
    })

    const loginOf = (username: keyof typeof DEMO_PASSWORDS) => ({
      username,
      password: DEMO_PASSWORDS[username],
    })
  })

  it('shows the staff the keys of all, which is logged, and the text of none that may do something', async () => {
    const [acmes, globexes] = [await issueFor(ACME), await issueFor(GLOBEX)]
    const margaret = [await logIn('margaret')]
    events.length = 0
    const shown = await listedBy(margaret)
    expect([...shown].sort()).toEqual([acmes.id, globexes.id].sort())
    expect(events.map(auditLine).sort()).toEqual(
      [
        `key.read ${acmes.id} of organization acme by u_5`,
        `key.read ${globexes.id} of organization globex by u_5`,
      ].sort(),
    )
    expect(codeOf(await post(`/${acmes.id}/rotate`, margaret))).toBe('403 permissions_exceeded')
    const asked = { name: 'x', owner: ACME, permissions: { reports: ['read'] } }
    expect(codeOf(await post('', margaret, asked))).toBe('403 permissions_exceeded')
  })
})
