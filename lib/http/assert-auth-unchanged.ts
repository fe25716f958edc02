import { type Auth, getAuth } from './auth-mark.ts'
import { propertiesOf } from './raw-request.ts'

/**
 * Requires that the properties which handlers read hold what the API key proved, after a guard has passed the request.
 * Passport may keep the user under another name, and any middleware may overwrite these properties.
 *
 * @throws TypeError naming the property that differs.
 */
export function checkShownProof(request: object): void {
  const { user, apiKey, method } = getAuth(request) as Extract<Auth, { method: 'apikey' }>
  const shown = propertiesOf(request)
  for (const [name, proven] of Object.entries({ user, apiKey, authMethod: method })) {
    if (shown[name] === proven) continue
    throw new TypeError(
      `withApiKey() cannot show "${name}", because other code has overwritten it since the API key was verified; ` +
        'use requireApiKey() and getAuth() instead, or do not overwrite that property',
    )
  }
}
