import {
  type CanActivate,
  Controller,
  type ExecutionContext,
  Get,
  Head,
  Inject,
  Injectable,
  Module,
  Next,
  Post,
  Query,
  Req,
  Res,
  Scope,
  type Type,
  UseGuards,
} from '@nestjs/common'
import { APP_GUARD } from '@nestjs/core'
import { ExecutionContextHost } from '@nestjs/core/helpers/execution-context-host.js'
import type { NextFunction, Request, Response } from 'express'
import { type ApiKey, type ApiKeys, createTickets, memoryTicketStore } from 'latchkey'
import {
  type Auth,
  CurrentApiKey,
  CurrentAuth,
  LatchkeyGuard,
  LatchkeyModule,
  type LatchkeyModuleOptions,
  Public,
  RequireKey,
  RequireSession,
  RequireSessionOrKey,
  refund,
  settle,
} from 'latchkey/nest'
import { describe, expect, it, vi } from 'vitest'
import { Gatekeeper } from '../../lib/nest/gatekeeper.ts'
import { issueKey } from '../support/issue-key.ts'
import type { Ask } from '../support/raw-http.ts'
import { rejects } from '../support/recording-store.ts'
import { ALICE, createTestKeys } from '../support/test-keys.ts'
import { type NestSettings, PLATFORMS, type Platform, serveNest } from './serve-nest.ts'

// Nest is slow where much else runs.
vi.setConfig({ testTimeout: 60_000 })

const READ = { projects: ['read'] }
const WRITE = { projects: ['write'] }
const MINUTE = { name: 'minute', limit: 9, windowMs: 60_000 }

type Parts = Omit<LatchkeyModuleOptions, 'keys'> & NestSettings & { providers?: object[] }

/** An application of these controllers, with the module. */
function serve(platform: Platform, keys: ApiKeys, controllers: Type[], parts: Parts = {}): Promise<Ask> {
  const { providers = [], logged, trustsProxy, prepare, ...options } = parts
  class AppModule {}
  Module({
    imports: [LatchkeyModule.forRoot({ keys, ...options })],
    controllers,
    providers: providers as never[],
  })(AppModule)
  return serveNest(platform, AppModule, {
    ...(logged && { logged }),
    ...(trustsProxy && { trustsProxy }),
    ...(prepare && { prepare }),
  })
}

async function lineOf(keys: ApiKeys, options: Parameters<typeof issueKey>[1] = {}): Promise<string> {
  return `X-Api-Key: ${(await issueKey(keys, { permissions: READ, ...options })).key}`
}

/** A decorator that puts another function in the place of a method, without its metadata. */
const wrap: MethodDecorator = (_target, _name, descriptor) => {
  const inner = descriptor.value as unknown as () => unknown
  Object.assign(descriptor, {
    value(this: unknown) {
      return inner.call(this)
    },
  })
}

/** The status and the code, or what the handler has answered. */
async function outcome(ask: Ask, path: string, lines: string[] = []): Promise<string> {
  const answer = await ask(path, lines)
  return answer.status < 400 ? answer.body : `${answer.status} ${answer.json().code}`
}

@Controller()
class Site {
  @Get('unsaid')
  unsaid() {
    return 'in'
  }
  @Get('public')
  @Public()
  public() {
    return 'in'
  }
  @Get('key')
  @RequireKey()
  key(@CurrentApiKey() apiKey: ApiKey) {
    return apiKey.name
  }
  @Get('read')
  @RequireKey({ permissions: READ })
  read() {
    return 'in'
  }
  @Get('session')
  @RequireSession()
  session() {
    return 'in'
  }
  @Get('either')
  @RequireSessionOrKey({ permissions: READ, cost: 3 })
  either(@CurrentAuth() auth: Auth) {
    return auth.method
  }
}

describe.each(PLATFORMS)('on %s, the guard', (platform) => {
  it('requires a key where nothing is said, and lets everybody to what is public', async () => {
    const { keys } = createTestKeys()
    const ask = await serve(platform, keys, [Site])
    for (const path of ['/unsaid', '/key', '/read']) {
      expect(await outcome(ask, path)).toBe('401 missing_key')
      expect(await outcome(ask, path, ['X-Api-Key: junk'])).toBe('401 invalid_key')
      expect((await ask(path, [await lineOf(keys)])).status).toBe(200)
    }
    for (const lines of [[], ['X-Api-Key: junk'], [await lineOf(keys)]]) {
      expect(await outcome(ask, '/public', lines)).toBe('in')
    }
  })

  it('is only where it is named with "globalGuard: false"', async () => {
    const { keys } = createTestKeys()
    @Controller('bare')
    class Bare {
      @Get()
      @UseGuards(LatchkeyGuard)
      bare() {
        return 'in'
      }
    }
    const ask = await serve(platform, keys, [Site, Bare], { globalGuard: false })
    expect(await outcome(ask, '/unsaid')).toBe('in')
    expect(await outcome(ask, '/public')).toBe('in')
    for (const path of ['/key', '/read', '/bare']) expect(await outcome(ask, path)).toBe('401 missing_key')
    expect(await outcome(ask, '/session')).toBe('401 authentication_required')
    expect(await outcome(ask, '/either')).toBe('401 authentication_required')
    expect(await outcome(ask, '/bare', [await lineOf(keys)])).toBe('in')
  })

  it('keeps keys from what is for sessions, and takes either where both will do', async () => {
    const { keys } = createTestKeys({ rateLimits: [MINUTE] })
    const ask = await serve(platform, keys, [Site])
    expect(await outcome(ask, '/session', [await lineOf(keys)])).toBe('403 session_required')
    expect(await outcome(ask, '/session', ['X-Api-Key: junk'])).toBe('403 session_required')
    expect((await ask('/either', [await lineOf(keys)])).header('RateLimit')).toBe('"minute";r=6;t=60')
    expect(await outcome(ask, '/either', ['X-Api-Key: junk'])).toBe('401 invalid_key')
    expect(await outcome(ask, '/either', [await lineOf(keys, { permissions: WRITE })])).toBe(
      '403 insufficient_permissions',
    )
  })

  it('reads what a method says, then what its controller says, and never both', async () => {
    const { keys } = createTestKeys()
    @Controller('projects')
    @RequireKey({ permissions: READ })
    class Projects {
      @Get()
      list() {
        return 'in'
      }
      @Get('write')
      @RequireKey({ permissions: WRITE })
      write() {
        return 'in'
      }
      @Get('any')
      @RequireKey()
      any() {
        return 'in'
      }
      @Get('public')
      @Public()
      public() {
        return 'in'
      }
    }
    @Controller('open')
    @Public()
    class Open {
      @Get()
      open() {
        return 'in'
      }
      @Get('session')
      @RequireSession()
      session() {
        return 'in'
      }
    }
    for (const globalGuard of [true, false]) {
      const ask = await serve(platform, keys, [Projects, Open], { globalGuard })
      const writer = [await lineOf(keys, { permissions: WRITE })]
      expect(await outcome(ask, '/projects')).toBe('401 missing_key')
      expect(await outcome(ask, '/projects', writer)).toBe('403 insufficient_permissions')
      expect(await outcome(ask, '/projects/write', writer)).toBe('in')
      expect(await outcome(ask, '/projects/any', writer)).toBe('in')
      expect(await outcome(ask, '/projects/public')).toBe('in')
      expect(await outcome(ask, '/open')).toBe('in')
      expect(await outcome(ask, '/open/session', writer)).toBe('403 session_required')
    }
  })

  it('heeds what a base class says, unless the class says it anew', async () => {
    const { keys } = createTestKeys()
    @RequireSession()
    class OfSessions {
      @Get()
      show() {
        return 'in'
      }
    }
    @Public()
    class OfEverybody {
      @Get()
      show() {
        return 'in'
      }
    }
    @Controller('inherited')
    class Inherited extends OfSessions {}
    @Controller('opened')
    @Public()
    class Opened extends OfSessions {}
    @Controller('open')
    class Open extends OfEverybody {}
    @Controller('closed')
    @RequireKey()
    class Closed extends OfEverybody {}
    const ask = await serve(platform, keys, [Inherited, Opened, Open, Closed])
    expect(await outcome(ask, '/inherited')).toBe('401 authentication_required')
    expect(await outcome(ask, '/opened')).toBe('in')
    expect(await outcome(ask, '/open')).toBe('in')
    expect(await outcome(ask, '/closed')).toBe('401 missing_key')
  })

  it('reads what a method says that another decorator has wrapped, without its metadata', async () => {
    const { keys } = createTestKeys()
    class Base {
      @Get('inherited')
      @wrap
      @RequireKey({ permissions: WRITE })
      inherited() {
        return 'in'
      }
    }
    @Controller()
    class Wrapping extends Base {
      @Get('write')
      @wrap
      @RequireKey({ permissions: WRITE })
      write() {
        return 'in'
      }
      @Get('public')
      @wrap
      @Public()
      public() {
        return 'in'
      }
    }
    const ask = await serve(platform, keys, [Wrapping])
    for (const path of ['/write', '/inherited']) {
      expect(await outcome(ask, path, [await lineOf(keys)])).toBe('403 insufficient_permissions')
      expect(await outcome(ask, path, [await lineOf(keys, { permissions: WRITE })])).toBe('in')
    }
    expect(await outcome(ask, '/public')).toBe('in')
  })

  it('reads what a method says where the constructor puts another function in its place', async () => {
    const { keys } = createTestKeys()
    @Controller()
    @Public()
    class Binding {
      constructor() {
        this.write = this.write.bind(this)
        this.session = this.session.bind(this)
        this.bound = this.bound.bind(this)
        this.open = this.open.bind(this)
      }
      @Get('write')
      @RequireKey({ permissions: WRITE })
      write() {
        return 'in'
      }
      @Get('session')
      @RequireSession()
      session() {
        return 'in'
      }
      @Get('bound')
      @UseGuards(LatchkeyGuard)
      bound() {
        return 'in'
      }
      @Get('open')
      open() {
        return 'in'
      }
    }
    const ask = await serve(platform, keys, [Binding])
    const line = await lineOf(keys)
    expect(await outcome(ask, '/write')).toBe('401 missing_key')
    expect(await outcome(ask, '/write', [line])).toBe('403 insufficient_permissions')
    expect(await outcome(ask, '/session', [line])).toBe('403 session_required')
    expect(await outcome(ask, '/bound')).toBe('401 missing_key')
    expect(await outcome(ask, '/open')).toBe('in')
  })

  it('refuses a function that it cannot trace to a method, where methods say whom they let in', async () => {
    const { keys } = createTestKeys()
    @Controller()
    @Public()
    class Replacing {
      constructor() {
        const [nameless] = [() => 'in']
        Object.assign(this, { write: nameless })
      }
      @Get('write')
      @UseGuards(LatchkeyGuard)
      write() {
        return 'in'
      }
    }
    const logged: string[] = []
    const ask = await serve(platform, keys, [Replacing], { logged })
    expect((await ask('/write', [await lineOf(keys)])).status).toBe(500)
    expect(logged.join()).toContain('one route of Replacing runs a function that is not one of its methods')
  })

  it('stays where @UseGuards() binds it, though @Public() stands there or farther out', async () => {
    const { keys } = createTestKeys()
    class Mine extends LatchkeyGuard {}
    @Controller()
    @Public()
    class Contradictory {
      @Get('bound')
      @UseGuards(LatchkeyGuard)
      bound() {
        return 'in'
      }
      @Get('mine')
      @UseGuards(Mine)
      mine() {
        return 'in'
      }
      @Get('instance')
      @UseGuards(new LatchkeyGuard(new Gatekeeper({ keys })))
      instance() {
        return 'in'
      }
      @Get('both')
      @UseGuards(LatchkeyGuard)
      @Public()
      both() {
        return 'in'
      }
    }
    @Controller('class')
    @UseGuards(LatchkeyGuard)
    @Public()
    class Both {
      @Get()
      both() {
        return 'in'
      }
    }
    for (const globalGuard of [true, false]) {
      const ask = await serve(platform, keys, [Contradictory, Both], { globalGuard })
      for (const path of ['/bound', '/mine', '/instance', '/both', '/class']) {
        expect([path, await outcome(ask, path)]).toEqual([path, '401 missing_key'])
        expect(await outcome(ask, path, [await lineOf(keys)])).toBe('in')
      }
    }
  })

  it('asks for permissions and cost of the request, and charges nothing to a key that lacks them', async () => {
    const test = createTestKeys({ rateLimits: [MINUTE] })
    const costs: unknown[] = []
    @Controller('projects')
    class Projects {
      @Post(':id')
      @RequireKey({
        permissions: ({ params }) => ({ [`project:${params.id}`]: ['read'] }),
        cost: async ({ query, body }) => {
          costs.push(body)
          return Number(query.cost)
        },
      })
      show() {
        return 'in'
      }
    }
    const ask = await serve(platform, test.keys, [Projects])
    const { key, apiKey } = await issueKey(test.keys, { permissions: { 'project:1': ['read'] } })
    const line = `X-Api-Key: ${key}`
    const post = { method: 'POST', json: { big: true } } as const
    for (const id of ['2', 'a,b', '*', '__proto__']) {
      expect((await ask(`/projects/${id}?cost=1`, [line], post)).json()).toMatchObject({ status: 403 })
    }
    expect(await test.keys.limits(apiKey.id)).toMatchObject([{ remaining: 9 }])
    expect((await ask('/projects/1?cost=4', [line], post)).header('RateLimit')).toBe('"minute";r=5;t=60')
    expect((await ask('/projects/1?cost=x', [line], post)).json()).toMatchObject({ status: 503 })
    expect((await ask('/projects/1?cost=4', ['X-Api-Key: junk'], post)).status).toBe(401)
    // Once for each request with a good key, though the guard runs twice; it is of the application and of the route.
    expect(costs).toEqual([{ big: true }, { big: true }])
  })

  it.each<[string, () => never]>([
    [
      'throw',
      () => {
        throw new Error('password of the database')
      },
    ],
    ['require nothing', () => ({}) as never],
    ['return a promise', () => Promise.reject(new Error('late')) as never],
    ['return nonsense', () => 'read' as never],
  ])('answers 503 where permissions of the request %s', async (_what, permissions) => {
    const { keys } = createTestKeys({ rateLimits: [MINUTE] })
    @Controller()
    class Projects {
      @Get()
      @RequireKey({ permissions })
      show() {
        return 'in'
      }
    }
    const logged: string[] = []
    const ask = await serve(platform, keys, [Projects], { logged })
    const answer = await ask('/', [await lineOf(keys)])
    expect(answer.json()).toMatchObject({ status: 503, code: 'unavailable' })
    expect(answer.text).not.toContain('password')
    expect(logged).toEqual([])
  })

  it('asks once for the user, and again where a handler hands the request on to another route', async () => {
    if (platform === 'Fastify') return // It has one handler for a path.
    const { keys } = createTestKeys({ rateLimits: [MINUTE] })
    class Inherited {
      @Get()
      handle(@Req() req: { passedOn?: boolean }, @Res() res: Response, @Next() next: NextFunction) {
        if (req.passedOn) res.send('in')
        else next()
        req.passedOn = true
      }
    }
    @Controller('controllers')
    @RequireKey({ permissions: READ })
    class Readers extends Inherited {}
    @Controller('controllers')
    @RequireKey({ permissions: WRITE })
    class Writers extends Inherited {}
    const resolveUser = vi.fn(() => ALICE)
    const ask = await serve(platform, keys, [Readers, Writers], { resolveUser })
    expect(await outcome(ask, '/controllers', [await lineOf(keys)])).toBe('403 insufficient_permissions')
    resolveUser.mockClear()
    const both = await lineOf(keys, { permissions: { projects: ['read', 'write'] } })
    const answer = await ask('/controllers', [both])
    expect([answer.body, answer.header('RateLimit')]).toEqual(['in', '"minute";r=8;t=60'])
    expect(resolveUser).toHaveBeenCalledTimes(1)
  })

  it('asks anew where a handler hands the request on to another path of its own', async () => {
    if (platform === 'Fastify') return // It has one handler for a path.
    const { keys } = createTestKeys({ rateLimits: [MINUTE] })
    @Controller()
    class Paths {
      @Get(['of/:id', ':id/one'])
      @RequireKey({ permissions: ({ params }) => ({ [`project:${params.id}`]: ['read'] }) })
      show(@Req() req: { params: { id: string } }, @Res() res: Response, @Next() next: NextFunction) {
        if (req.params.id === 'one') next()
        else res.send(req.params.id)
      }
    }
    const ask = await serve(platform, keys, [Paths])
    const [one, both] = await Promise.all([
      lineOf(keys, { permissions: { 'project:one': ['read'] } }),
      lineOf(keys, { permissions: { 'project:one': ['read'], 'project:of': ['read'] } }),
    ])
    expect(await outcome(ask, '/of/one', [one])).toBe('403 insufficient_permissions')
    const answer = await ask('/of/one', [both])
    expect([answer.body, answer.header('RateLimit')]).toEqual(['of', '"minute";r=8;t=60'])
  })

  it('shows on the request who is calling, and lets nobody claim it', async () => {
    const { keys } = createTestKeys()
    @Controller()
    class WhoAmI {
      @Get()
      me(@Req() req: { user: unknown; apiKey: ApiKey; authMethod: string }) {
        req.authMethod = 'session'
        return [req.user, req.apiKey.name, req.authMethod]
      }
    }
    const ask = await serve(platform, keys, [WhoAmI], { resolveUser: ({ owner }) => ({ name: owner.id }) })
    const forged = ['authMethod: session', 'user: root', 'x-latchkey-user: root']
    expect((await ask('/', [await lineOf(keys), ...forged])).json()).toEqual([
      { name: ALICE.id },
      'CI',
      'apikey',
    ])
    expect(await outcome(ask, '/', forged)).toBe('401 missing_key')
  })

  it('trusts nobody once another guard has exchanged the user', async () => {
    const { keys } = createTestKeys()
    class Exchanging implements CanActivate {
      canActivate(context: ExecutionContext) {
        context.switchToHttp().getRequest<{ user: unknown }>().user = { id: 'root' }
        return true
      }
    }
    @Controller()
    class Exchanged {
      @Get('before')
      @UseGuards(Exchanging)
      before(@CurrentAuth() auth: Auth) {
        return auth.method
      }
      @Get('between')
      @RequireKey()
      @UseGuards(Exchanging)
      between() {
        return 'in'
      }
      @Get('open')
      @Public()
      @UseGuards(Exchanging)
      open(@CurrentAuth() auth: Auth) {
        return auth
      }
    }
    const ask = await serve(platform, keys, [Exchanged])
    const line = [await lineOf(keys)]
    expect(await outcome(ask, '/before', line)).toBe('conflict')
    expect(await outcome(ask, '/between', line)).toBe('403 api_key_required')
    expect((await ask('/open', line)).json()).toEqual({ method: 'other', user: { id: 'root' } })
  })

  it('keeps fifty requests at once apart', async () => {
    const { keys } = createTestKeys({ rateLimits: [MINUTE] })
    const ask = await serve(platform, keys, [Site])
    const lines = await Promise.all(
      Array.from({ length: 25 }, (_, i) =>
        lineOf(keys, { owner: { type: 'user', id: `u_${i}` }, name: `key ${i}` }),
      ),
    )
    const asked = lines.flatMap((line) => [[line], [`${line}x`]])
    const answers = await Promise.all(asked.map((each) => outcome(ask, '/key', each)))
    expect(answers).toEqual(lines.flatMap((_, i) => [`key ${i}`, '401 invalid_key']))
  })

  it('admits no more requests at once than a limit allows', async () => {
    const { keys } = createTestKeys({ rateLimits: [MINUTE] })
    const ask = await serve(platform, keys, [Site])
    const line = await lineOf(keys)
    const answers = await Promise.all(Array.from({ length: 20 }, () => ask('/unsaid', [line])))
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(9)
    const refused = answers.filter(({ status }) => status === 429)
    expect(refused).toHaveLength(11)
    expect(refused[0]?.header('Retry-After')).toBe('60')
    expect(refused[0]?.header('RateLimit')).toBe('"minute";r=0;t=60')
  })

  it('guards HEAD as GET, and charges for it', async () => {
    const { keys } = createTestKeys({ rateLimits: [MINUTE] })
    @Controller('head')
    class Heads {
      @Head()
      head() {
        return ''
      }
    }
    const ask = await serve(platform, keys, [Site, Heads])
    for (const path of ['/unsaid', '/head']) {
      expect((await ask(path, [], { method: 'HEAD' })).status).toBe(401)
      const answer = await ask(path, [await lineOf(keys)], { method: 'HEAD' })
      expect([answer.status, answer.header('RateLimit')]).toEqual([200, '"minute";r=8;t=60'])
    }
    expect((await ask('/unsaid', [], { method: 'OPTIONS' })).status).toBe(404)
  })

  it('sees the address that a trusted proxy tells, and no other', async () => {
    const { keys } = createTestKeys()
    const lines = [await lineOf(keys, { allowedIps: ['192.0.2.7'] }), 'X-Forwarded-For: 192.0.2.7']
    expect(await outcome(await serve(platform, keys, [Site]), '/unsaid', lines)).toBe(
      '403 address_not_allowed',
    )
    const behindProxy = await serve(platform, keys, [Site], { trustsProxy: true })
    expect(await outcome(behindProxy, '/unsaid', lines)).toBe('in')
    const own = await serve(platform, keys, [Site], {
      ip: ({ headers }) => String(headers['x-forwarded-for']),
    })
    expect(await outcome(own, '/unsaid', lines)).toBe('in')
  })

  it('answers 503 where the store is down, and reveals nothing', async () => {
    const { keys, store } = createTestKeys()
    const line = await lineOf(keys)
    const ask = await serve(platform, keys, [Site])
    store.fail('find', rejects(new Error('password of the database')))
    const answer = await ask('/unsaid', [line])
    expect(answer.json()).toMatchObject({ status: 503, code: 'unavailable' })
    expect(answer.text).not.toContain('password')
  })

  it('takes no key that other keys have verified', async () => {
    const [mine, other] = [createTestKeys(), createTestKeys()]
    const ask = await serve(platform, mine.keys, [Site])
    expect(await outcome(ask, '/unsaid', [await lineOf(other.keys)])).toBe('401 invalid_key')
  })

  it('reads keys in the places that the module names, and keeps them from sessions there', async () => {
    const { keys } = createTestKeys()
    const ask = await serve(platform, keys, [Site], {
      headers: ['X-Partner-Key'],
      scheme: false,
      bearer: false,
    })
    const line = (await lineOf(keys)).replace('X-Api-Key', 'X-Partner-Key')
    expect(await outcome(ask, '/unsaid', [line])).toBe('in')
    expect(await outcome(ask, '/session', [line])).toBe('403 session_required')
    expect(await outcome(ask, '/unsaid', [await lineOf(keys)])).toBe('401 missing_key')
  })

  it('takes tickets where the module names them, and hides them from handlers', async () => {
    @Controller()
    class Streams {
      @Post('tickets')
      @RequireKey()
      issue(@Req() req: object) {
        return tickets.issue(req)
      }
      @Get('events')
      @RequireSessionOrKey()
      events(@CurrentAuth() auth: Auth, @Req() req: Request, @Query() query: object) {
        return { method: auth.method, seen: [req.url, req.originalUrl, req.query, query] }
      }
      @Get('logins')
      @RequireSession()
      logins() {
        return 'in'
      }
    }
    const tickets = createTickets({ store: memoryTicketStore() })
    const { keys } = createTestKeys()
    const ask = await serve(platform, keys, [Streams], { tickets })
    const line = await lineOf(keys)
    const newTicket = async () => (await ask('/tickets', [line], { method: 'POST' })).json().ticket as string
    const ticket = await newTicket()
    const answer = await ask(`/events?x=1&ticket=${ticket}`)
    expect(answer.json()).toMatchObject({ method: 'apikey' })
    expect(answer.text).toContain('/events?x=1')
    expect(answer.text).not.toContain(ticket)
    expect(await outcome(ask, `/events?ticket=${ticket}`)).toBe('401 invalid_key')
    expect(await outcome(ask, `/logins?ticket=${await newTicket()}`)).toBe('401 authentication_required')
  })

  it('leaves routes that do not exist to Nest', async () => {
    const { keys } = createTestKeys()
    const ask = await serve(platform, keys, [Site])
    expect((await ask('/nowhere')).status).toBe(404)
  })

  it('runs for controllers and providers of a request, too', async () => {
    const { keys } = createTestKeys()
    let made = 0
    @Injectable({ scope: Scope.REQUEST })
    class Tenant {
      readonly number = ++made
    }
    @Controller({ path: 'tenant', scope: Scope.REQUEST })
    class Tenants {
      constructor(@Inject(Tenant) private readonly tenant: Tenant) {}
      @Get()
      @RequireKey({ permissions: READ })
      show(@CurrentApiKey() apiKey: ApiKey) {
        return [this.tenant.number, apiKey.name]
      }
    }
    const ask = await serve(platform, keys, [Tenants], { providers: [Tenant] })
    const line = await lineOf(keys)
    expect((await ask('/tenant', [line])).json()).toEqual([1, 'CI'])
    expect((await ask('/tenant', [line])).json()).toEqual([2, 'CI'])
    expect(await outcome(ask, '/tenant')).toBe('401 missing_key')
  })

  it('settles and gives back what a request has cost, and shows it', async () => {
    const { keys } = createTestKeys({ rateLimits: [MINUTE] })
    @Controller()
    class Costly {
      @Get('settle')
      @RequireKey({ cost: 2 })
      settle(@Req() req: object) {
        return settle(req, 5)
      }
      @Get('refund')
      @RequireKey({ cost: 4 })
      refund(@Req() req: object) {
        return refund(req)
      }
    }
    const ask = await serve(platform, keys, [Costly])
    const line = await lineOf(keys)
    expect((await ask('/settle', [line])).header('RateLimit')).toBe('"minute";r=4;t=60')
    expect((await ask('/refund', [line])).header('RateLimit')).toBe('"minute";r=4;t=60')
  })

  it('is behind other guards of the application that were added before it', async () => {
    const { keys } = createTestKeys({ rateLimits: [MINUTE] })
    const order: string[] = []
    class Before implements CanActivate {
      canActivate() {
        order.push('other')
        return true
      }
    }
    const ask = await serve(platform, keys, [Site], {
      resolveUser: () => {
        order.push('latchkey')
        return ALICE
      },
      providers: [{ provide: APP_GUARD, useClass: Before }],
    })
    expect(await outcome(ask, '/unsaid', [await lineOf(keys)])).toBe('in')
    expect([...order].sort()).toEqual(['latchkey', 'other'])
  })
})

describe.each(['rpc', 'ws', 'graphql'])('on messages of kind %s, the guard', (type) => {
  function contextOf(method: 'unsaid' | 'public' | 'session' | 'either' | 'key'): ExecutionContext {
    const context = new ExecutionContextHost([{ headers: {} }, {}], Site, Site.prototype[method])
    context.setType(type)
    return context
  }

  it('refuses all but those of public handlers, and says why', () => {
    const { keys } = createTestKeys()
    const guard = new LatchkeyGuard(new Gatekeeper({ keys }))
    for (const method of ['unsaid', 'session', 'either', 'key'] as const) {
      expect(() => guard.canActivate(contextOf(method))).toThrow(
        `checks keys and sessions on HTTP routes only, not on "${type}"`,
      )
    }
    expect(guard.canActivate(contextOf('public'))).toBe(true)
  })
})

describe('decorators refuse when the class is loaded', () => {
  const decorate = (...decorators: MethodDecorator[]) => {
    class Target {
      handle() {}
    }
    const descriptor = Object.getOwnPropertyDescriptor(Target.prototype, 'handle') as PropertyDescriptor
    for (const decorator of decorators) decorator(Target.prototype, 'handle', descriptor)
  }

  it.each<[string, MethodDecorator[]]>([
    ['public and for keys', [RequireKey(), Public()]],
    ['for keys and public', [Public(), RequireKey()]],
    ['for sessions and keys', [RequireKey(), RequireSession()]],
    ['for either and sessions', [RequireSession(), RequireSessionOrKey()]],
    ['for keys twice', [RequireKey(), RequireKey({ permissions: READ })]],
    ['public and for keys, and wrapped in between', [RequireKey(), wrap, Public()]],
  ])('a method that is %s', (_what, decorators) => {
    expect(() => decorate(...decorators)).toThrow('would replace the other: keep one')
  })

  it('a controller that is both', () => {
    expect(() => {
      @Public()
      @RequireKey()
      class Both {}
      return Both
    }).toThrow('@Public() meets another decorator')
  })

  it.each<[string, () => unknown, string]>([
    ['permissions that are wrong', () => RequireKey({ permissions: 'read' as never }), '"permissions"'],
    ['no permissions', () => RequireKey({ permissions: {} }), '"permissions"'],
    ['a cost that is wrong', () => RequireKey({ cost: -1 }), '"cost"'],
    ['a misspelt option', () => RequireKey({ permission: READ } as never), 'did you mean "permissions"'],
    ['permissions without a name', () => RequireKey(READ as never), '"options" has no option "projects"'],
    ['the same of either', () => RequireSessionOrKey({ costs: 1 } as never), 'did you mean "cost"'],
  ])('%s', (_what, decorate, message) => {
    expect(decorate).toThrow(message)
  })

  it('what is neither a controller nor a method', () => {
    const misplaced = RequireKey() as unknown as (target: object, name: string) => void
    expect(() => misplaced(Site.prototype, 'property')).toThrow(
      'belongs on a controller or on one of its methods',
    )
    const standard = RequireKey() as unknown as (target: object, context: object) => void
    expect(() => standard(class {}, { kind: 'class' })).toThrow('"experimentalDecorators"')
  })
})
