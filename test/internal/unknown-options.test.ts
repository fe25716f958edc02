import assert from 'node:assert'
import {
  type ApiKeys,
  bcryptFormat,
  betterAuthFormat,
  createApiKeys,
  createTickets,
  djangoApiKeyFormat,
  memoryRateLimiter,
  memoryStore,
  memoryTicketStore,
  plainTextFormat,
  sanctumFormat,
} from 'latchkey'
import { createApiKeysClient } from 'latchkey/client'
import * as express from 'latchkey/express'
import * as fastifyDoor from 'latchkey/fastify'
import * as fetchDoor from 'latchkey/fetch'
import * as koa from 'latchkey/koa'
import { createKeyManagementApi } from 'latchkey/management'
import { apiKeyRouter as expressRouter } from 'latchkey/management/express'
import { apiKeyRouter as fetchRouter } from 'latchkey/management/fetch'
import { apiKeyRouter as koaRouter } from 'latchkey/management/koa'
import { ApiKeyRouterModule } from 'latchkey/management/nest'
import * as mcp from 'latchkey/mcp'
import { LatchkeyModule, RequireKey, RequireSessionOrKey } from 'latchkey/nest'
import { LatchkeyInstrumentation } from 'latchkey/opentelemetry'
import { ApiKeyStrategy, HeaderAPIKeyStrategy } from 'latchkey/passport'
import { redisInvalidation, redisRateLimiter, redisStore, redisTicketStore } from 'latchkey/redis'
import { remoteApiKeys } from 'latchkey/remote'
import { migrationSql, mysqlStore, postgresStore, sqliteStore } from 'latchkey/sql'
import { fakeClock, limiterConformance, storeConformance } from 'latchkey/testing'
import * as websocket from 'latchkey/websocket'
import { beforeAll, describe, expect, it, vi } from 'vitest'
import { checkActor } from '../../lib/management/actor.ts'
import { resolvePolicy } from '../../lib/management/policy.ts'
import { readDocumentedOptions } from '../support/golden/read-documented.ts'

// A compiler is slow where much else runs.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 120_000 })

/** Takes options that have one member, which is unknown. */
type Take = (given: never) => unknown

const ID = 'A'.repeat(16)
const OWNER = { type: 'user', id: 'u_1' }
const PERMISSIONS = { projects: ['read'] }
const noop = () => {}
const methods = (...names: string[]) => Object.fromEntries(names.map((name) => [name, noop])) as never

const right = () => ({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme' })
const create = (given: object) => createApiKeys({ ...right(), ...given })
const keys: ApiKeys = createApiKeys(right())
const withFormat = create({ formats: [bcryptFormat()] })
const client = createApiKeysClient({ baseUrl: 'https://keys.example.com', fetch: noop as never })
const redis = methods('eval', 'evalsha', 'publish', 'duplicate', 'pipeline')
const issue = (given: object) => keys.issue({ owner: OWNER, name: 'CI', ...given })
const router = { actor: () => null }

/** Every public type of options, and every door that takes it. */
const OPTIONS: Readonly<Record<string, readonly Take[]>> = {
  'latchkey ApiKeysOptions': [create],
  'latchkey FailedAttemptsOptions': [
    (failedAttempts) => create({ failedAttempts }),
    (failedAttempts) => remoteApiKeys(client, { failedAttempts }),
  ],
  'latchkey ExpiryRemindersOptions': [(expiryReminders) => create({ expiryReminders, onEvent: noop })],
  'latchkey ServiceRateLimit': [(limit) => create({ rateLimits: [limit] })],
  'latchkey RateLimit': [
    (limit) => create({ rateLimits: [limit] }),
    (limit) => issue({ rateLimits: [limit] }),
  ],
  'latchkey MemoryRateLimiterOptions': [memoryRateLimiter],
  'latchkey IssueOptions': [issue],
  'latchkey KeySettings': [issue, (given) => keys.update(ID, given)],
  'latchkey ImportedKey': [keys.import],
  'latchkey ImportAllOptions': [(given) => keys.importAll([], given)],
  'latchkey ListOptions': [keys.list],
  'latchkey UpdateOptions': [
    (given) => keys.update(ID, { name: 'CI' }, given),
    (given) => keys.enable(ID, given),
    (given) => keys.disable(ID, given),
  ],
  'latchkey UsageOptions': [(given) => keys.usage({ key: ID, ...(given as object) })],
  'latchkey UnusedPermissionsOptions': [(given) => keys.unusedPermissions(ID, given)],
  'latchkey/client UnusedPermissionsOptions': [(given) => client.unusedPermissions(ID, given)],
  'latchkey RotateOptions': [(given) => keys.rotate(ID, given)],
  'latchkey RevokeOptions': [(given) => keys.revoke(ID, given)],
  'latchkey RevokeAllOptions': [(given) => keys.revokeOwner(OWNER, given)],
  'latchkey RevokeCreatedByOptions': [(given) => keys.revokeCreatedBy('u_1', given)],
  'latchkey PurgeOptions': [keys.purge],
  'latchkey EraseOptions': [(given) => keys.erase(OWNER, given)],
  'latchkey ChangeOptions': [
    (given) => keys.invalidateOwner(OWNER, given),
    (given) => keys.acceptConfiguration({ rateLimiter: true }, given),
    (given) => keys.import({} as never, given),
  ],
  'latchkey VerifyOptions': [
    (given) => keys.verify('', given),
    (given) => remoteApiKeys(client).verify('', given),
    (given) => keys.explain({ id: ID }, given),
  ],
  'latchkey BcryptFormatOptions': [bcryptFormat],
  'latchkey BetterAuthFormatOptions': [betterAuthFormat],
  'latchkey DjangoApiKeyFormatOptions': [djangoApiKeyFormat],
  'latchkey PlainTextFormatOptions': [plainTextFormat],
  'latchkey SanctumFormatOptions': [sanctumFormat],
  'latchkey OnEndOptions': [(given) => keys.onEnd(ID, noop, given)],
  'latchkey TicketsOptions': [(given: object) => createTickets({ store: memoryTicketStore(), ...given })],
  'latchkey IssueTicketOptions': [issueTicket],
  'latchkey MemoryTicketStoreOptions': [memoryTicketStore],
  'latchkey/passport ApiKeyRouteOptions': [passRoute],
  'latchkey/passport ApiKeyStrategyOptions': [(given: object) => new ApiKeyStrategy({ keys, ...given })],
  'latchkey/redis RedisInvalidationOptions': [(given) => redisInvalidation(redis, given)],
  'latchkey/redis RedisRateLimiterOptions': [(given) => redisRateLimiter(redis, given)],
  'latchkey/redis RedisTicketStoreOptions': [(given) => redisTicketStore(redis, given)],
  'latchkey/redis RedisStoreOptions': [(given) => redisStore(redis, given)],
  'latchkey/sql SqliteStoreOptions': [
    (given) => sqliteStore(':memory:', given),
    (given) => migrationSql('sqlite', given),
  ],
  'latchkey/sql SqlTableOptions': [
    (given) => postgresStore(methods('connect', 'query'), given),
    (given) => mysqlStore(methods('getConnection', 'query', 'execute'), given),
    (given) => migrationSql('postgres', given),
  ],
  'latchkey/testing LimiterConformanceOptions': [
    (given: object) =>
      limiterConformance({ test: noop, assert, ...given }, () => {
        const clock = fakeClock()
        return { limiter: memoryRateLimiter({ clock }), clock }
      }),
  ],
  'latchkey/testing StoreConformanceOptions': [
    (given: object) => storeConformance({ test: noop, assert, ...given }, memoryStore),
  ],
  'latchkey/management KeyManagementApiOptions': [
    (given: object) => createKeyManagementApi(keys, { ...router, ...given }),
  ],
  'latchkey/management PolicyOptions': [resolvePolicy],
  'latchkey/management RequestLimitOptions': [
    (requestLimit) => createKeyManagementApi(keys, { ...router, requestLimit }),
  ],
  'latchkey/management/express ApiKeyRouterOptions': [
    (given: object) => expressRouter(keys, { ...router, ...given }),
  ],
  'latchkey/management/fetch ApiKeyRouterOptions': [
    (given: object) => fetchRouter(keys, { ...router, ...given }),
  ],
  'latchkey/management/koa ApiKeyRouterOptions': [
    (given: object) => koaRouter(keys, { ...router, ...given }),
  ],
  'latchkey/client ApiKeysClientOptions': [
    (given: object) => createApiKeysClient({ baseUrl: 'https://keys.example.com', ...given }),
  ],
  'latchkey/client CallOptions': [
    (given) => client.list({}, given),
    (given) => client.get(ID, given),
    (given) => client.verify({ key: 'k' }, given),
    client.self,
    client.openApi,
  ],
  'latchkey/client ChangeCallOptions': [
    (given) => client.update(ID, { name: 'CI' }, given),
    (given) => client.enable(ID, given),
    (given) => client.disable(ID, given),
  ],
  'latchkey/client MakeCallOptions': [
    (given) => client.issue({ name: 'CI' }, given),
    (given) => client.rotate(ID, {}, given),
  ],
  'latchkey/client RevokeCallOptions': [(given) => client.revoke(ID, given)],
  'latchkey/remote RemoteApiKeysOptions': [(given) => remoteApiKeys(client, given)],
  ...ofFramework('express', express),
  ...ofFramework('koa', koa),
  'latchkey/nest LatchkeyModuleOptions': [(given: object) => LatchkeyModule.forRoot({ keys, ...given })],
  'latchkey/nest LatchkeyModuleAsyncOptions': [
    (given: object) => LatchkeyModule.forRootAsync({ useFactory: () => ({ keys }), ...given }),
  ],
  'latchkey/nest RequireKeyOptions': [RequireKey, RequireSessionOrKey],
  'latchkey/management/nest ApiKeyRouterModuleOptions': [
    (given: object) => ApiKeyRouterModule.forRoot({ ...router, ...given }),
  ],
  'latchkey/management/nest ApiKeyRouterModuleAsyncOptions': [
    (given: object) => ApiKeyRouterModule.forRootAsync({ useFactory: () => router, ...given }),
  ],
  'latchkey/fastify ApiKeyAuthOptions': [(given) => fastifyDoor.apiKeyAuth(keys, given)],
  'latchkey/fastify ApiKeyGuardOptions': [fastifyDoor.requireApiKey],
  'latchkey/fastify AuthGuardOptions': [fastifyDoor.requireAuth],
  'latchkey/fastify SessionGuardOptions': [fastifyDoor.requireSession],
  'latchkey/fastify PermissionGuardOptions': [(given) => fastifyDoor.requirePermissions(PERMISSIONS, given)],
  'latchkey/fastify MarkSessionOptions': [
    (given: object) => fastifyDoor.markSession({ user: () => null, ...given }),
  ],
  'latchkey/fastify ApiKeyPluginOptions': [
    (given: object) => fastifyDoor.apiKeyPlugin({} as never, { keys, ...given }),
  ],
  'latchkey/mcp McpOptions': [(given) => mcp.mcpGuard(keys, given), (given) => mcp.mcpWebGuard(keys, given)],
  'latchkey/mcp McpGuardOptions': [(given) => mcp.mcpGuard(keys, given)],
  'latchkey/mcp McpWebGuardOptions': [(given) => mcp.mcpWebGuard(keys, given)],
  'latchkey/opentelemetry LatchkeyInstrumentationOptions': [
    (given) => new LatchkeyInstrumentation({ enabled: false, ...(given as object) }),
  ],
  'latchkey/websocket ApiKeyUpgradeOptions': [(given) => websocket.apiKeyUpgrade(keys, given)],
  'latchkey/websocket MarkSessionOptions': [
    (given: object) => websocket.markSession({ user: () => null, ...given }),
  ],
  'latchkey/fetch ApiKeyAuthOptions': [
    (given) => fetchDoor.apiKeyAuth(keys, given),
    (given) => fetchDoor.withApiKey(keys, () => new Response(), given),
  ],
  'latchkey/fetch ApiKeyGuardOptions': [fetchDoor.requireApiKey],
  'latchkey/fetch AuthGuardOptions': [fetchDoor.requireAuth],
  'latchkey/fetch SessionGuardOptions': [fetchDoor.requireSession],
  'latchkey/fetch PermissionGuardOptions': [(given) => fetchDoor.requirePermissions(PERMISSIONS, given)],
  'latchkey/fetch MarkSessionOptions': [
    (given: object) => fetchDoor.markSession({ user: () => null, ...given }),
  ],
}

async function issueTicket(given: never): Promise<unknown> {
  const { key } = await keys.issue({ owner: OWNER, name: 'CI' })
  const request = new Request('http://localhost/', { headers: { 'X-Api-Key': key } })
  await fetchDoor.apiKeyAuth(keys)(request)
  return createTickets({ store: memoryTicketStore() }).issue(request, given)
}

function ofFramework(door: string, exported: typeof express | typeof koa): Record<string, readonly Take[]> {
  return {
    [`latchkey/${door} ApiKeyAuthOptions`]: [(given) => exported.apiKeyAuth(keys, given)],
    [`latchkey/${door} ApiKeyGuardOptions`]: [
      exported.requireApiKey,
      (given) => (exported as typeof express).withApiKey(noop, given),
    ],
    [`latchkey/${door} AuthGuardOptions`]: [exported.requireAuth],
    [`latchkey/${door} SessionGuardOptions`]: [exported.requireSession],
    [`latchkey/${door} PermissionGuardOptions`]: [(given) => exported.requirePermissions(PERMISSIONS, given)],
    [`latchkey/${door} MarkSessionOptions`]: [exported.markSession],
  }
}

/** Options of a route of Passport's are those of its strategies as well, so that only what is meant for keys is refused. */
function passRoute(given: object): unknown {
  const strategy = Object.assign(new ApiKeyStrategy({ keys }), {
    error(error: unknown) {
      throw error
    },
  })
  return strategy.authenticate({ headers: {} } as never, given)
}

/** Members of objects within options, whose types have other names. */
const NESTED: readonly (readonly [what: string, members: string, take: Take])[] = [
  ['an owner', 'type id', (owner) => issue({ owner })],
  ['a quota', 'remaining refill', (quota) => issue({ quota })],
  ['a refill', 'amount everyMs per timeZone', (refill) => issue({ quota: { remaining: 1, refill } })],
  ['a pepper', 'id secret', (pepper) => create({ peppers: [pepper] })],
  ['a digest scheme', 'scheme cost', (digest) => create({ digest })],
  ['what configuration is accepted', 'pepper rateLimiter invalidation', keys.acceptConfiguration],
  ['a selection', 'owner owners createdBy name status expiresBefore', (given) => keys.count(given)],
  ['a policy without Redis', 'default limits', (onUnavailable) => redisRateLimiter(redis, { onUnavailable })],
  ['an imported digest', 'hash value of', (digest) => importDigest(digest)],
  ['the part of a digest', 'afterFirst afterLast', (of) => importDigest({ hash: 'sha256', value: 'x', of })],
  ['an actor', 'id owners admin grantable', checkActor],
  ['an owner of an actor', 'type id can grantable', (owner) => checkActor({ id: 'a', owners: [owner] })],
  [
    'client fields',
    'permissions rateLimits quota expiresAt idleExpiryMs allowedIps metadata prefix',
    (clientFields) => expressRouter(keys, { ...router, clientFields }),
  ],
  [
    'a ceiling of time',
    'maxMs',
    (expiresAt) => createKeyManagementApi(keys, { ...router, clientFields: { expiresAt } }),
  ],
  [
    'a ceiling of a quota',
    'maxRemaining maxRefillAmount minRefillMs',
    (quota) => koaRouter(keys, { ...router, clientFields: { quota } }),
  ],
  ['a header', 'header prefix doneLast', (given) => new HeaderAPIKeyStrategy(given, false, noop as never)],
  [
    'a listing of a client',
    'owner createdBy name status expiresBefore order limit cursor',
    (given) => client.list(given),
  ],
]

const importDigest = (digest: object) =>
  withFormat.import({ format: 'bcrypt', owner: OWNER, name: 'CI', lookup: 'l', digest } as never)

/** These are types of which others are made, or of objects that a library makes, and no door takes them. */
const TAKEN_NOWHERE = [
  'latchkey LatchkeyErrorOptions',
  // A route's other options are Passport's.
  'latchkey/passport ApiKeyAuthenticateOptions',
]

describe('an option that nobody knows', () => {
  let documented: string[] = []
  beforeAll(() => {
    documented = Object.keys(readDocumentedOptions())
  })

  it('has a row for every type of options', () => {
    const types = [...new Set(documented.map((row) => row.replace(/\..*/, '')))]
    const isOfOtherRow = (type: string) => {
      const [door, name] = type.split(' ')
      // `AuthenticatorOptions` are part of those of the middlewares; some doors export types of others again.
      if (name === 'AuthenticatorOptions' || door === 'latchkey/import') return true
      return name === 'RequestLimitOptions' && door !== 'latchkey/management'
    }
    const known = [...Object.keys(OPTIONS), ...TAKEN_NOWHERE]
    expect(types.length).toBeGreaterThan(40)
    expect(types.filter((type) => !known.includes(type) && !isOfOtherRow(type))).toEqual([])
    expect(known.filter((type) => !types.includes(type))).toEqual([])
  })

  it.each(Object.entries(OPTIONS))('is refused with the nearest that is known: %s', async (type, doors) => {
    const names = documented
      .filter((row) => row.startsWith(`${type}.`))
      .map((row) => row.slice(type.length + 1))
    expect(names.length).toBeGreaterThan(0)
    for (const take of doors) for (const name of names) await expectNearest(take, name)
  })

  it.each(NESTED)('is refused with the nearest that is known: %s', async (_what, members, take) => {
    for (const name of members.split(' ')) await expectNearest(take, name)
  })
})

/** Gives `nname` in place of `name`; for `cache.maxEntries` an object of that member. */
async function expectNearest(take: Take, path: string): Promise<void> {
  const [group, member] = path.includes('.') ? path.split('.') : [undefined, path]
  const name = member as string
  const misspelt = { [`${name[0]}${name}`]: undefined }
  const given = group === undefined ? misspelt : { [group]: misspelt }
  const complaint = await (async () => take(given as never))().then(() => 'it is taken', String)
  expect(complaint).toMatch(
    new RegExp(
      `^(?:Type|Latchkey)Error: "[\\w[\\].]+" has no option "${name[0]}${name}"; did you mean "${name}"\\?$`,
    ),
  )
}
