import type { KeyFormat } from 'latchkey'
import * as latchkey from 'latchkey'

/**
 * How imported keys of golden records are found, by the names that records hold. Frozen with them: entries are added,
 * none is ever changed. Releases before imports have none of these functions, so that each is made when it is asked for.
 */
export const GOLDEN_FORMATS: Readonly<Record<string, () => KeyFormat>> = {
  legacy: () => ({
    name: 'legacy',
    lookup: (key) => /^old_([a-z0-9]{8})[|._][A-Za-z0-9]{32}$/.exec(key)?.[1] ?? null,
  }),
  'better-auth': () => latchkey.betterAuthFormat(),
  sanctum: () => latchkey.sanctumFormat(),
  'prefixed-api-key': () => latchkey.prefixedApiKeyFormat(),
  'django-api-key': () => latchkey.djangoApiKeyFormat({ owner: () => ({ type: 'user', id: 'u_1' }) }),
  bcrypt: () => latchkey.bcryptFormat(),
}
