import { createParamDecorator, type ExecutionContext } from '@nestjs/common'
import type { ApiKey } from '../core/keys/record.ts'
import { type Auth, readMark } from '../http/auth-mark.ts'
import { getAuth } from './get-auth.ts'
import { exchangeOf } from './http-exchange.ts'

/**
 * Parameter that is who made the request, and how they authenticated: `getAuth(req)`. Narrow on `method`.
 *
 * @example
 * show(@CurrentAuth() auth: Auth<User>) {}
 */
export const CurrentAuth: () => ParameterDecorator = createParamDecorator(
  (_data: unknown, context: ExecutionContext): Auth => getAuth(exchangeOf(context).request),
)

/**
 * Parameter that is the key which authenticated the request. It is undefined if none has, as on a public route or for a session.
 *
 * @example
 * show(@CurrentApiKey() apiKey: ApiKey) {}
 */
export const CurrentApiKey: () => ParameterDecorator = createParamDecorator(
  (_data: unknown, context: ExecutionContext): ApiKey | undefined => {
    const mark = readMark(exchangeOf(context).parts.raw)
    return mark?.method === 'apikey' ? mark.apiKey : undefined
  },
)
