import { isPromiseLike } from '../../internal/awaitable.ts'
import type { Clock } from '../clock.ts'
import type { ApiKeyEvent } from '../events.ts'
import { readAddress } from '../keys/client-address.ts'
import type { ApiKey } from '../keys/record.ts'
import type { KeyCost } from '../limits/cost.ts'
import { costAt } from '../limits/rate-limiter.ts'

/** An admitted call, as `onAdmitted` receives it. */
export interface AdmittedCall {
  readonly apiKey: ApiKey
  readonly at: Date
  /** The client's address, without a port; null if there is none. */
  readonly ip: string | null
  /** What the call was charged, by the name of the limit or `quota`. */
  readonly units: Readonly<Record<string, number>>
}

export type NoteAdmitted = (apiKey: ApiKey, cost: KeyCost, hasQuota: boolean, at: number, ip?: string) => void

/** Calls the application's listener, whose failures never reach a call. Null without a listener. */
export function createNoteAdmitted(
  listener: ((call: AdmittedCall) => unknown) | undefined,
  clock: Clock,
  emit: (event: ApiKeyEvent) => void,
): NoteAdmitted | null {
  if (!listener) return null
  const fail = (error: unknown) =>
    emit({ type: 'fault', at: new Date(clock.now()), operation: 'admission_listener', error })
  return (apiKey, cost, hasQuota, at, ip) => {
    const call = {
      apiKey,
      at: new Date(at),
      ip: readAddress(ip)?.text ?? null,
      units: unitsOf(cost, hasQuota),
    }
    try {
      const result = listener(call)
      if (isPromiseLike(result)) result.then(undefined, fail)
    } catch (error) {
      fail(error)
    }
  }
}

function unitsOf(cost: KeyCost, hasQuota: boolean): Record<string, number> {
  const units = cost.limits.map(({ name }, i) => [name, costAt(cost, i)] as const)
  if (hasQuota) units.push(['quota', cost.quota])
  return Object.fromEntries(units.filter(([, amount]) => amount > 0))
}
