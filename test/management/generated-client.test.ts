import { beforeAll, describe, expect, it } from 'vitest'
import { openApiDocument } from '../../lib/management/openapi.ts'
import { OPERATIONS } from '../../lib/management/operations.ts'
import { generateClient } from '../support/generated-client.ts'
import { createWorld, ROUTERS } from '../support/management-world.ts'
import { ALICE, NAME } from '../support/test-keys.ts'

/** What somebody writes who has nothing but the document. Every operation is in it, typed, and answers its data. */
const PROGRAM = `
import createClient, { type Middleware } from 'openapi-fetch'
import type { components, paths } from './schema.js'

type ApiKey = components['schemas']['ApiKey']

/** Whether two types are the same. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
function holds<T extends true>(..._proof: T[]): void {}

type ListParameters = NonNullable<paths['/']['get']['parameters']['query']>
holds<Same<ListParameters['limit'], number | undefined>>()
holds<Same<ListParameters['status'], 'active' | 'disabled' | 'expired' | 'revoked' | undefined>>()
holds<Same<ApiKey['usageCount'], number>>()
holds<Same<components['schemas']['IssueRequest']['idleExpiryMs'], number | null | undefined>>()
holds<undefined extends paths['/{id}/enable']['post']['requestBody'] ? false : true>()
holds<undefined extends paths['/self/revoke']['post']['requestBody'] ? false : true>()

export async function useEverything(baseUrl: string, login: string, key: string) {
  const people = createClient<paths>({ baseUrl, headers: { 'X-Actor': login } })
  const service = createClient<paths>({ baseUrl, headers: { 'X-Api-Key': key } })
  const refused: unknown[] = []
  const notice: Middleware = {
    async onResponse({ response }) {
      if (!response.ok) refused.push([response.url, response.status, await response.clone().text()])
    },
  }
  people.use(notice)
  service.use(notice)

  const issued = await people.POST('/', {
    params: { header: { 'Idempotency-Key': 'once' } },
    body: {
      name: 'generated',
      owner: { type: 'user', id: 'u_alice' },
      permissions: { projects: ['read'] },
      rateLimits: [{ name: 'minute', limit: 10, windowMs: 60_000 }, { name: 'day', limit: 100, per: 'day' }],
      quota: { remaining: 100, refill: { amount: 10, everyMs: 60_000 } },
      allowedIps: ['127.0.0.1'],
      expiresAt: '2090-01-31T12:00:00Z',
      idleExpiryMs: 60_000,
      metadata: { team: 'a' },
    },
  })
  if (!issued.data) throw new Error(JSON.stringify(issued.error))
  const text: string = issued.data.key
  const { id, version }: ApiKey = issued.data.apiKey
  const path = { id }

  const list = await people.GET('/', { params: { query: { limit: 1, ownerType: 'user', ownerId: 'u_alice' } } })
  const read = await people.GET('/{id}', { params: { path } })
  const limits = await people.GET('/{id}/limits', { params: { path } })
  const usage = await people.GET('/{id}/usage', { params: { path, query: { by: 'hour' } } })
  const owner = { ownerType: 'user', ownerId: 'u_alice' }
  const ownerUsage = await people.GET('/usage', { params: { query: owner } })
  const unused = await people.GET('/{id}/unused-permissions', { params: { path, query: { days: 7 } } })
  const header = { 'If-Match': \`"\${version}"\` }
  const update = await people.PATCH('/{id}', { params: { path, header }, body: { name: 'renamed' } })
  const disable = await people.POST('/{id}/disable', { params: { path }, body: {} })
  const enable = await people.POST('/{id}/enable', { params: { path }, body: {} })
  const rotate = await people.POST('/{id}/rotate', { params: { path }, body: { graceMs: 60_000 } })
  const verify = await service.POST('/verify', { body: { key: text, permissions: { projects: ['read'] }, ip: '127.0.0.1', cost: 1 } })
  const explain = await people.POST('/explain', { body: { key: text, cost: { minute: 50 } } })
  const revoke = await people.POST('/{id}/revoke', { params: { path }, body: { reason: 'done' } })
  const remove = await people.DELETE('/{id}', { params: { path } })
  const revokeAll = await people.POST('/revoke', { body: { owner: { type: 'user', id: 'u_alice' } } })
  const erase = await people.POST('/erase', { body: { owner: { type: 'user', id: 'u_gone' } } })
  const self = await service.GET('/self')
  const revokeSelf = await service.POST('/self/revoke', { body: {} })
  const document = await people.GET('/openapi.json')
  const count: number | undefined = revokeAll.data?.revoked
  return {
    refused,
    answers: {
      issue: issued.data.apiKey.name,
      list: list.data?.apiKeys.length,
      read: read.data?.name,
      limits: limits.data?.limits.map(({ name }) => name),
      usage: usage.data?.total.admitted,
      owner_usage: ownerUsage.data?.buckets.length,
      unused_permissions: unused.data?.unused,
      update: update.data?.name,
      disable: disable.data?.enabled,
      enable: enable.data?.enabled,
      rotate: rotate.data?.apiKey.rotatedFrom === id,
      verify: verify.data?.active,
      explain: explain.data?.steps.filter(({ outcome }) => outcome === 'refused').map(({ step }) => step),
      revoke: revoke.data?.revokedReason,
      delete: remove.data?.status,
      revoke_all: count,
      erase: erase.data,
      self: self.data?.permissions,
      self_revoke: typeof revokeSelf.data?.revokedAt,
      openapi: Object.keys(document.data ?? {}).includes('paths'),
    },
  }
}

/** What is refused is typed as well. */
export async function beRefused(baseUrl: string) {
  const { error } = await createClient<paths>({ baseUrl }).GET('/')
  const code: string | undefined = error?.code
  return code
}
`

interface Exports {
  useEverything(
    baseUrl: string,
    login: string,
    key: string,
  ): Promise<{ refused: unknown[]; answers: Record<string, unknown> }>
  beRefused(baseUrl: string): Promise<string | undefined>
}

describe('a client that is generated from the document', () => {
  let client: Exports
  // The tools are installed where this is the first run.
  beforeAll(async () => {
    client = await generateClient<Exports>(openApiDocument(), PROGRAM)
  }, 180_000)

  it.each(ROUTERS)('runs every operation on %s', async (_name, build) => {
    const { port, keys } = await createWorld({}, build)
    const { key } = await keys.issue({
      owner: { type: 'service', id: 'gateway' },
      name: 'gateway',
      permissions: { 'api-keys': ['verify'] },
    })
    await keys.issue(NAME)
    const baseUrl = `http://127.0.0.1:${port}/api-keys`
    const { refused, answers } = await client.useEverything(baseUrl, 'admin', key)
    expect(refused).toEqual([])
    expect(answers).toEqual({
      issue: 'generated',
      list: 1,
      read: 'generated',
      limits: ['minute', 'day', 'quota'],
      usage: 0,
      owner_usage: 31,
      unused_permissions: { projects: ['read'] },
      update: 'renamed',
      disable: false,
      enable: true,
      rotate: true,
      verify: true,
      explain: ['address'],
      revoke: 'done',
      delete: 'revoked',
      revoke_all: 2,
      erase: { removed: 0, forgotten: 0 },
      self: { 'api-keys': ['verify'] },
      self_revoke: 'string',
      openapi: true,
    })
    expect(Object.keys(answers).sort()).toEqual(OPERATIONS.map(({ id }) => id).sort())
    expect((await keys.list({ owner: ALICE, status: 'active' })).apiKeys).toEqual([])
    expect(await client.beRefused(baseUrl)).toBe('authentication_required')
  })
})
