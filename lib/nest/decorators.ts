import { applyDecorators, UseGuards } from '@nestjs/common'
import { checksFor, type RequestCost } from '../http/middleware.ts'
import type { RequestPermissions } from '../http/request-permissions.ts'
import { checkObject } from '../internal/options.ts'
import { type RouteAccess, saysAccess } from './access.ts'
import type { HttpRequest } from './http-exchange.ts'
import { LatchkeyGuard } from './latchkey.guard.ts'

/** What a route requires of a key. */
export interface RequireKeyOptions<Request = HttpRequest> {
  /**
   * The permissions that the key needs. An object requires everything it names; an array, any one of its entries. Or a
   * function of the request that returns one of these at once:
   * ``(req) => ({ [`project:${req.params.id}`]: ['read'] })``. It is called once the key is known to be good, before anything
   * is spent. If it throws, or returns a promise or nothing to require, the request gets a 503; if it names what no key can
   * hold, a 403.
   */
  permissions?: RequestPermissions<Request>
  /**
   * What a request costs: a number of units of the quota and of every limit without `only: 'named'`, units by the name of
   * a limit, as `{ tokens: 500 }`, or a function that returns one of these. It is called once the key is known to be
   * good. If it fails, takes longer than `timeoutMs` of `createApiKeys`, or returns anything else, the request gets a 503.
   *
   * @default 1
   */
  cost?: RequestCost<Request>
}

/**
 * Lets in requests with a valid key, on a method or on all methods of a controller. What a method says replaces what its controller
 * says.
 *
 * @throws TypeError when an option is wrong or unknown, or another decorator here says whom the route lets in: when the class is
 * loaded.
 * @example
 * @Get(':id')
 * @RequireKey({ permissions: (req) => ({ [`project:${req.params.id}`]: ['read'] }), cost: 2 })
 * show(@CurrentApiKey() apiKey: ApiKey) {}
 */
export function RequireKey<Request = HttpRequest>(
  options: RequireKeyOptions<Request> = {},
): ClassDecorator & MethodDecorator {
  return guarded('RequireKey', { by: 'apikey', checks: checksOf(options) })
}

/**
 * Lets in login sessions that `markSession()` has marked, and refuses every request that presents a key, even an invalid one.
 *
 * @throws TypeError when another decorator here says whom the route lets in: when the class is loaded.
 */
export function RequireSession(): ClassDecorator & MethodDecorator {
  return guarded('RequireSession', { by: 'session' })
}

/**
 * Lets in a login session or a valid key. If the request presents a key, it decides. Permissions and cost are those of keys:
 * sessions have none.
 *
 * @throws TypeError as {@link RequireKey} does.
 */
export function RequireSessionOrKey<Request = HttpRequest>(
  options: RequireKeyOptions<Request> = {},
): ClassDecorator & MethodDecorator {
  const checks = checksOf(options, false)
  return guarded('RequireSessionOrKey', { by: 'either', checks })
}

/**
 * Lets everybody in: past the guard of the application, and past what the controller requires. Keys are not read.
 *
 * @throws TypeError when another decorator here says whom the route lets in: when the class is loaded.
 */
export function Public(): ClassDecorator & MethodDecorator {
  return saysAccess('Public', { by: 'anybody' })
}

/** The guard goes with the decorator, so that the route is guarded in every mode of the module. */
function guarded(name: string, access: RouteAccess): ClassDecorator & MethodDecorator {
  const say = saysAccess(name, access)
  const guard = applyDecorators(UseGuards(LatchkeyGuard))
  return (target: object, member?: string | symbol, descriptor?: PropertyDescriptor) => {
    say(target, member, descriptor)
    guard(target, member, descriptor)
  }
}

function checksOf<Request>(options: RequireKeyOptions<Request>, required = true) {
  checkObject('options', options, ['permissions', 'cost'])
  return checksFor<Request>({ ...options, required })
}
