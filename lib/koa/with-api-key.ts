import type { Context, DefaultContext, DefaultState, Middleware, Next, ParameterizedContext } from 'koa'
import { checkShownProof } from '../http/assert-auth-unchanged.ts'
import type { RegisteredUser } from '../http/auth-mark.ts'
import { checkFunction } from '../internal/options.ts'
import { type ApiKeyGuardOptions, requireApiKey } from './guards.ts'
import type { ProvenApiKeyState } from './state.ts'

/** The context of a request that an API key has authenticated. Takes the type parameters of Koa's own contexts. */
export type ApiKeyContext<
  StateT = DefaultState,
  ContextT = DefaultContext,
  ResponseBodyT = unknown,
  User = RegisteredUser,
> = ParameterizedContext<StateT & ProvenApiKeyState<User>, ContextT, ResponseBodyT>

/**
 * Runs a handler only for requests that an API key has authenticated, so `ctx.state.apiKey` and `ctx.state.user` are
 * set, in the types too. It refuses other requests as `requireApiKey(options)` does. If other code has overwritten
 * these properties since, the request fails with a TypeError.
 *
 * TypeScript cannot infer the state of a wrapped handler's application: name it.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * router.get('/export', apiKeyAuth(keys), withApiKey((ctx) => send(ctx, ctx.state.apiKey.owner)))
 * router.get('/projects', withApiKey<AppState>((ctx) => list(ctx, ctx.state.tenant), {
 *   permissions: { projects: ['read'] },
 * }))
 */
export function withApiKey<
  StateT = DefaultState,
  ContextT = DefaultContext,
  ResponseBodyT = unknown,
  User = RegisteredUser,
>(
  handler: (ctx: ApiKeyContext<StateT, ContextT, ResponseBodyT, User>, next: Next) => unknown,
  options?: ApiKeyGuardOptions,
): Middleware<StateT, ContextT, ResponseBodyT> {
  checkFunction('handler', handler)
  const guard = requireApiKey(options)
  return function handleWithApiKey(ctx, next) {
    return guard(ctx as Context, async () => {
      checkShownProof(ctx)
      return handler(ctx as Parameters<typeof handler>[0], next)
    })
  }
}
