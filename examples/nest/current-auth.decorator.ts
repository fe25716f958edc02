import { createParamDecorator, type ExecutionContext } from '@nestjs/common'
import { getAuth } from 'latchkey/passport'
import { httpOf } from './run-middleware.ts'
import type { User } from './users.ts'

/**
 * Who made the request, and how they authenticated. Narrow on `method`.
 *
 * @example
 * whoAmI(@CurrentAuth() auth: Auth<User>) {}
 */
export const CurrentAuth = createParamDecorator((_data: unknown, context: ExecutionContext) =>
  getAuth<User>(httpOf(context).getRequest<object>()),
)
