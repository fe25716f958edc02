import type { Context, DefaultContext, DefaultState, Middleware, Next, ParameterizedContext } from 'koa'
import { checkShownProof } from '../http/assert-auth-unchanged.ts'
import type { RegisteredUser } from '../http/auth-mark.ts'
import type { ApiKeyGuardOptions } from '../http/guards.ts'
import { checkFunction } from '../internal/options.ts'
import { requireApiKey } from './guards.ts'
import type { ProvenApiKeyState } from './state.ts'

/** The context of a request that an API key has authenticated. The parameters are those of Koa's own contexts. */
export type ApiKeyContext<
  StateT = DefaultState,
  ContextT = DefaultContext,
  ResponseBodyT = unknown,
  User = RegisteredUser,
> = ParameterizedContext<StateT & ProvenApiKeyState<User>, ContextT, ResponseBodyT>

/**
 * Runs a handler only for a request that an API key has authenticated, so that `ctx.state.apiKey` and
 * `ctx.state.user` are there, in its types too. It refuses the others as `requireApiKey(options)` does. A property that
 * something has overwritten since then is a TypeError, on the request.
 *
 * TypeScript does not tell a wrapped handler the state of its application: name it.
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
