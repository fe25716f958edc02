import { randomBytes } from 'node:crypto'
import { type DynamicModule, Inject, type MiddlewareConsumer, Module, type NestModule } from '@nestjs/common'
import { APP_FILTER, APP_GUARD } from '@nestjs/core'
import type { RequestHandler } from 'express'
import session from 'express-session'
import type { ApiKeys } from 'latchkey'
import { markSession } from 'latchkey/express'
import { apiKeyRouter } from 'latchkey/management/express'
import { getAuth } from 'latchkey/passport'
import { AccountController } from './account.controller.ts'
import { ApiKeyStrategy } from './api-key.strategy.ts'
import { ApiKeyAuthGuard } from './api-key-auth.guard.ts'
import { ProblemFilter } from './problem.filter.ts'
import { ProjectsController } from './projects.controller.ts'
import { API_KEYS, USERS } from './tokens.ts'
import type { User, Users } from './users.ts'

declare module 'express-session' {
  interface SessionData {
    userId: string
  }
}

export interface AppParts {
  keys: ApiKeys
  users: Users
}

@Module({})
export class AppModule implements NestModule {
  constructor(
    @Inject(API_KEYS) private readonly keys: ApiKeys,
    @Inject(USERS) private readonly users: Users,
  ) {}

  static register({ keys, users }: AppParts): DynamicModule {
    return {
      module: AppModule,
      // Global, so that the guards of every module find the keys.
      global: true,
      controllers: [AccountController, ProjectsController],
      providers: [
        { provide: API_KEYS, useValue: keys },
        { provide: USERS, useValue: users },
        ApiKeyStrategy,
        // Every route without a decorator needs a key.
        { provide: APP_GUARD, useClass: ApiKeyAuthGuard },
        { provide: APP_FILTER, useClass: ProblemFilter },
      ],
      exports: [API_KEYS, USERS],
    }
  }

  /** Middlewares run before all guards. */
  configure(consumer: MiddlewareConsumer): void {
    consumer
      .apply(
        keepPrivate,
        session({
          name: 'session',
          // A random one: sessions end with the process, where express-session keeps them anyway.
          secret: randomBytes(32).toString('hex'),
          resave: false,
          saveUninitialized: false,
          // In production also `secure: true`: this demo speaks plain HTTP, to the loopback address only.
          cookie: { httpOnly: true, sameSite: 'lax', maxAge: 3_600_000 },
        }),
        markSession({ user: (req) => this.users.find(req.session.userId ?? '') }),
      )
      .forRoutes('{*path}')
    consumer
      .apply(
        apiKeyRouter(this.keys, {
          actor: (req) => {
            const auth = getAuth<User>(req)
            if (auth.method !== 'session') return null
            const owners = [{ type: 'user', id: auth.user.id }]
            return { id: auth.user.id, owners, grantable: { projects: ['read'] } }
          },
        }),
      )
      .forRoutes('api-keys')
  }
}

/** A cache in between does not know that responses depend on X-Api-Key. */
const keepPrivate: RequestHandler = (_req, res, next) => {
  res.setHeader('Cache-Control', 'private')
  next()
}
