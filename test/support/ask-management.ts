import type { ApiKey, ApiKeysOptions, IssueOptions } from 'latchkey'
import { type Action, type Actor, type ClientFields, createKeyManagementApi } from 'latchkey/management'
import { fakeClock } from './fake-clock.ts'
import { createTestKeys, type TestKeys } from './test-keys.ts'

export const DAY = 86_400_000
export const NOW = Date.UTC(2026, 5, 15)
export const later = (ms: number) => new Date(NOW + ms)

export const USER = { type: 'user', id: 'u_1' } as const

/** What an actor asks of the interface. */
export interface Question {
  readonly as: Actor
  readonly action: Action
  /** The key that it is about. */
  readonly id?: string
  /** The body; of what is only read, the query. */
  readonly json?: unknown
  readonly clientFields?: ClientFields
}

export interface Answer {
  readonly status: number
  /** `ok`, or the code of the refusal. */
  readonly outcome: string
  readonly field?: string
  readonly accepted?: string
  readonly body: Readonly<Record<string, unknown>>
}

/** What a key is issued with, and when. */
export type GivenKey = Partial<IssueOptions> & { readonly issuedAt?: Date }

export interface Management extends TestKeys {
  /** Issues a key to `USER`, ten days ago unless the moment is given. */
  give(settings?: GivenKey): Promise<ApiKey>
  /** Sends a request to the interface at `NOW`. @throws Error when it was refused, and yet something was written. */
  ask(question: Question): Promise<Answer>
  /** The same, of which only `ok` or the code is of interest. */
  outcomeOf(question: Question): Promise<string>
}

/** The interface without a framework, over keys in memory. */
export function createManagement({ rateLimits }: Pick<ApiKeysOptions, 'rateLimits'> = {}): Management {
  const testKeys = createTestKeys({ clock: fakeClock(NOW), ...(rateLimits && { rateLimits }) })
  const { keys, clock, store } = testKeys

  async function give({ issuedAt = later(-10 * DAY), ...settings }: GivenKey = {}): Promise<ApiKey> {
    clock.set(issuedAt.getTime())
    const { apiKey } = await keys.issue({ owner: USER, name: 'CI', ...settings })
    clock.set(NOW)
    return apiKey
  }

  async function ask({ as, action, id = '', json = {}, clientFields = {} }: Question): Promise<Answer> {
    const api = createKeyManagementApi(keys, { actor: () => as, clientFields, clock, requestLimit: false })
    const { method, path } = ROUTES[action]
    store.forgetCalls()
    const { status, body: text } = await api.handle({
      method,
      url: path.replace('{id}', encodeURIComponent(id)) + (method === 'GET' ? queryOf(json as object) : ''),
      source: { headers: { 'content-type': 'application/json' } },
      parsedBody: JSON.stringify(json),
    })
    const body = JSON.parse(text)
    if (status < 300) return { status, outcome: 'ok', body }
    const written = WRITES.filter((method) => store.calls(method) > 0)
    if (written.length > 0) throw new Error(`${text}, and yet ${written.join()} was called`)
    const { code, field, accepted } = body
    return { status, outcome: code, body, ...(field && { field }), ...(accepted && { accepted }) }
  }

  return { ...testKeys, give, ask, outcomeOf: async (question) => (await ask(question)).outcome }
}

const ROUTES: Readonly<Record<Action, { readonly method: 'GET' | 'POST' | 'PATCH'; readonly path: string }>> =
  {
    list: { method: 'GET', path: '/' },
    issue: { method: 'POST', path: '/' },
    read: { method: 'GET', path: '/{id}' },
    update: { method: 'PATCH', path: '/{id}' },
    enable: { method: 'POST', path: '/{id}/enable' },
    disable: { method: 'POST', path: '/{id}/disable' },
    rotate: { method: 'POST', path: '/{id}/rotate' },
    revoke: { method: 'POST', path: '/{id}/revoke' },
    revoke_all: { method: 'POST', path: '/revoke' },
    erase: { method: 'POST', path: '/erase' },
    explain: { method: 'POST', path: '/explain' },
  }

const WRITES = ['insert', 'update', 'purge', 'forget'] as const

function queryOf({ owner, ...rest }: { owner?: { type: string; id: string } }): string {
  const named = owner && { ownerType: owner.type, ownerId: owner.id }
  return `?${new URLSearchParams({ ...named, ...rest })}`
}
