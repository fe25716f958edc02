import { LatchkeyError } from '../errors.ts'
import { checkObject, checkText } from '../internal/options.ts'
import { checkBy } from './change-keys.ts'
import type { Clock } from './clock.ts'
import type { Digester } from './digest.ts'
import type { ApiKeyEvent } from './events.ts'
import type { KeyManagement } from './key-management.ts'
import type { KeyStore } from './key-store.ts'
import type { SharingCheck } from './sharing-check.ts'

export function createAcceptConfiguration(
  store: KeyStore,
  digester: Digester,
  sharing: SharingCheck,
  clock: Clock,
  emit: (event: ApiKeyEvent) => void,
): KeyManagement['acceptConfiguration'] {
  return async function acceptConfiguration(given, options = {}) {
    checkObject('accepted', given, ['pepper', 'rateLimiter', 'invalidation'])
    checkObject('options', options, ['by'])
    const by = checkBy(options)
    const accepted = Object.freeze({ ...given })
    for (const part of ['rateLimiter', 'invalidation'] as const) {
      if (accepted[part] !== undefined && accepted[part] !== true)
        throw new TypeError(`"${part}" must be true`)
    }
    const { pepper, rateLimiter, invalidation } = accepted
    if (pepper !== undefined) checkText('pepper', pepper, 32)
    if (pepper === undefined && !rateLimiter && !invalidation) {
      throw new TypeError('"accepted" must name "pepper", "rateLimiter" or "invalidation"')
    }
    if (!store.agree) {
      throw new LatchkeyError(
        'unsupported',
        '"acceptConfiguration" needs a store with "agree", which this one lacks',
      )
    }
    if (pepper !== undefined) await digester.acceptPepper(pepper)
    if (rateLimiter) await sharing.accept('rateLimiter')
    if (invalidation) await sharing.accept('invalidation')
    emit({ type: 'configuration.accepted', at: new Date(clock.now()), accepted, by })
  }
}
