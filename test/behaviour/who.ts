import type { Auth } from 'latchkey/express'
import type { Who } from './row.ts'

/** What a request shows of itself beside `getAuth`. */
interface Shown {
  readonly user?: unknown
  readonly authMethod?: unknown
  readonly apiKey?: { readonly id: string } | undefined
}

/** In a word, what `getAuth` says of a request, and what the request shows, where that is something else. */
export function describeWho(auth: Auth, { user, authMethod, apiKey }: Shown): Who {
  const proven = auth.method === 'apikey' ? auth.apiKey.id : undefined
  const provenUser = 'user' in auth ? auth.user : undefined
  const shows = {
    ...((user ?? undefined) !== provenUser && { user: user ?? 'nobody' }),
    ...(authMethod !== methodOf(auth) && { authMethod: String(authMethod ?? 'nothing') }),
    ...(apiKey?.id !== proven && { key: apiKey?.id ?? 'nothing' }),
  }
  return {
    method: auth.method,
    ...(auth.method === 'rejected' && { code: auth.code }),
    ...('user' in auth && { user: auth.user }),
    ...(proven !== undefined && { key: proven }),
    ...(Object.keys(shows).length > 0 && { shows }),
  }
}

/** What `authMethod` shows where it follows `getAuth`. */
export function methodOf({ method }: Auth): Auth['method'] | undefined {
  return method === 'apikey' || method === 'session' || method === 'other' ? method : undefined
}
