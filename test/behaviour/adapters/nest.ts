import 'reflect-metadata'
import type { RequestListener } from 'node:http'
import {
  All,
  type CanActivate,
  Controller,
  type ExecutionContext,
  Module,
  Req,
  UseGuards,
} from '@nestjs/common'
import { NestFactory, Reflector } from '@nestjs/core'
import { AuthGuard, PassportStrategy } from '@nestjs/passport'
import type { Express, Request, RequestHandler } from 'express'
import { type ApiKey, isLatchkeyError } from 'latchkey'
import { getAuth, markSession } from 'latchkey/express'
import { ApiKeyStrategy } from 'latchkey/passport'
import passport from 'passport'
import { ApiKeyAuthGuard } from '../../../examples/nest/api-key-auth.guard.ts'
import { ProblemFilter } from '../../../examples/nest/problem.filter.ts'
import { Access, Cost } from '../../../examples/nest/route-access.ts'
import { runMiddleware } from '../../../examples/nest/run-middleware.ts'
import { type Part, partsOf, SESSION_USER, type Surroundings } from '../pipeline.ts'
import type { App, Asked } from '../row.ts'
import { describeWho } from '../who.ts'
import type { Adapter } from './adapter.ts'
import { atLogin, createExpressParts, meanwhile } from './express-parts.ts'

/** `@nestjs/passport` with the guard and the filter of `examples/nest`. */
export function nestAdapter(): Adapter {
  return {
    name: 'Nest 12',
    async build(app, surroundings) {
      useStrategy(app, surroundings)
      const { middlewares, guards } = createParts(app, surroundings)
      const site = await NestFactory.create(createModule(guards, app.asks), { logger: false })
      const server = site.getHttpAdapter().getInstance() as Express
      if (app.proxies !== undefined) server.set('trust proxy', app.proxies)
      for (const middleware of middlewares) site.use(middleware)
      if (!app.rendering) site.useGlobalFilters(new ProblemFilter())
      await site.init()
      return server as RequestListener
    },
  }
}

function useStrategy({ reads, finds }: App, { keys, resolveUser }: Surroundings): void {
  class Strategy extends PassportStrategy(ApiKeyStrategy, 'apikey') {
    constructor() {
      super({ keys, ...reads, refuseWith: 'error' })
    }

    validate(apiKey: ApiKey): unknown {
      return finds && resolveUser ? resolveUser(apiKey) : apiKey.owner
    }
  }
  passport.serializeUser((user, done) => done(null, JSON.stringify(user)))
  passport.deserializeUser((text: string, done) => done(null, JSON.parse(text)))
  new Strategy()
}

/** Nest runs its guards behind all middlewares: what comes after the keys is a guard as well. */
function createParts(app: App, surroundings: Surroundings) {
  const shared = createExpressParts(app, surroundings, 'error')
  const parts: Record<Exclude<Part, 'keys' | 'keysAgain' | 'route'>, RequestHandler[]> = {
    ...shared,
    session: [...shared.session, passport.initialize()],
    login: [atLogin((req) => new Promise<void>((done) => req.logIn(SESSION_USER, () => done())))],
    restore: [passport.session()],
    mark: [markSession()],
    meanwhile: [meanwhile(app.meanwhile, (req, _res, next) => req.logout(next))],
  }
  const middlewares: RequestHandler[] = []
  const guards: CanActivate[] = []
  for (const part of partsOf(app)) {
    if (part === 'keys') guards.push(keyGuard(app, surroundings, app.asks))
    else if (part === 'keysAgain') guards.push(keyGuard(app, surroundings, app.asksAgain))
    else if (part === 'guard' || (guards.length > 0 && part !== 'route'))
      guards.push(...parts[part].map(toGuard))
    else if (part !== 'route') middlewares.push(...parts[part])
  }
  return { middlewares, guards }
}

/** The guard of the recipe; where the table asks for what the recipe has no use for, one that is less strict. */
function keyGuard(app: App, { keys }: Surroundings, asks: Asked = {}): CanActivate {
  const isOfRecipe = (app.keys ?? 'required') === 'required' && !app.asksAgain
  return isOfRecipe ? new ApiKeyAuthGuard(new Reflector(), keys) : new LenientGuard(app, asks)
}

class LenientGuard extends AuthGuard('apikey') {
  constructor(
    private readonly app: App,
    private readonly asks: Asked,
  ) {
    super()
  }

  override getAuthenticateOptions() {
    return { ...this.asks }
  }

  override handleRequest<User>(
    error: unknown,
    _user: unknown,
    _info: unknown,
    context: ExecutionContext,
  ): User {
    const isMissing = isLatchkeyError(error) && error.code === 'missing_key'
    const passes = this.app.keys === 'overruled' || (this.app.keys === 'optional' && isMissing)
    if (error && !passes) throw error
    // Nest puts what this returns in the place of the user, whoever is there.
    return context.switchToHttp().getRequest().user
  }
}

function toGuard(middleware: RequestHandler): CanActivate {
  return {
    async canActivate(context) {
      await runMiddleware(middleware, context)
      return true
    },
  }
}

// Decorators are called, not written, since each row has others.
function createModule(guards: readonly CanActivate[], { permissions, cost }: Asked = {}) {
  class Site {
    show(req: Request) {
      return describeWho(getAuth(req), req)
    }
  }
  const descriptor = Object.getOwnPropertyDescriptor(Site.prototype, 'show') as PropertyDescriptor
  All()(Site.prototype, 'show', descriptor)
  if (permissions !== undefined) Access({ by: 'apikey', permissions })(Site.prototype, 'show', descriptor)
  if (cost !== undefined) Cost(cost)(Site.prototype, 'show', descriptor)
  UseGuards(...guards)(Site.prototype, 'show', descriptor)
  Req()(Site.prototype, 'show', 0)
  Controller()(Site)
  class SiteModule {}
  Module({ controllers: [Site] })(SiteModule)
  return SiteModule
}
