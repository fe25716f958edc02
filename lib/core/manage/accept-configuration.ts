import { LatchkeyError } from '../../errors.ts'
import { OptionError } from '../../internal/option-error.ts'
import { checkObject, checkText } from '../../internal/options.ts'
import type { Clock } from '../clock.ts'
import type { Digester } from '../digests/digest.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { KeyStore } from '../keys/key-store.ts'
import type { SharingCheck } from '../sharing-check.ts'
import { checkBy } from './change-keys.ts'
import type { KeyManagement } from './key-management.ts'

export function createAcceptConfiguration(
  store: KeyStore,
  digester: Digester,
  sharing: SharingCheck,
  clock: Clock,
  emit: (event: ApiKeyEvent) => void,
): KeyManagement['acceptConfiguration'] {
  return async function acceptConfiguration(given, options = {}) {
    const named = checkObject('accepted', given, ['pepper', 'rateLimiter', 'invalidation'])
    checkObject('options', options, ['by'])
    const by = checkBy(options)
    const accepted = Object.freeze({ ...given })
    if (Object.keys(named).length !== 1) {
      throw new OptionError('accepted', 'name exactly one of "pepper", "rateLimiter" and "invalidation"')
    }
    const pepper = 'pepper' in named ? checkText('pepper', named.pepper, 32) : null
    const part = 'rateLimiter' in named ? 'rateLimiter' : 'invalidation'
    if (pepper === null && named[part] !== true) throw new OptionError(part, 'be true')
    if (!store.agree) {
      throw new LatchkeyError(
        'unsupported',
        '"acceptConfiguration" needs a store with "agree", which this one lacks',
      )
    }
    if (pepper === null) await sharing.accept(part)
    else await digester.acceptPepper(pepper)
    emit({ type: 'configuration.accepted', at: new Date(clock.now()), accepted, by })
  }
}
