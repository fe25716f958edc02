import type { Permissions } from '../core/keys/permissions.ts'
import type { ApiKey } from '../core/keys/record.ts'
import type { Auth, RegisteredUser } from '../http/auth-mark.ts'

/** Who a request with a key is. */
export type KeyAuth<User = RegisteredUser> = Extract<Auth<User>, { method: 'apikey' }>

/** The `AuthInfo` of both SDKs, as the guard fills it in. */
export type McpAuthInfo<User = RegisteredUser> = {
  /**
   * The id of the key. It is not the key itself: servers log this object and pass it on, and a key must never be sent to another
   * server.
   */
  token: string
  /** The lineage of the key: the same for all successors of a rotated key. */
  clientId: string
  /**
   * The permissions of the key as `resource:action`. Wildcards stay as they are, as in `projects:*`. An action with a colon in its
   * name is left out, because `a:b:c` would not tell what it means.
   */
  scopes: string[]
  /** When the key expires, in seconds since 1970. */
  expiresAt?: number
  /** The option `resourceMetadata`. */
  resourceMetadataUrl?: string
  /** The key and its user. `getAuth(authInfo)` returns them with their types. */
  extra: { apiKey: ApiKey; user: User }
}

/** In every copy of the package. */
const AUTH = Symbol.for('latchkey.mcp.auth')

export function toAuthInfo<User>(
  auth: KeyAuth<User>,
  resourceMetadataUrl: string | undefined,
): McpAuthInfo<User> {
  const { apiKey, user } = auth
  const { id, lineageId, permissions, expiresAt } = apiKey
  return {
    token: id,
    clientId: lineageId,
    scopes: scopesOf(permissions),
    ...(expiresAt && { expiresAt: Math.floor(expiresAt.getTime() / 1000) }),
    ...(resourceMetadataUrl !== undefined && { resourceMetadataUrl }),
    // Not enumerable: it is neither logged nor copied, so that nothing but a guard makes one.
    extra: Object.defineProperty({ apiKey, user }, AUTH, { value: Object.freeze(auth) }),
  }
}

/**
 * Returns the key and the user of a call, in a handler of a tool, a prompt or a resource.
 *
 * @throws TypeError when it did not come from a guard of this package.
 * @example
 * server.registerTool('whoami', {}, (extra) => {
 *   const { apiKey } = getAuth(extra.authInfo) // with @modelcontextprotocol/server: getAuth(ctx.http?.authInfo)
 *   return { content: [{ type: 'text', text: apiKey.name }] }
 * })
 */
export function getAuth<User = RegisteredUser>(
  authInfo: { readonly extra?: Readonly<Record<string, unknown>> | undefined } | undefined,
): KeyAuth<User> {
  const auth = (authInfo?.extra as { [AUTH]?: KeyAuth<User> } | undefined)?.[AUTH]
  if (auth) return auth
  throw new TypeError(
    'getAuth() found no API key: mount mcpGuard() in front of the transport, or pass what mcpWebGuard() answered to it',
  )
}

function scopesOf(permissions: Permissions): string[] {
  return Object.entries(permissions).flatMap(([resource, actions]) =>
    actions.filter((action) => !action.includes(':')).map((action) => `${resource}:${action}`),
  )
}
