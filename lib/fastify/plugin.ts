import type {
  FastifyContextConfig,
  FastifyInstance,
  FastifyReply,
  FastifyRequest,
  RouteOptions,
} from 'fastify'
import type { ApiKey } from '../core/keys/record.ts'
import type { ApiKeyVerifier } from '../core/verify/key-verifier.ts'
import type { Auth } from '../http/auth-mark.ts'
import { readMark } from '../http/auth-mark.ts'
import { AUTHENTICATOR_OPTIONS, type AuthenticatorOptions } from '../http/authenticate-request.ts'
import type { RefusalOptions } from '../http/guards.ts'
import { OptionError } from '../internal/option-error.ts'
import { checkObject } from '../internal/options.ts'
import { type ApiKeyAuthOptions, apiKeyAuth } from './api-key-auth.ts'
import { getAuth } from './get-auth.ts'

/** What all routes with a key have in common. */
export interface ApiKeyPluginOptions<User = unknown>
  extends Omit<AuthenticatorOptions<User>, 'prefix'>,
    RefusalOptions,
    Pick<ApiKeyAuthOptions, 'ip'> {
  /** Accepts only keys with this prefix, or one of these. Fastify has a use of its own for `prefix`. */
  keyPrefix?: string | readonly string[]
  /** Verifies the keys: the result of `createApiKeys`. */
  keys: ApiKeyVerifier
}

/** What one route requires of a key: `config.apiKey`. */
export interface ApiKeyRouteConfig extends Pick<ApiKeyAuthOptions, 'permissions' | 'cost' | 'required'> {}

/**
 * Fastify plugin that adds `request.auth` and `request.apiKey`, and verifies the key of every route that has `config.apiKey`. Register
 * it once, and wait for it before you add the routes. The key is verified in `onRequest`, after the hooks of the application and
 * before those of the route. Routes with `config.apiKey` that were added too early answer every request with 500.
 *
 * @throws TypeError when an option, or the `config.apiKey` of a route, is wrong or unknown, naming it. A route throws when it is added.
 * @throws Error when requests have `auth` or `apiKey` already, from another plugin or from this one.
 * @example
 * await app.register(apiKeyPlugin, { keys })
 * app.get('/projects', { config: { apiKey: { permissions: { projects: ['read'] } } } }, (request) => ({
 *   owner: request.apiKey?.owner,
 * }))
 */
export async function apiKeyPlugin(app: FastifyInstance, options: ApiKeyPluginOptions): Promise<void> {
  checkObject('options', options, PLUGIN_OPTIONS)
  const { keys, keyPrefix, ...others } = options
  const shared = { ...others, ...(keyPrefix !== undefined && { prefix: keyPrefix }) }
  // Options that are wrong are a mistake even if no route takes a key.
  apiKeyAuth(keys, shared)
  addGetters(app)
  app.addHook('onRoute', (route) => {
    const asked = askedOf(route)
    if (!asked) return
    route.onRequest = [apiKeyAuth(keys, { ...shared, ...asked }), ...[route.onRequest ?? []].flat()]
    // A copy, since routes may share their config.
    const checked: CheckedConfig = { ...route.config, [CHECKED]: true }
    route.config = checked
  })
  app.addHook('onRequest', refuseUnchecked)
}

const PLUGIN_OPTIONS = [
  ...AUTHENTICATOR_OPTIONS.filter((name) => name !== 'prefix'),
  'keys',
  'keyPrefix',
  'ip',
  'refuseWith',
]

/** Fastify's own marks of a plugin: what it adds is there for all, and which releases it works with. */
Object.assign(apiKeyPlugin, {
  [Symbol.for('skip-override')]: true,
  [Symbol.for('fastify.display-name')]: 'latchkey',
  [Symbol.for('plugin-meta')]: { name: 'latchkey', fastify: '5.x' },
})

/** On the config of a route whose key is verified: a route that no `onRoute` has seen has none. */
const CHECKED = Symbol.for('latchkey.checked')

const TOO_EARLY = 'add the route after "await app.register(apiKeyPlugin, { keys })"'

type CheckedConfig = FastifyContextConfig & { readonly [CHECKED]?: boolean }

/** Fastify runs this for routes that were added before the plugin, too. Nothing verifies a key there, so nobody gets in. */
function refuseUnchecked(request: FastifyRequest, _reply: FastifyReply, done: (error?: Error) => void): void {
  const { config, method, url } = request.routeOptions
  // The handler of unknown paths may have no config.
  const { apiKey = false, [CHECKED]: isChecked = false }: CheckedConfig = config ?? {}
  if (apiKey === false || isChecked) done()
  else done(new Error(`config.apiKey of ${[method].flat().join()} ${url} is not checked: ${TOO_EARLY}`))
}

function addGetters(app: FastifyInstance): void {
  try {
    app.decorateRequest('auth', { getter: authOf })
    app.decorateRequest('apiKey', { getter: apiKeyOf })
  } catch (cause) {
    const advice = 'register it once, or use apiKeyAuth and getAuth beside a plugin that adds the same'
    const message = `apiKeyPlugin adds request.auth and request.apiKey, and one is there already: ${advice}`
    throw new Error(message, { cause })
  }
}

function askedOf({ config, method, url }: RouteOptions): ApiKeyRouteConfig | null {
  const { apiKey } = (config ?? {}) as { apiKey?: unknown }
  if (apiKey === undefined || apiKey === false) return null
  if (apiKey === true) return {}
  const where = `config.apiKey of ${[method].flat().join()} ${url}`
  if (typeof apiKey !== 'object' || apiKey === null)
    throw new OptionError(where, 'be true, false or an object')
  return checkObject(where, apiKey, ['permissions', 'cost', 'required'])
}

function authOf(this: FastifyRequest): Auth {
  return getAuth(this)
}

function apiKeyOf(this: FastifyRequest): ApiKey | undefined {
  const mark = readMark(this.raw)
  return mark?.method === 'apikey' ? mark.apiKey : undefined
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Who made the request, and how they authenticated. Narrow on `method`. `apiKeyPlugin` adds it. */
    readonly auth: Auth
    /** The key that authenticated the request. `apiKeyPlugin` adds it. */
    readonly apiKey: ApiKey | undefined
  }
  interface FastifyContextConfig {
    /** What the route requires of a key; `true` means any valid key. `apiKeyPlugin` reads it. */
    apiKey?: boolean | ApiKeyRouteConfig
  }
}
