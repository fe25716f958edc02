import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import type { RegisteredUser } from '../http/auth-mark.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import { OptionError } from '../internal/option-error.ts'
import { checkFunction } from '../internal/options.ts'
import { type ApiKeyAuthOptions, apiKeyAuth, type KeyAuth } from './api-key-auth.ts'

/** Answers a request that a key has authenticated. `rest` is what the framework hands to its handlers besides the request. */
export type ApiKeyHandler<User, Rest extends readonly unknown[]> = (
  request: Request,
  auth: KeyAuth<User>,
  ...rest: Rest
) => Awaitable<Response>

/**
 * Makes a handler that verifies the key of each request, and calls `handler` only with a valid one. The response gets the `RateLimit`
 * fields. A place of a `concurrent` limit is given back once the body has been sent.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * // app/api/projects/[id]/route.ts of Next
 * export const GET = withApiKey(
 *   keys,
 *   async (request, { user }, { params }: { params: Promise<{ id: string }> }) =>
 *     Response.json(await projects.find(user, (await params).id)),
 *   { permissions: { projects: ['read'] } },
 * )
 */
export function withApiKey<User = RegisteredUser, Rest extends readonly unknown[] = []>(
  keys: ApiKeyVerifier,
  handler: ApiKeyHandler<User, Rest>,
  options: ApiKeyAuthOptions<User> & { required?: true } = {},
): (request: Request, ...rest: Rest) => Promise<Response> {
  checkFunction('handler', handler)
  if ((options.required as unknown) === false) throw new OptionError('required', 'be left out or true')
  const authenticate = apiKeyAuth<User>(keys, options)
  return async function handleWithApiKey(request, ...rest) {
    const caller = await authenticate(request)
    if (!caller.ok) return caller.response
    try {
      return caller.finish(await handler(request, caller.auth, ...rest))
    } catch (error) {
      // Nothing is sent by us: what was taken for the request is given back.
      caller.finish(new Response(null))
      throw error
    }
  }
}
