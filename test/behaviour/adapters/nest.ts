import 'reflect-metadata'
import type { RequestListener } from 'node:http'
import {
  All,
  type ArgumentsHost,
  type CanActivate,
  Catch,
  Controller,
  type ExecutionContext,
  Module,
  Req,
  UseGuards,
} from '@nestjs/common'
import { BaseExceptionFilter, HttpAdapterHost, NestFactory } from '@nestjs/core'
import { AuthGuard, PassportStrategy } from '@nestjs/passport'
import type { Express, Request, RequestHandler } from 'express'
import { type ApiKey, isLatchkeyError } from 'latchkey'
import { apiKeyErrorHandler, getAuth, markSession } from 'latchkey/express'
import { ApiKeyStrategy } from 'latchkey/passport'
import passport from 'passport'
import { type Part, partsOf, SESSION_USER, type Surroundings } from '../pipeline.ts'
import type { App, Asked } from '../row.ts'
import { describeWho } from '../who.ts'
import type { Adapter } from './adapter.ts'
import { atLogin, createExpressParts, meanwhile } from './express-parts.ts'

/** `@UseGuards(AuthGuard('apikey'))` with `@nestjs/passport`. */
export function nestAdapter(): Adapter {
  return {
    name: 'Nest 12',
    async build(app, surroundings) {
      useStrategy(app, surroundings)
      const { middlewares, guards } = createParts(app, surroundings)
      const site = await NestFactory.create(createModule(guards), { logger: false })
      const server = site.getHttpAdapter().getInstance() as Express
      if (app.proxies !== undefined) server.set('trust proxy', app.proxies)
      for (const middleware of middlewares) site.use(middleware)
      if (!app.rendering) site.useGlobalFilters(new ProblemFilter(site.get(HttpAdapterHost).httpAdapter))
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

/** Nest runs its guards behind all middlewares: what comes behind the keys is a guard as well. */
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
    if (part === 'keys') guards.push(keyGuard(app, app.asks))
    else if (part === 'keysAgain') guards.push(keyGuard(app, app.asksAgain))
    else if (part === 'guard' || (guards.length > 0 && part !== 'route'))
      guards.push(...parts[part].map(toGuard))
    else if (part !== 'route') middlewares.push(...parts[part])
  }
  return { middlewares, guards }
}

function keyGuard(app: App, asks: Asked = {}): CanActivate {
  class KeyGuard extends AuthGuard('apikey') {
    override getAuthenticateOptions() {
      return { ...asks }
    }

    override handleRequest<User>(
      error: unknown,
      _user: unknown,
      _info: unknown,
      context: ExecutionContext,
    ): User {
      const isMissing = isLatchkeyError(error) && error.code === 'missing_key'
      const passes = app.keys === 'overruled' || (app.keys === 'optional' && isMissing)
      if (error && !passes) throw error
      // Nest puts what this returns in the place of the user, whoever is there.
      return context.switchToHttp().getRequest().user
    }
  }
  return new KeyGuard()
}

function toGuard(middleware: RequestHandler): CanActivate {
  return {
    canActivate: (context) =>
      new Promise((resolve, reject) => {
        const http = context.switchToHttp()
        const next = (error?: unknown) => (error ? reject(error) : resolve(true))
        middleware(http.getRequest(), http.getResponse(), next)
      }),
  }
}

class ProblemFilter extends BaseExceptionFilter {
  override catch(error: unknown, host: ArgumentsHost): void {
    const http = host.switchToHttp()
    apiKeyErrorHandler()(error, http.getRequest(), http.getResponse(), () => super.catch(error, host))
  }
}
Catch()(ProblemFilter)

// Decorators are called, not written: then no option of the compiler is needed for them.
function createModule(guards: readonly CanActivate[]) {
  class Site {
    show(req: Request) {
      return describeWho(getAuth(req), req)
    }
  }
  const descriptor = Object.getOwnPropertyDescriptor(Site.prototype, 'show') as PropertyDescriptor
  All()(Site.prototype, 'show', descriptor)
  UseGuards(...guards)(Site.prototype, 'show', descriptor)
  Req()(Site.prototype, 'show', 0)
  Controller()(Site)
  class SiteModule {}
  Module({ controllers: [Site] })(SiteModule)
  return SiteModule
}
