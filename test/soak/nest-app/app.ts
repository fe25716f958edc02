import 'reflect-metadata'
import {
  Controller,
  Get,
  type INestApplication,
  Inject,
  Injectable,
  Module,
  Post,
  Req,
  Scope,
  type Type,
  UseGuards,
} from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { AuthGuard, PassportStrategy } from '@nestjs/passport'
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify'
import { type ApiKey, type ApiKeys, createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import { ApiKeyRouterModule } from 'latchkey/management/nest'
import {
  API_KEYS,
  type Auth,
  CurrentApiKey,
  CurrentAuth,
  LatchkeyModule,
  Public,
  RequireKey,
  RequireSession,
  RequireSessionOrKey,
} from 'latchkey/nest'
import { Strategy } from 'latchkey/passport'

/** An application of one release of Nest. It runs on both platforms, and prints what it has answered. */
const READ = { projects: ['read'] }

@Injectable()
class ApiKeyStrategy extends PassportStrategy(Strategy, 'apikey') {
  constructor(@Inject(API_KEYS) keys: ApiKeys) {
    super({ keys, refuseWith: 'error' })
  }
  validate({ owner }: ApiKey) {
    return { id: owner.id }
  }
}

@Controller('projects')
@RequireKey({ permissions: READ })
class ProjectsController {
  @Get()
  list(@CurrentApiKey() apiKey: ApiKey, @Req() req: { user: unknown; authMethod: string }) {
    return { key: apiKey.name, user: req.user, by: req.authMethod }
  }
  @Post()
  @RequireKey({ permissions: { projects: ['write'] }, cost: 2 })
  add() {
    return {}
  }
  @Get(':id')
  @RequireKey({ permissions: (req) => ({ [`project:${req.params.id}`]: ['read'] }) })
  show() {
    return { project: 'shown' }
  }
}

@Controller()
class Site {
  @Get('unsaid')
  unsaid() {
    return { let: 'in' }
  }
  @Get('public')
  @Public()
  public() {
    return { let: 'in' }
  }
  @Get('settings')
  @RequireSession()
  settings() {
    return { let: 'in' }
  }
  @Get('me')
  @RequireSessionOrKey()
  me(@CurrentAuth() auth: Auth<{ id: string }>) {
    return auth.method === 'apikey' ? { user: auth.user.id } : { by: auth.method }
  }
  @Get('passport')
  @Public()
  @UseGuards(AuthGuard('apikey'))
  passport(@Req() req: { user: unknown }) {
    return req.user
  }
}

const REQUESTS = [
  ['GET /projects', 'good'],
  ['GET /projects'],
  ['POST /projects', 'good'],
  ['GET /projects/1', 'good'],
  ['GET /projects/2', 'good'],
  ['GET /unsaid'],
  ['GET /unsaid', 'good'],
  ['GET /public', 'junk'],
  ['GET /settings', 'good'],
  ['GET /me', 'good'],
  ['GET /me'],
  ['GET /passport', 'good'],
  ['GET /passport', 'junk'],
  ['GET /api-keys', 'admin'],
  ['GET /api-keys/self', 'good'],
  ['GET /api-keys'],
  ['GET /unsaid', 'good'],
  ['GET /nowhere'],
] as const

const create = (platform: string, module: Type): Promise<INestApplication> =>
  platform === 'express'
    ? NestFactory.create(module, { logger: false, abortOnError: false })
    : NestFactory.create<NestFastifyApplication>(module, new FastifyAdapter(), {
        logger: false,
        abortOnError: false,
      })

async function answersOn(platform: string): Promise<unknown[]> {
  const keys = createApiKeys({
    store: memoryStore(),
    rateLimiter: memoryRateLimiter(),
    prefix: 'acme',
    rateLimits: [{ name: 'hour', limit: 5, windowMs: 3_600_000 }],
  })
  const owner = { type: 'user', id: 'u_1' }
  const { key } = await keys.issue({ owner, name: 'CI', permissions: { ...READ, 'project:1': ['read'] } })

  @Module({
    imports: [
      LatchkeyModule.forRootAsync({ useFactory: async () => ({ keys, resolveUser: () => ({ id: 'u_1' }) }) }),
      ApiKeyRouterModule.forRoot({
        actor: (req) => (req.headers['x-admin'] ? { id: 'a', admin: true } : null),
      }),
    ],
    controllers: [ProjectsController, Site],
    providers: [ApiKeyStrategy],
  })
  class AppModule {}

  const app = await create(platform, AppModule)
  await app.listen(0, '127.0.0.1')
  const url = await app.getUrl()
  const answers: unknown[] = []
  for (const [line, who] of REQUESTS) {
    const [method = '', path = ''] = line.split(' ')
    const headers: Record<string, string> =
      who === undefined
        ? {}
        : who === 'admin'
          ? { 'X-Admin': '1' }
          : { 'X-Api-Key': who === 'good' ? key : who }
    const answer = await fetch(url + path, { method, headers })
    const body = (await answer.json()) as Record<string, unknown>
    const left = /r=\d+/.exec(answer.headers.get('RateLimit') ?? '')?.[0]
    const field = answer.headers.get('WWW-Authenticate') ?? left ?? ''
    answers.push([line, answer.status, body.code ?? Object.keys(body).join(), field])
  }
  await app.close()
  return answers
}

/** What a mistake in the imports is answered with when the application starts. */
async function mistakes(): Promise<string[]> {
  const made = () => createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme' })
  const OF_REQUEST = Symbol('of a request')
  @Module({
    providers: [{ provide: OF_REQUEST, scope: Scope.REQUEST, useFactory: made }],
    exports: [OF_REQUEST],
  })
  class RequestModule {}
  const useFactory = (keys: ApiKeys) => ({ keys })
  const imports = {
    bare: [LatchkeyModule],
    twice: [LatchkeyModule.forRoot({ keys: made() }), LatchkeyModule.forRoot({ keys: made() })],
    ofRequest: [LatchkeyModule.forRootAsync({ imports: [RequestModule], inject: [OF_REQUEST], useFactory })],
    none: [],
  }
  const messages: string[] = []
  for (const each of Object.values(imports)) {
    @Module({ imports: each, controllers: [ProjectsController] })
    class AppModule {}
    const starting = create('express', AppModule).then((app) => app.init())
    messages.push(
      await starting.then(
        () => 'it started',
        (error: Error) => error.message,
      ),
    )
  }
  return messages
}

async function run() {
  const [express, fastify] = [await answersOn('express'), await answersOn('fastify')]
  process.stdout.write(JSON.stringify({ express, fastify, mistakes: await mistakes() }))
}

run()
