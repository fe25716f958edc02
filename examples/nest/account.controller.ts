import {
  BadRequestException,
  Body,
  Controller,
  Get,
  HttpCode,
  Inject,
  Post,
  Req,
  UnauthorizedException,
} from '@nestjs/common'
import type { Request } from 'express'
import type { ApiKey } from 'latchkey'
import {
  type Auth,
  CurrentApiKey,
  CurrentAuth,
  Public,
  RequireSession,
  RequireSessionOrKey,
} from 'latchkey/nest'
import { USERS, type User, type Users } from './users.ts'

/** Routes for people who log in, and one route of each other kind. */
@Controller()
export class AccountController {
  constructor(@Inject(USERS) private readonly users: Users) {}

  @Post('login')
  @Public()
  @HttpCode(200)
  async login(@Req() req: Request, @Body() body: Record<string, unknown> | undefined) {
    const { username, password } = body ?? {}
    // JSON only, which no form on another site can send.
    if (!req.is('json') || typeof username !== 'string' || typeof password !== 'string') {
      throw new BadRequestException('Expected JSON like {"username":"ada","password":"…"}')
    }
    const user = this.users.checkPassword(username, password)
    if (!user) throw new UnauthorizedException()
    // A new session, so that nobody who knew the old id is logged in too.
    await new Promise<void>((resolve, reject) => {
      req.session.regenerate((error: unknown) => (error ? reject(error) : resolve()))
    })
    req.session.userId = user.id
    return { user: user.username }
  }

  /** Sessions only. */
  @Get('settings')
  @RequireSession()
  settings(@CurrentAuth() auth: Auth<User>) {
    if (auth.method !== 'session') throw new Error('This route needs its guard')
    return { user: auth.user.username, theme: 'dark' }
  }

  /** Either. If the request has a key, the key decides. */
  @Get('me')
  @RequireSessionOrKey()
  me(@CurrentAuth() auth: Auth<User>) {
    if (auth.method === 'apikey') return { user: auth.user.username, by: 'apikey', key: auth.apiKey.name }
    if (auth.method === 'session') return { user: auth.user.username, by: 'session' }
    throw new Error('This route needs its guard')
  }

  /** Any valid key: without a decorator, the guard of the application requires one. */
  @Get('key')
  key(@CurrentApiKey() apiKey: ApiKey) {
    return { name: apiKey.name }
  }

  @Get('health')
  @Public()
  health() {
    return { ok: true }
  }
}
