import { warnOnce } from '../../internal/process-warning.ts'
import type { Clock } from '../clock.ts'
import type { ApiKeyEvent } from '../events.ts'
import { readAddress } from '../keys/client-address.ts'

/** What needs a client's address. */
type AddressUse = Extract<ApiKeyEvent, { type: 'address.missing' }>['neededFor']

/** Reports a missing or unreadable address. */
export type NoteMissingAddress = (neededFor: AddressUse, ip: string | undefined) => void

const CONSEQUENCES: Readonly<Record<AddressUse, string>> = Object.freeze({
  allowedIps: 'A key with "allowedIps" was refused, because',
  failedAttempts: 'An invalid key was not counted by "failedAttempts", because',
})

/** Without an address, a protection either fails open or refuses every request. Both must be noticed. */
export function createMissingAddressNote(
  clock: Clock,
  emit: (event: ApiKeyEvent) => void,
): NoteMissingAddress {
  return function noteMissingAddress(neededFor, ip) {
    if (readAddress(ip)) return
    emit({
      type: 'address.missing',
      at: new Date(clock.now()),
      neededFor,
      found: ip === undefined ? 'nothing' : 'no address',
    })
    warnOnce(
      'LATCHKEY_NO_ADDRESS',
      `${CONSEQUENCES[neededFor]} the client's address cannot be read. Servers on a Unix socket do not know it: let the proxy ` +
        'send it, set "trust proxy" (Express) or "proxy" and "maxIpsCount" (Koa), or give the middleware an "ip" option',
    )
  }
}
