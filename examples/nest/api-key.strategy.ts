import { Inject, Injectable } from '@nestjs/common'
import { PassportStrategy } from '@nestjs/passport'
import type { ApiKey, ApiKeys } from 'latchkey'
import { Strategy } from 'latchkey/passport'
import { API_KEYS, USERS } from './tokens.ts'
import type { User, Users } from './users.ts'

@Injectable()
export class ApiKeyStrategy extends PassportStrategy(Strategy, 'apikey') {
  constructor(
    @Inject(API_KEYS) keys: ApiKeys,
    @Inject(USERS) private readonly users: Users,
  ) {
    // "error" keeps each refusal's status, challenge and header fields, which Nest drops from a failure.
    super({ keys, refuseWith: 'error' })
  }

  /** The user the key belongs to; it becomes `req.user`. Null is a 401, an error a 503 that reveals nothing. */
  validate(apiKey: ApiKey): User | null {
    return apiKey.owner.type === 'user' ? this.users.find(apiKey.owner.id) : null
  }
}
