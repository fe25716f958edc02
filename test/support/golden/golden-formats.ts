import type { KeyFormat } from 'latchkey'
import * as formats from 'latchkey/import'

/**
 * How imported keys of golden records are found, by the names that records hold. Frozen with them: entries are added,
 * none is ever changed. Releases before imports have none of these functions, so that each is made when it is asked for.
 */
export const GOLDEN_FORMATS: Readonly<Record<string, () => KeyFormat>> = {
  legacy: () => ({
    name: 'legacy',
    lookup: (key) => /^old_([a-z0-9]{8})[|._][A-Za-z0-9]{32}$/.exec(key)?.[1] ?? null,
  }),
  'better-auth': () => formats.betterAuthFormat(),
  sanctum: () => formats.sanctumFormat(),
  'prefixed-api-key': () => formats.prefixedApiKeyFormat(),
  'django-api-key': () => formats.djangoApiKeyFormat({ owner: () => ({ type: 'user', id: 'u_1' }) }),
  bcrypt: () => formats.bcryptFormat(),
}
