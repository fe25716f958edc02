import { BARE } from '../support/challenges.ts'
import 'reflect-metadata'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  Controller,
  type DynamicModule,
  type ExecutionContext,
  Get,
  Inject,
  Injectable,
  Module,
  Next,
  type Provider,
  Req,
  Res,
  Scope,
  type Type,
  UseGuards,
} from '@nestjs/common'
import { APP_FILTER, APP_GUARD, ContextIdFactory, ModuleRef, NestFactory, Reflector } from '@nestjs/core'
import { ExecutionContextHost } from '@nestjs/core/helpers/execution-context-host.js'
import { AuthGuard, PassportModule, PassportStrategy } from '@nestjs/passport'
import { Test } from '@nestjs/testing'
import express, { type Request, type RequestHandler, type Response } from 'express'
import session from 'express-session'
import { type ApiKey, type ApiKeys, type ApiKeysOptions, LatchkeyError } from 'latchkey'
import { apiKeyAuth } from 'latchkey/express'
import { type Auth, Strategy } from 'latchkey/passport'
import { lastValueFrom, type Observable } from 'rxjs'
import { afterAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { ApiKeyStrategy } from '../../examples/nest/api-key.strategy.ts'
import { ApiKeyAuthGuard } from '../../examples/nest/api-key-auth.guard.ts'
import { AppModule } from '../../examples/nest/app.module.ts'
import { curlLines } from '../../examples/nest/curl-lines.ts'
import { CurrentAuth } from '../../examples/nest/current-auth.decorator.ts'
import {
  Public,
  RequireKey,
  RequirePermissions,
  RequireSession,
  RequireSessionOrKey,
} from '../../examples/nest/permissions.decorator.ts'
import { ProblemFilter } from '../../examples/nest/problem.filter.ts'
import { Cost } from '../../examples/nest/route-access.ts'
import { SessionGuard } from '../../examples/nest/session.guard.ts'
import { SessionOrKeyGuard } from '../../examples/nest/session-or-key.guard.ts'
import { API_KEYS, USERS } from '../../examples/nest/tokens.ts'
import { createDemoUsers, DEMO_LOGIN, type User, type Users } from '../../examples/nest/users.ts'
import { fetcher, hasCurl, shellIn } from '../support/curl.ts'
import { issueKey } from '../support/issue-key.ts'
import { readTable } from '../support/markdown.ts'
import { readPrintedLines, summaryOf } from '../support/printed-lines.ts'
import { type Program, startProgram } from '../support/program.ts'
import { type Answer, type Ask, serve } from '../support/raw-http.ts'
import { rejects } from '../support/recording-store.ts'
import { ALICE, createTestKeys, forgeKey, type TestKeys } from '../support/test-keys.ts'

// Child processes and Nest are slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const people = new Map<string, User>([[ALICE.id, { id: ALICE.id, username: 'alice' }]])
const USERS_HERE: Users = { find: (id) => people.get(id) ?? null, checkPassword: () => null }
const READ = { projects: ['read'] }
const GLOBAL_GUARD: Provider = { provide: APP_GUARD, useClass: ApiKeyAuthGuard }
const LIMIT = { name: 'minute', limit: 2, windowMs: 60_000 }

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

  it('says that its port is not one', async () => {
    const program = start({ PORT: 'http' })
    expect(await program.ended()).toBe(1)
    expect(program.stderr).toBe('PORT must be a number from 0 to 65535\n')
  })

  function start(env: NodeJS.ProcessEnv): Program {
    const program = startProgram(['examples/nest/server.ts'], env)
    onTestFinished(() => program.signal('SIGKILL'))
    return program
  }
})

/** What a caller may meet, with what it takes to get there: the lines of the request that is compared. */
const OUTCOMES: Record<
  string,
  {
    status: number
    keys?: Partial<Omit<ApiKeysOptions, 'clock' | 'store'>>
    given: (test: TestKeys, ask: Ask) => Promise<string[]>
  }
> = {
  'no key': { status: 401, given: async () => [] },
  'an empty header': { status: 401, given: async () => [keyLine('')] },
  'a malformed key': { status: 401, given: async () => [keyLine('junk')] },
  'a key in letters of another alphabet': { status: 401, given: async () => [keyLine('\xfc\xe4')] },
  'an unknown key': {
    status: 401,
    given: async ({ keys }) => [keyLine(forgeKey(await keyOf(keys), { keyId: 'x'.repeat(16) }))],
  },
  'a wrong secret': {
    status: 401,
    given: async ({ keys }) => [keyLine(forgeKey(await keyOf(keys), { secret: 'x'.repeat(43) }))],
  },
  'a revoked key': {
    status: 401,
    async given({ keys }) {
      const { key, apiKey } = await issueKey(keys)
      await keys.revoke(apiKey.id)
      return [keyLine(key)]
    },
  },
  'a disabled key': {
    status: 401,
    async given({ keys }) {
      const { key, apiKey } = await issueKey(keys)
      await keys.disable(apiKey.id)
      return [keyLine(key)]
    },
  },
  'an expired key': {
    status: 401,
    async given({ keys, clock }) {
      const key = await keyOf(keys, { expiresAt: new Date(clock.now() + 1_000) })
      await clock.advance(1_000)
      return [keyLine(key)]
    },
  },
  'a key of nobody': {
    status: 401,
    given: async ({ keys }) => [keyLine(await keyOf(keys, { owner: { type: 'user', id: 'u_gone' } }))],
  },
  'two keys': {
    status: 400,
    async given({ keys }) {
      const key = await keyOf(keys)
      return [keyLine(key), `Authorization: Api-Key ${key}`]
    },
  },
  'another address': {
    status: 403,
    given: async ({ keys }) => [keyLine(await keyOf(keys, { allowedIps: ['192.0.2.0/24'] }))],
  },
  'a missing permission': {
    status: 403,
    given: async ({ keys }) => [keyLine(await keyOf(keys, { permissions: { projects: ['write'] } }))],
  },
  'an exhausted limit': {
    status: 429,
    keys: { rateLimits: [LIMIT] },
    async given({ keys }, ask) {
      const line = keyLine(await keyOf(keys))
      for (const _ of Array(LIMIT.limit)) expect((await ask('/projects', [line])).status).toBe(200)
      return [line]
    },
  },
  'an exhausted quota': {
    status: 429,
    given: async ({ keys }) => [keyLine(await keyOf(keys, { quota: { remaining: 0 } }))],
  },
  'an address that guesses': {
    status: 429,
    keys: { failedAttempts: { limit: 3 } },
    async given({ keys }, ask) {
      for (const _ of Array(3)) expect((await ask('/projects', [keyLine('junk')])).status).toBe(401)
      return [keyLine(await keyOf(keys))]
    },
  },
  'a store that is down': {
    status: 503,
    async given({ keys, store }) {
      const key = await keyOf(keys)
      store.fail('find', rejects(new Error('password of the database')))
      return [keyLine(key)]
    },
  },
  'users that are down': {
    status: 503,
    given: async ({ keys }) => [keyLine(await keyOf(keys, { owner: { type: 'user', id: 'u_down' } }))],
  },
  'a good key': {
    status: 200,
    keys: { rateLimits: [LIMIT] },
    given: async ({ keys }) => [keyLine(await keyOf(keys))],
  },
}

describe('the same request has the same answer as on Express, to the last header line:', () => {
  const users: Users = {
    ...USERS_HERE,
    find(id) {
      if (id === 'u_down') throw new Error('password of the user table')
      return USERS_HERE.find(id)
    },
  }

  @Controller('projects')
  @RequirePermissions(READ)
  class Projects {
    @Get()
    list(@Req() req: Request) {
      return { user: req.user, by: req.authMethod }
    }
  }

  const hosts: Record<string, (keys: ApiKeys) => Promise<Ask>> = {
    express: (keys) =>
      serve(
        express()
          .disable('x-powered-by')
          .get(
            '/projects',
            apiKeyAuth(keys, { permissions: READ, resolveUser: ({ owner }) => users.find(owner.id) }),
            (req, res) => void res.json({ user: req.user, by: req.authMethod }),
          ),
      ),
    'nest, the guard of the route': (keys) => serveNest({ keys, users, controllers: [Projects] }),
    'nest, the guard of the application': (keys) =>
      serveNest({ keys, users, controllers: [Projects], providers: [GLOBAL_GUARD] }),
  }

  it.each(Object.keys(OUTCOMES))('%s', async (name) => {
    const { status, keys, given } = OUTCOMES[name] as (typeof OUTCOMES)[string]
    const answers: Record<string, Answer> = {}
    for (const [host, start] of Object.entries(hosts)) {
      const test = createTestKeys(keys)
      const ask = await start(test.keys)
      answers[host] = await ask('/projects', await given(test, ask))
    }
    const [onExpress, ...onNest] = Object.values(answers).map(withoutDate)
    expect(onExpress).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
    expect(onExpress).not.toContain('password')
    for (const each of onNest) expect(each).toBe(onExpress)
  })

  it('and events and charges are the same too', async () => {
    const told: unknown[] = []
    for (const start of Object.values(hosts)) {
      const test = createTestKeys({ rateLimits: [{ ...LIMIT, limit: 9 }] })
      const ask = await start(test.keys)
      const good = keyLine(await keyOf(test.keys))
      const lacking = keyLine(await keyOf(test.keys, { permissions: {} }))
      const answers: Answer[] = []
      for (const line of [good, lacking, good, keyLine('junk')]) answers.push(await ask('/projects', [line]))
      const refused = test.eventsOf('key.refused').map(({ code, reason }) => [code, reason])
      told.push([answers.map((answer) => [answer.status, answer.header('RateLimit')]), refused])
    }
    expect(told[0]).toEqual([
      [
        [200, '"minute";r=8;t=60'],
        [403, undefined],
        [200, '"minute";r=7;t=60'],
        [401, undefined],
      ],
      [
        ['insufficient_permissions', null],
        ['invalid_key', 'malformed'],
      ],
    ])
    expect(told.slice(1)).toEqual([told[0], told[0]])
  })
})

describe('what @nestjs/passport does on its own', () => {
  @Controller()
  class Routes {
    @Get('by-key')
    @UseGuards(AuthGuard('apikey'))
    byKey() {
      return { let: 'in' }
    }
    @Get('either')
    @UseGuards(AuthGuard(['session', 'apikey']))
    either() {
      return { let: 'in' }
    }
  }

  @Injectable()
  class FailingStrategy extends PassportStrategy(Strategy, 'apikey') {
    constructor(@Inject(API_KEYS) keys: ApiKeys) {
      super({ keys, refuseWith: 'fail' })
    }
    validate(apiKey: ApiKey) {
      return apiKey.owner
    }
  }

  it('answers every failure with a bare 401 where the strategy fails: without challenge, status and code', async () => {
    const test = createTestKeys()
    const ask = await serveNest({ keys: test.keys, controllers: [Routes], strategy: FailingStrategy })
    const key = await keyOf(test.keys)
    const elsewhere = await keyOf(test.keys, { allowedIps: ['192.0.2.0/24'] })
    const cases = [[], [keyLine('junk')], [keyLine(key), keyLine(key)], [keyLine(elsewhere)]]
    for (const lines of cases) {
      const answer = await ask('/by-key', lines)
      expect(answer.status).toBe(401)
      expect(answer.all('WWW-Authenticate')).toEqual([])
      expect(answer.json()).toEqual({ statusCode: 401, message: 'Unauthorized' })
    }
  })

  it('keeps status and challenge with "refuseWith", and renders a body of its own and logs an error', async () => {
    const { keys } = createTestKeys()
    const logged: string[] = []
    const ask = await serveNest({ keys, controllers: [Routes], withFilter: false, logged })
    const answer = await ask('/by-key')
    expect(logged).toEqual(['LatchkeyError: An API key is required'])
    expect(answer.status).toBe(401)
    expect(answer.header('WWW-Authenticate')).toBe(BARE)
    expect(answer.json()).toEqual({ statusCode: 401, message: 'An API key is required' })
  })

  it('lets everybody in with session before apikey', async () => {
    const { keys } = createTestKeys()
    const ask = await serveNest({
      keys,
      controllers: [Routes],
      use: session({ secret: 'test', resave: false, saveUninitialized: false }),
    })
    for (const lines of [[], [keyLine('junk')]]) {
      expect((await ask('/either', lines)).json()).toEqual({ let: 'in' })
    }
  })
})

describe('the strategy', () => {
  @Controller()
  class WhoAmI {
    @Get('me')
    @UseGuards(ApiKeyAuthGuard)
    me(@Req() req: Request, @CurrentAuth() auth: Auth<User>) {
      return { user: req.user, auth: { ...auth, apiKey: auth.method === 'apikey' && auth.apiKey.name } }
    }
  }

  it('makes what validate() answers the user', async () => {
    const { keys } = createTestKeys()
    const ask = await serveNest({ keys, controllers: [WhoAmI] })
    const answer = await ask('/me', [keyLine(await keyOf(keys))])
    const user = people.get(ALICE.id)
    expect(answer.json()).toEqual({ user, auth: { method: 'apikey', user, apiKey: 'CI' } })
  })

  it('waits for a validate() that has to wait, and keeps its errors to itself', async () => {
    const { keys } = createTestKeys()
    @Injectable()
    class AsyncStrategy extends PassportStrategy(Strategy, 'apikey') {
      constructor(@Inject(API_KEYS) keys: ApiKeys) {
        super({ keys, refuseWith: 'error' })
      }
      async validate({ owner }: ApiKey) {
        await Promise.resolve()
        if (owner.id === 'u_down') throw new Error('password of the user table')
        return owner.id === ALICE.id ? { name: 'Alice' } : null
      }
    }
    const ask = await serveNest({ keys, controllers: [WhoAmI], strategy: AsyncStrategy })
    const askAs = async (id: string) =>
      ask('/me', [keyLine(await keyOf(keys, { owner: { type: 'user', id } }))])
    expect((await askAs(ALICE.id)).json()).toMatchObject({ user: { name: 'Alice' } })
    expect((await askAs('u_gone')).json()).toMatchObject({ status: 401, code: 'invalid_key' })
    const down = await askAs('u_down')
    expect(down.json()).toMatchObject({ status: 503, code: 'unavailable' })
    expect(down.text).not.toContain('password')
  })

  it.each([
    ['null', () => null],
    ['false', () => false],
    ['a promise of nobody', async () => undefined],
  ])('is asked on every route that takes keys, and blocks by %s', async (_what, validate) => {
    const { keys } = createTestKeys()
    @Injectable()
    class BlockingStrategy extends PassportStrategy(Strategy, 'apikey') {
      constructor(@Inject(API_KEYS) keys: ApiKeys) {
        super({ keys, refuseWith: 'error' })
      }
      validate({ owner }: ApiKey): unknown {
        return owner.id === ALICE.id ? validate() : { id: owner.id }
      }
    }
    @Controller()
    class TakingKeys {
      @Get('bare')
      @UseGuards(ApiKeyAuthGuard)
      bare(@Req() req: Request) {
        return req.user
      }
      @Get('key')
      @RequireKey()
      key(@Req() req: Request) {
        return req.user
      }
      @Get('read')
      @RequirePermissions(READ)
      read(@Req() req: Request) {
        return req.user
      }
      @Get('either')
      @RequireSessionOrKey()
      either(@Req() req: Request) {
        return req.user
      }
    }
    const strategy = BlockingStrategy
    const ask = await serveNest({ keys, controllers: [TakingKeys], strategy })
    const lineOf = async (id: string) => keyLine(await keyOf(keys, { owner: { type: 'user', id } }))
    const [good, blocked] = [await lineOf('u_free'), await lineOf(ALICE.id)]
    for (const path of ['/bare', '/key', '/read', '/either']) {
      expect((await ask(path, [blocked])).json()).toMatchObject({ status: 401, code: 'invalid_key' })
      expect((await ask(path, [good])).json()).toEqual({ id: 'u_free' })
    }
  })

  it('is not made with both validate() and "resolveUser"', async () => {
    const { keys } = createTestKeys()
    @Injectable()
    class DoubleStrategy extends PassportStrategy(Strategy, 'apikey') {
      constructor(@Inject(API_KEYS) keys: ApiKeys) {
        super({ keys, resolveUser: () => ALICE })
      }
      validate() {
        return ALICE
      }
    }
    const starting = serveNest({ keys, controllers: [WhoAmI], strategy: DoubleStrategy })
    await expect(starting).rejects.toThrow(TypeError)
  })

  it('hands over the request with passReqToCallback, by which request-scoped providers are found', async () => {
    const { keys } = createTestKeys()
    let made = 0
    @Injectable({ scope: Scope.REQUEST })
    class Tenant {
      readonly number = ++made
    }
    @Injectable()
    class TenantStrategy extends PassportStrategy(Strategy, 'apikey') {
      constructor(
        @Inject(API_KEYS) keys: ApiKeys,
        @Inject(ModuleRef) private readonly moduleRef: ModuleRef,
      ) {
        super({ keys, refuseWith: 'error', passReqToCallback: true })
      }
      async validate(req: Request, apiKey: ApiKey) {
        const tenant = await this.moduleRef.resolve(Tenant, ContextIdFactory.getByRequest(req), {
          strict: false,
        })
        return { owner: apiKey.owner.id, path: req.path, tenant: tenant.number }
      }
    }
    @Controller({ path: 'tenant', scope: Scope.REQUEST })
    @UseGuards(ApiKeyAuthGuard)
    class Tenants {
      constructor(@Inject(Tenant) private readonly tenant: Tenant) {}
      @Get()
      show(@Req() req: Request) {
        return { user: req.user, tenant: this.tenant.number }
      }
    }
    const ask = await serveNest({
      keys,
      controllers: [Tenants],
      strategy: TenantStrategy,
      providers: [Tenant],
    })
    const line = keyLine(await keyOf(keys))
    for (const tenant of [1, 2]) {
      const { status, json } = await ask('/tenant', [line])
      expect(status).toBe(200)
      expect(json()).toEqual({ user: { owner: ALICE.id, path: '/tenant', tenant }, tenant })
    }
  })

  it('keeps fifty requests at once apart, good ones and bad ones in turn', async () => {
    const test = createTestKeys()
    const ask = await serveNest({ keys: test.keys, controllers: [WhoAmI] })
    const owners = Array.from({ length: 25 }, (_, i) => ({ type: 'user', id: `u_${i}` }))
    for (const { id } of owners) people.set(id, { id, username: id })
    onTestFinished(() => owners.forEach(({ id }) => void people.delete(id)))
    const good = await Promise.all(owners.map((owner) => keyOf(test.keys, { owner })))
    const lines = good.flatMap((key) => [keyLine(key), keyLine(forgeKey(key, { secret: 'x'.repeat(43) }))])
    const answers = await Promise.all(lines.map((line) => ask('/me', [line])))
    const told = answers.map(({ status, json }) => [status, (json().user as User | undefined)?.id])
    expect(told).toEqual(
      owners.flatMap(({ id }) => [
        [200, id],
        [401, undefined],
      ]),
    )
  })
})

describe('the guard', () => {
  @Controller()
  class Open {
    @Get('open')
    @Public()
    open() {
      return { let: 'in' }
    }
    @Get('unsaid')
    unsaid() {
      return { let: 'in' }
    }
  }

  it('guards, as a global one, what says nothing, and lets everybody to what is public', async () => {
    const { keys } = createTestKeys()
    const ask = await serveNest({ keys, controllers: [Open], providers: [GLOBAL_GUARD] })
    expect((await ask('/unsaid')).json()).toMatchObject({ status: 401, code: 'missing_key' })
    expect((await ask('/unsaid', [keyLine(await keyOf(keys))])).status).toBe(200)
    for (const lines of [[], [keyLine('junk')]]) expect((await ask('/open', lines)).status).toBe(200)
  })

  it('refuses where a strategy of that name goes on without deciding', async () => {
    const { keys } = createTestKeys()
    class Undecided {
      name = 'apikey'
      authenticate(this: { pass(): void }) {
        this.pass()
      }
    }
    @Injectable()
    class PassingStrategy extends PassportStrategy(Undecided, 'apikey') {
      validate() {}
    }
    const ask = await serveNest({
      keys,
      controllers: [Open],
      strategy: PassingStrategy,
      providers: [GLOBAL_GUARD],
    })
    const key = await keyOf(keys)
    for (const lines of [[], [keyLine(key)]]) {
      expect((await ask('/unsaid', lines)).json()).toMatchObject({ status: 401, code: 'missing_key' })
    }
  })

  it('leaves routes that do not exist to Nest', async () => {
    const { keys } = createTestKeys()
    const ask = await serveNest({ keys, controllers: [Open], providers: [GLOBAL_GUARD] })
    expect((await ask('/nowhere')).status).toBe(404)
  })

  it("asks for the user once, be it a route's guard and the application's", async () => {
    const { keys } = createTestKeys()
    const find = vi.fn(USERS_HERE.find)
    @Controller()
    class Guarded {
      @Get('guarded')
      @RequirePermissions(READ)
      guarded() {
        return 'guarded'
      }
    }
    const users = { ...USERS_HERE, find }
    const ask = await serveNest({ keys, users, controllers: [Guarded], providers: [GLOBAL_GUARD] })
    expect((await ask('/guarded', [keyLine(await keyOf(keys))])).status).toBe(200)
    expect(find).toHaveBeenCalledTimes(1)
  })

  it('asks again where a handler passes the request on to another route', async () => {
    const { keys } = createTestKeys()
    const write = { projects: ['write'] }
    @Controller('handlers')
    class Handlers {
      @Get()
      @RequirePermissions(READ)
      first(@Next() next: () => void) {
        next()
      }
      @Get()
      @RequirePermissions(write)
      second() {
        return 'second'
      }
    }
    class Inherited {
      @Get()
      handle(@Req() req: { passedOn?: boolean }, @Res() res: Response, @Next() next: () => void) {
        if (req.passedOn) res.json('second')
        else next()
        req.passedOn = true
      }
    }
    @Controller('controllers')
    @RequirePermissions(READ)
    class Readers extends Inherited {}
    @Controller('controllers')
    @RequirePermissions(write)
    class Writers extends Inherited {}
    const controllers = [Handlers, Readers, Writers]
    for (const providers of [[], [GLOBAL_GUARD]]) {
      const ask = await serveNest({ keys, controllers, providers })
      const reader = keyLine(await keyOf(keys))
      const both = keyLine(await keyOf(keys, { permissions: { projects: ['read', 'write'] } }))
      for (const path of ['/handlers', '/controllers']) {
        const refused = await ask(path, [reader])
        expect(refused.json()).toMatchObject({ code: 'insufficient_permissions', missing: write })
        const passed = await ask(path, [both])
        expect([passed.status, passed.body]).toEqual([200, expect.stringContaining('second')])
      }
    }
  })

  it('sees the address that "trust proxy" lets a proxy tell', async () => {
    const { keys } = createTestKeys()
    const line = keyLine(await keyOf(keys, { allowedIps: ['192.0.2.7'] }))
    const parts = { keys, controllers: [Open], providers: [GLOBAL_GUARD] }
    const lines = [line, 'X-Forwarded-For: 192.0.2.7']
    const alone = await serveNest(parts)
    expect((await alone('/unsaid', lines)).json()).toMatchObject({ code: 'address_not_allowed' })
    const behindProxy = await serveNest({ ...parts, use: trustProxy })
    expect((await behindProxy('/unsaid', lines)).status).toBe(200)
  })

  it('takes no keys of another application that has registered its strategy after it', async () => {
    const [mine, other] = [createTestKeys(), createTestKeys()]
    const ask = await serveNest({ keys: mine.keys, controllers: [Open], providers: [GLOBAL_GUARD] })
    await serveNest({ keys: other.keys, controllers: [Open], providers: [GLOBAL_GUARD] })
    const answer = await ask('/unsaid', [keyLine(await keyOf(other.keys))])
    expect(answer.json()).toMatchObject({ status: 403, code: 'api_key_required' })
  })

  it.each(['rpc', 'ws', 'graphql'])('refuses messages of kind %s, and says why', async (type) => {
    const { keys } = createTestKeys()
    const context = new ExecutionContextHost([{ headers: {} }, {}], Open, Open.prototype.unsaid)
    context.setType(type)
    const message = `API keys and sessions are checked on HTTP routes only, not on "${type}"`
    const reflector = new Reflector()
    const guards = [
      new ApiKeyAuthGuard(reflector, keys),
      new SessionGuard(),
      new SessionOrKeyGuard(reflector, keys),
    ]
    for (const guard of guards) {
      await expect(guard.canActivate(context as ExecutionContext)).rejects.toThrow(message)
    }
    const open = new ExecutionContextHost([{}, {}], Open, Open.prototype.open)
    open.setType(type)
    for (const guard of guards) expect(await guard.canActivate(open as ExecutionContext)).toBe(true)
  })
})

describe('the decorators', () => {
  @Controller('projects')
  @RequirePermissions(READ)
  class Projects {
    @Get()
    list() {
      return 'list'
    }
    @Get('write')
    @RequirePermissions({ projects: ['write'] })
    write() {
      return 'write'
    }
    @Get('any')
    @RequirePermissions([{ projects: ['write'] }, { admin: ['*'] }])
    any() {
      return 'any'
    }
    @Get('public')
    @Public()
    public() {
      return 'public'
    }
    @Get('session')
    @RequireSession()
    session() {
      return 'session'
    }
    @Get('either')
    @RequireSessionOrKey()
    either() {
      return 'either'
    }
  }

  it.each([
    ['of the route', []],
    ['of the application', [GLOBAL_GUARD]],
  ])('replace on a handler what its controller says: guard %s', async (_which, providers) => {
    const { keys } = createTestKeys()
    const ask = await serveNest({ keys, controllers: [Projects], providers })
    const reader = [keyLine(await keyOf(keys, { permissions: READ }))]
    const writer = [keyLine(await keyOf(keys, { permissions: { projects: ['write'] } }))]
    const statuses = async (lines: string[]) => {
      const paths = ['', '/write', '/any', '/public', '/session', '/either']
      const answers = await Promise.all(paths.map((path) => ask(`/projects${path}`, lines)))
      return answers.map(({ status }) => status)
    }
    expect(await statuses(reader)).toEqual([200, 403, 403, 200, 403, 200])
    expect(await statuses(writer)).toEqual([403, 200, 200, 200, 403, 200])
    expect(await statuses([])).toEqual([401, 401, 401, 200, 401, 401])
  })

  it('guard a handler whose controller is public', async () => {
    const { keys } = createTestKeys()
    @Controller('mostly-public')
    @Public()
    class MostlyPublic {
      @Get()
      open() {
        return 'open'
      }
      @Get('write')
      @RequirePermissions({ projects: ['write'] })
      write() {
        return 'write'
      }
      @Get('settings')
      @RequireSession()
      settings() {
        return 'settings'
      }
    }
    const ask = await serveNest({ keys, controllers: [MostlyPublic] })
    const reader = [keyLine(await keyOf(keys))]
    expect((await ask('/mostly-public')).status).toBe(200)
    expect((await ask('/mostly-public/write')).status).toBe(401)
    expect((await ask('/mostly-public/write', reader)).status).toBe(403)
    expect((await ask('/mostly-public/settings', reader)).status).toBe(403)
  })

  it.each([
    ['of the route', []],
    ['of the application', [GLOBAL_GUARD]],
  ])('do not silence a guard that a handler binds itself: guard %s', async (_which, providers) => {
    const { keys } = createTestKeys()
    class OtherName extends ApiKeyAuthGuard {}
    @Controller('public')
    @Public()
    class MostlyPublic {
      @Get('open')
      open() {
        return 'open'
      }
      @Get('bare')
      @UseGuards(ApiKeyAuthGuard)
      bare() {
        return 'bare'
      }
      @Get('instance')
      @UseGuards(new ApiKeyAuthGuard(new Reflector(), keys))
      instance() {
        return 'instance'
      }
      @Get('sub')
      @UseGuards(OtherName)
      sub() {
        return 'sub'
      }
      @Get('contradiction')
      @UseGuards(ApiKeyAuthGuard)
      @Public()
      contradiction() {
        return 'contradiction'
      }
      @Get('session')
      @UseGuards(SessionGuard)
      session() {
        return 'session'
      }
      @Get('either')
      @UseGuards(SessionOrKeyGuard)
      either() {
        return 'either'
      }
      @Get('key')
      @RequireKey()
      key() {
        return 'key'
      }
    }
    const ask = await serveNest({ keys, controllers: [MostlyPublic], providers })
    const good = [keyLine(await keyOf(keys))]
    const told: Record<string, number[]> = {}
    for (const path of ['open', 'bare', 'instance', 'sub', 'contradiction', 'session', 'either', 'key']) {
      const answers = [await ask(`/public/${path}`), await ask(`/public/${path}`, good)]
      told[path] = answers.map(({ status }) => status)
    }
    expect(told).toEqual({
      open: [200, 200],
      bare: [401, 200],
      instance: [401, 200],
      sub: [401, 200],
      contradiction: [401, 200],
      session: [401, 403],
      either: [401, 200],
      key: [401, 200],
    })
  })

  it('do not silence a guard that stands in for the one that a handler binds', async () => {
    const { keys } = createTestKeys()
    class StandIn extends ApiKeyAuthGuard {}
    @Controller('public')
    @Public()
    class MostlyPublic {
      @Get()
      @UseGuards(ApiKeyAuthGuard)
      bare() {
        return 'bare'
      }
    }
    const providers = [
      { provide: API_KEYS, useValue: keys },
      { provide: USERS, useValue: USERS_HERE },
      ApiKeyStrategy,
    ]
    const site = await Test.createTestingModule({ controllers: [MostlyPublic], providers })
      .overrideGuard(ApiKeyAuthGuard)
      .useClass(StandIn)
      .compile()
    const app = site.createNestApplication({ logger: false })
    onTestFinished(() => app.close())
    await app.init()
    const ask = await serve(app.getHttpAdapter().getInstance())
    expect((await ask('/public')).status).toBe(401)
    expect((await ask('/public', [keyLine(await keyOf(keys))])).status).toBe(200)
  })

  it('keep what a controller asks for where a handler binds the guard itself', async () => {
    const { keys } = createTestKeys()
    @Controller('projects')
    @RequirePermissions({ projects: ['write'] })
    class Writers {
      @Get()
      @UseGuards(ApiKeyAuthGuard)
      list() {
        return 'list'
      }
      @Get('key')
      @RequireKey()
      key() {
        return 'key'
      }
    }
    const ask = await serveNest({ keys, controllers: [Writers] })
    const reader = [keyLine(await keyOf(keys))]
    expect((await ask('/projects', reader)).json()).toMatchObject({ code: 'insufficient_permissions' })
    expect((await ask('/projects/key', reader)).status).toBe(200)
    expect((await ask('/projects/key')).json()).toMatchObject({ code: 'missing_key' })
  })

  it.each([
    ['of the route', []],
    ['of the application', [GLOBAL_GUARD]],
  ])('replace what a base class says, and no guard of its own: guard %s', async (_which, providers) => {
    const { keys } = createTestKeys()
    @RequireKey()
    class OfKeys {
      @Get()
      show() {
        return 'shown'
      }
    }
    @Public()
    class OfEverybody {
      @Get()
      show() {
        return 'shown'
      }
    }
    @UseGuards(ApiKeyAuthGuard)
    @Public()
    class Contradiction {
      @Get()
      show() {
        return 'shown'
      }
    }
    @Controller('inherited')
    class Inherited extends OfKeys {}
    @Controller('opened')
    @Public()
    class Opened extends OfKeys {}
    @Controller('sessions')
    @RequireSession()
    class Sessions extends OfKeys {}
    @Controller('public')
    class Open extends OfEverybody {}
    @Controller('guarded')
    @UseGuards(ApiKeyAuthGuard)
    class Guarded extends OfEverybody {}
    @Controller('contradiction')
    class Contradicted extends Contradiction {}
    const controllers = [Inherited, Opened, Sessions, Open, Guarded, Contradicted]
    const ask = await serveNest({ keys, controllers, providers })
    const answerOf = async (path: string) => {
      const answer = await ask(path)
      return answer.status === 200 ? answer.body : answer.json().code
    }
    expect(await answerOf('/inherited')).toBe('missing_key')
    expect(await answerOf('/opened')).toBe('shown')
    expect(await answerOf('/sessions')).toBe('authentication_required')
    expect(await answerOf('/public')).toBe('shown')
    expect(await answerOf('/guarded')).toBe('missing_key')
    expect(await answerOf('/contradiction')).toBe('missing_key')
  })

  it('replace on a handler what its controller says of sessions', async () => {
    const { keys } = createTestKeys()
    @Controller('account')
    @RequireSession()
    class Account {
      @Get('open')
      @Public()
      open() {
        return 'open'
      }
      @Get('read')
      @RequirePermissions(READ)
      read() {
        return 'read'
      }
      @Get('either')
      @RequireSessionOrKey()
      either() {
        return 'either'
      }
    }
    @Controller('either')
    @RequireSessionOrKey()
    class Either {
      @Get('open')
      @Public()
      open() {
        return 'open'
      }
      @Get('session')
      @RequireSession()
      session() {
        return 'session'
      }
    }
    const ask = await serveNest({ keys, controllers: [Account, Either] })
    const reader = [keyLine(await keyOf(keys))]
    const statuses = async (path: string) =>
      [await ask(path), await ask(path, reader)].map(({ status }) => status)
    expect(await statuses('/account/open')).toEqual([200, 200])
    expect(await statuses('/account/read')).toEqual([401, 200])
    expect(await statuses('/account/either')).toEqual([401, 200])
    expect(await statuses('/either/open')).toEqual([200, 200])
    expect(await statuses('/either/session')).toEqual([401, 403])
  })

  it('take no keys that other keys have verified before', async () => {
    const [mine, other] = [createTestKeys(), createTestKeys()]
    @Controller()
    class Either {
      @Get('either')
      @RequireSessionOrKey()
      either() {
        return 'either'
      }
    }
    const use = apiKeyAuth(other.keys, { headers: ['X-Other-Key'] })
    const ask = await serveNest({ keys: mine.keys, controllers: [Either], use })
    const answer = await ask('/either', [`X-Other-Key: ${await keyOf(other.keys)}`])
    expect(answer.json()).toMatchObject({ code: 'auth_method_not_accepted' })
  })

  it('ask for the permissions of the request, and charge nothing to a key that lacks them', async () => {
    const test = createTestKeys({ rateLimits: [LIMIT] })
    @Controller('projects')
    class Projects {
      @Get(':id')
      @RequirePermissions((req) => ({ [`project:${req.params.id}`]: ['read'] }))
      show() {
        return 'project'
      }
    }
    const ask = await serveNest({ keys: test.keys, controllers: [Projects], providers: [GLOBAL_GUARD] })
    const { key, apiKey } = await issueKey(test.keys, { permissions: { 'project:1': ['read'] } })
    const line = `X-Api-Key: ${key}`
    for (const [id, missing] of [
      ['2', { 'project:2': ['read'] }],
      ['a,b', {}],
    ] as const) {
      expect((await ask(`/projects/${id}`, [line])).json()).toMatchObject({
        status: 403,
        code: 'insufficient_permissions',
        missing,
      })
    }
    expect(await test.keys.limits(apiKey.id)).toMatchObject([{ remaining: LIMIT.limit }])
    expect((await ask('/projects/1', [line])).body).toBe('project')
  })

  it('charge what the route costs, once, be it guarded twice', async () => {
    const test = createTestKeys({ rateLimits: [{ ...LIMIT, limit: 9 }] })
    @Controller()
    class Costly {
      @Get('report')
      @RequirePermissions(READ)
      @Cost(5)
      report() {
        return 'report'
      }
      @Get('either')
      @RequireSessionOrKey()
      @Cost(3)
      either() {
        return 'either'
      }
      @Get('free')
      @Cost(0)
      free() {
        return 'free'
      }
    }
    const ask = await serveNest({ keys: test.keys, controllers: [Costly], providers: [GLOBAL_GUARD] })
    const line = keyLine(await keyOf(test.keys))
    expect((await ask('/report', [line])).header('RateLimit')).toBe('"minute";r=4;t=60')
    expect((await ask('/free', [line])).header('RateLimit')).toBe('"minute";r=4;t=60')
    expect((await ask('/either', [line])).header('RateLimit')).toBe('"minute";r=1;t=60')
    for (const path of ['/report', '/either']) {
      const refused = (await ask(path, [line])).json()
      expect(refused).toMatchObject({ status: 429, code: 'rate_limited', exceeded: ['minute'] })
    }
  })

  it.each([-5, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 'x', '5', null, undefined])(
    'refuse at once a cost of %s',
    (cost) => {
      const expected = new TypeError(`@Cost() takes an integer of 0 or more, received ${String(cost)}`)
      expect(() => Cost(cost as number)).toThrow(expected)
    },
  )

  it('refuse at once what is no requirement, and two of them in one place', () => {
    const decorate = (...decorators: MethodDecorator[]) => {
      class Target {
        handle() {}
      }
      const descriptor = Object.getOwnPropertyDescriptor(Target.prototype, 'handle') as PropertyDescriptor
      for (const decorator of decorators) decorator(Target.prototype, 'handle', descriptor)
    }
    expect(() => RequirePermissions('projects:read' as never)).toThrow(/"permissions"/)
    expect(() => decorate(Public(), RequirePermissions(READ))).toThrow(/give one/)
    expect(() => decorate(RequireSession(), Public())).toThrow(/give one/)
    expect(() => decorate(RequireKey(), RequirePermissions(READ))).toThrow(/give one/)
    expect(() => decorate(RequirePermissions(READ))).not.toThrow()
  })
})

describe('the filter', () => {
  it('hands back an error where there is no response to write to', async () => {
    const error = new LatchkeyError('unavailable')
    const host = new ExecutionContextHost([{}, {}])
    host.setType('rpc')
    const answer = new ProblemFilter().catch(error, host) as Observable<unknown>
    await expect(lastValueFrom(answer)).rejects.toBe(error)
  })

  it('leaves every other error to Nest', async () => {
    const { keys } = createTestKeys()
    @Controller()
    class Broken {
      @Get('broken')
      broken() {
        throw new Error('password of the database')
      }
    }
    const logged: string[] = []
    const ask = await serveNest({ keys, controllers: [Broken], logged })
    const answer = await ask('/broken')
    expect(answer.json()).toEqual({ statusCode: 500, message: 'Internal server error' })
    expect(logged).toEqual(['Error: password of the database'])
  })
})

describe('the application', () => {
  async function startApplication(parts: { prefix?: string } = {}) {
    const test = createTestKeys()
    const { prefix } = parts
    const ask = await serveModule(AppModule.register({ keys: test.keys, users: createDemoUsers() }), parts)
    const key = async (permissions = READ) =>
      keyLine(await keyOf(test.keys, { owner: { type: 'user', id: 'u_1' }, permissions }))
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

  it('opens no session for a key even where PassportModule asks for sessions', async () => {
    const { keys } = createTestKeys()
    const application = AppModule.register({ keys, users: USERS_HERE })
    const ask = await serveModule({
      ...application,
      imports: [PassportModule.register({ session: true, property: 'account' })],
    })
    const answer = await ask('/key', [keyLine(await keyOf(keys))])
    expect(answer.json()).toEqual({ name: 'CI' })
    expect(answer.all('Set-Cookie')).toEqual([])
  })

  it('guards the routes of other modules, which are handed the keys alone', async () => {
    const { keys } = createTestKeys()
    @Controller('feature')
    class FeatureController {
      @Get('key')
      @RequireKey()
      key() {
        return 'key'
      }
      @Get('either')
      @RequireSessionOrKey()
      either() {
        return 'either'
      }
      @Get('session')
      @RequireSession()
      session() {
        return 'session'
      }
    }
    @Module({ controllers: [FeatureController] })
    class FeatureModule {}
    const application = AppModule.register({ keys, users: USERS_HERE })
    const ask = await serveModule({ ...application, imports: [FeatureModule], exports: [API_KEYS] })
    const good = [keyLine(await keyOf(keys))]
    const told: number[][] = []
    for (const path of ['key', 'either', 'session']) {
      const answers = [await ask(`/feature/${path}`), await ask(`/feature/${path}`, good)]
      told.push(answers.map(({ status }) => status))
    }
    expect(told).toEqual([
      [401, 200],
      [401, 200],
      [401, 403],
    ])
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

interface NestParts {
  keys: ApiKeys
  users?: Users
  controllers: Type[]
  providers?: Provider[]
  strategy?: Provider
  withFilter?: boolean
  /** A middleware before everything else. */
  use?: RequestHandler
  /** Takes what Nest logs as errors. */
  logged?: string[]
}

/** An application of these controllers with the parts of the recipe, and no guard but their own. */
function serveNest(parts: NestParts): Promise<Ask> {
  const { keys, users = USERS_HERE, controllers, providers = [], strategy = ApiKeyStrategy } = parts
  @Module({})
  class TestModule {}
  const module = {
    module: TestModule,
    controllers,
    providers: [
      { provide: API_KEYS, useValue: keys },
      { provide: USERS, useValue: users },
      strategy,
      ...(parts.withFilter === false ? [] : [{ provide: APP_FILTER, useClass: ProblemFilter }]),
      ...providers,
    ],
  }
  return serveModule(module, parts)
}

async function serveModule(
  module: DynamicModule,
  { use, logged = [], prefix }: Pick<NestParts, 'use' | 'logged'> & { prefix?: string } = {},
): Promise<Ask> {
  const logger = { log() {}, warn() {}, error: (error: unknown) => void logged.push(String(error)) }
  const app = await NestFactory.create(module, { logger, abortOnError: false })
  onTestFinished(() => app.close())
  if (use) app.use(use)
  if (prefix) app.setGlobalPrefix(prefix)
  await app.init()
  return serve(app.getHttpAdapter().getInstance().disable('x-powered-by'))
}

const trustProxy: RequestHandler = (req, _res, next) => {
  req.app.set('trust proxy', 1)
  next()
}

function keyLine(key: string): string {
  return `X-Api-Key: ${key}`
}

async function keyOf(keys: ApiKeys, options: Parameters<typeof issueKey>[1] = {}): Promise<string> {
  return (await issueKey(keys, { permissions: READ, ...options })).key
}

/** Everything that was sent but the moment at which it was, with header lines in one order. */
function withoutDate({ text, lines, body }: Answer): string {
  const statusLine = text.slice(0, text.indexOf('\r\n'))
  const others = lines.filter((line) => !line.startsWith('Date: ')).sort()
  return [statusLine, ...others, '', body].join('\n')
}
