import type * as onExpress from 'latchkey/express'
import type * as onKoa from 'latchkey/koa'

type Guards<Handler> = {
  [Name in 'requireSession' | 'requireAuth' | 'requireApiKey' | 'requirePermissions']: (
    ...given: Parameters<(typeof onExpress)[Name]> & Parameters<(typeof onKoa)[Name]>
  ) => Handler
}

/** Each guard, and what it answers to every combination of login and key. */
export function guardMatrix<Handler>({
  requireSession,
  requireAuth,
  requireApiKey,
  requirePermissions,
}: Guards<Handler>): Record<string, [Handler, ...string[]]> {
  return {
    // nobody, session, key, junk key, session + key, session + junk key, session + two keys
    '/session': [
      requireSession(),
      '401 authentication_required',
      'session',
      '403 session_required',
      '403 session_required',
      '403 session_required',
      '403 session_required',
      '403 session_required',
    ],
    '/default': [
      requireAuth(),
      '401 authentication_required',
      'session',
      '403 session_required',
      '403 session_required',
      '403 session_required',
      '403 session_required',
      '403 session_required',
    ],
    '/key': [
      requireApiKey(),
      '401 missing_key',
      '403 api_key_required',
      'apikey',
      '401 invalid_key',
      'apikey',
      '401 invalid_key',
      '400 multiple_credentials',
    ],
    '/accept-key': [
      requireAuth({ accept: ['apikey'] }),
      '401 missing_key',
      '403 api_key_required',
      'apikey',
      '401 invalid_key',
      'apikey',
      '401 invalid_key',
      '400 multiple_credentials',
    ],
    '/either': [
      requireAuth({ accept: ['session', 'apikey'] }),
      '401 authentication_required',
      'session',
      'apikey',
      '401 invalid_key',
      'apikey',
      '401 invalid_key',
      '400 multiple_credentials',
    ],
    '/other': [
      requireAuth({ accept: ['other'] }),
      '401 missing_key',
      '403 auth_method_not_accepted',
      '403 auth_method_not_accepted',
      '403 auth_method_not_accepted',
      '403 auth_method_not_accepted',
      '403 auth_method_not_accepted',
      '403 auth_method_not_accepted',
    ],
    '/read': [
      requirePermissions({ projects: ['read'] }),
      '401 missing_key',
      '403 api_key_required',
      'apikey',
      '401 invalid_key',
      'apikey',
      '401 invalid_key',
      '400 multiple_credentials',
    ],
    '/read-or-session': [
      requirePermissions({ projects: ['read'] }, { accept: ['session'] }),
      '401 authentication_required',
      'session',
      'apikey',
      '401 invalid_key',
      'apikey',
      '401 invalid_key',
      '400 multiple_credentials',
    ],
    '/write': [
      requirePermissions({ projects: ['write'] }),
      '401 missing_key',
      '403 api_key_required',
      '403 insufficient_permissions',
      '401 invalid_key',
      '403 insufficient_permissions',
      '401 invalid_key',
      '400 multiple_credentials',
    ],
    '/write-key': [
      requireApiKey({ permissions: [{ projects: ['write'] }, { projects: ['read'] }] }),
      '401 missing_key',
      '403 api_key_required',
      'apikey',
      '401 invalid_key',
      'apikey',
      '401 invalid_key',
      '400 multiple_credentials',
    ],
  }
}
