import { randomBytes } from 'node:crypto'
import { type DynamicModule, Inject, type MiddlewareConsumer, Module, type NestModule } from '@nestjs/common'
import type { RequestHandler } from 'express'
import session from 'express-session'
import type { ApiKeys } from 'latchkey'
import { markSession } from 'latchkey/express'
import { ApiKeyRouterModule } from 'latchkey/management/nest'
import { getAuth, LatchkeyModule } from 'latchkey/nest'
import { AccountController } from './account.controller.ts'
import { ProjectsController } from './projects.controller.ts'
import { USERS, type User, type Users } from './users.ts'

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
  constructor(@Inject(USERS) private readonly users: Users) {}

  static register({ keys, users }: AppParts): DynamicModule {
    return {
      module: AppModule,
      imports: [
        LatchkeyModule.forRoot({
          keys,
          resolveUser: ({ owner }) => (owner.type === 'user' ? users.find(owner.id) : null),
        }),
        ApiKeyRouterModule.forRoot({
          actor: (req) => {
            const auth = getAuth<User>(req)
            if (auth.method !== 'session') return null
            const owners = [{ type: 'user', id: auth.user.id }]
            return { id: auth.user.id, owners, grantable: { projects: ['read'] } }
          },
        }),
      ],
      controllers: [AccountController, ProjectsController],
      providers: [{ provide: USERS, useValue: users }],
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
  }
}

/** A cache in between does not know that responses depend on X-Api-Key. */
const keepPrivate: RequestHandler = (_req, res, next) => {
  res.setHeader('Cache-Control', 'private')
  next()
}
