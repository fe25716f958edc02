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
  const isShown = auth.method === 'apikey' || auth.method === 'session' || auth.method === 'other'
  const provenUser = 'user' in auth ? auth.user : undefined
  const shows = {
    ...((user ?? undefined) !== provenUser && { user: user ?? 'nobody' }),
    ...(authMethod !== (isShown ? auth.method : undefined) && {
      authMethod: String(authMethod ?? 'nothing'),
    }),
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
