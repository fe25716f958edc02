import { type Auth, getAuth } from './auth-mark.ts'
import { propertiesOf } from './raw-request.ts'

/**
 * Requires that a request which a guard has passed for its API key shows what was proven where handlers read it.
 * Passport may keep the user under another name, and any middleware may have assigned over what is there.
 *
 * @throws TypeError naming the property that says something else.
 */
export function checkShownProof(request: object): void {
  const { user, apiKey, method } = getAuth(request) as Extract<Auth, { method: 'apikey' }>
  const shown = propertiesOf(request)
  for (const [name, proven] of Object.entries({ user, apiKey, authMethod: method })) {
    if (shown[name] === proven) continue
    throw new TypeError(
      `withApiKey() cannot show "${name}", which holds something else than what the API key has proven; ` +
        'use requireApiKey() and getAuth() instead, or leave that property alone',
    )
  }
}
