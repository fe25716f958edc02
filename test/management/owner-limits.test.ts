import type { ServiceRateLimit } from 'latchkey'
import type { Actor } from 'latchkey/management'
import { describe, expect, it } from 'vitest'
import { createManagement, USER } from '../support/ask-management.ts'

const MINUTE = { name: 'minute', limit: 100, windowMs: 60_000 } as const
const TEAM: ServiceRateLimit = { ...MINUTE, name: 'team', scope: 'owner' }
const HELD = { projects: ['read'] }

const ADMIN: Actor = { id: 'root', admin: true }
const OWNER: Actor = { id: 'u_1', owners: [{ ...USER, grantable: HELD }] }
/** May change the key, and not grant what it holds. */
const WEAK: Actor = { id: 'u_1', owners: [USER] }
const clientFields = { rateLimits: [MINUTE] }

describe('a limit of an owner', () => {
  it.each([
    ['an owner', OWNER, [TEAM]],
    ['an admin', ADMIN, [TEAM]],
    ['an owner', OWNER, async () => [TEAM]],
    ['an admin', ADMIN, async () => [TEAM]],
  ])('is nothing that %s sets over HTTP', async (_who, as, rateLimits) => {
    const { give, ask } = createManagement({ rateLimits })
    const { id } = await give({ permissions: HELD })
    for (const rateLimits of [[{ ...MINUTE, scope: 'owner' }], [MINUTE, { ...TEAM, limit: 1_000 }]]) {
      const json = { rateLimits }
      expect(await ask({ as, action: 'update', id, json, clientFields })).toMatchObject({
        outcome: 'invalid_request',
      })
      const issued = { ...json, name: 'CI', owner: USER }
      expect(await ask({ as, action: 'issue', json: issued, clientFields })).toMatchObject({
        outcome: 'invalid_request',
      })
    }
  })

  it('holds for a key whose own limits an admin has taken away', async () => {
    const { keys, ask } = createManagement({ rateLimits: [{ ...TEAM, limit: 2 }] })
    const { key, apiKey } = await keys.issue({ owner: USER, name: 'CI' })
    expect(await ask({ as: ADMIN, action: 'update', id: apiKey.id, json: { rateLimits: [] } })).toMatchObject(
      { outcome: 'ok' },
    )
    for (const ok of [true, true, false]) expect(await keys.verify(key)).toMatchObject({ ok })
  })
})

describe('limits that depend on the owner', () => {
  it.each<[string, readonly (typeof MINUTE)[] | null, readonly (typeof MINUTE)[] | null, string]>([
    ['from them', null, [MINUTE], 'permissions_exceeded'],
    ['to them', [MINUTE], null, 'permissions_exceeded'],
    ['not', null, null, 'ok'],
    ['neither', [MINUTE], [MINUTE], 'ok'],
  ])('may make a key freer if it changes %s', async (_what, before, after, outcome) => {
    const { give, ask } = createManagement({ rateLimits: () => [{ ...MINUTE, limit: 1 }] })
    const { id } = await give({ permissions: HELD, rateLimits: before })
    const question = { action: 'update' as const, id, json: { rateLimits: after }, clientFields }
    expect(await ask({ ...question, as: WEAK })).toMatchObject({ outcome })
    expect(await ask({ ...question, as: OWNER })).toMatchObject({ outcome: 'ok' })
  })
})
