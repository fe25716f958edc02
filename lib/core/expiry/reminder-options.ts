import { OptionError } from '../../internal/option-error.ts'
import { checkArray, checkInteger, checkIntegerOrFalse, checkObject, fail } from '../../internal/options.ts'
import type { ApiKeyListener } from '../events.ts'
import type { KeyStore } from '../keys/key-store.ts'
import { lacks } from '../keys/lacks.ts'
import type { ReminderOptions } from './expiry-reminders.ts'

/** When to report keys that expire soon. */
export interface ExpiryRemindersOptions {
  /**
   * How long before its end to report a key, in milliseconds: 1 to 10 times, each at most 366 days.
   *
   * @default [1_209_600_000, 604_800_000, 86_400_000] (14, 7 and 1 days)
   */
  beforeMs?: readonly number[]
  /**
   * How often the processes look for such keys, in milliseconds, at most a day. One of them looks for all. With `false`, none looks
   * until you call `keys.remindOfExpiry()`.
   *
   * @default 3_600_000
   */
  everyMs?: number | false
}

const DAY_MS = 86_400_000
const BEFORE_MS = [14 * DAY_MS, 7 * DAY_MS, DAY_MS]
const MAX_TIMES = 10

/** What is to be done; null for no reminders. @throws TypeError; LatchkeyError `unsupported` when the store cannot do what is asked */
export function resolveReminders(
  given: ExpiryRemindersOptions | false | undefined,
  { store, onEvent, timeoutMs }: { store: KeyStore; onEvent: ApiKeyListener | undefined; timeoutMs: number },
): ReminderOptions | null {
  if (given === false) return null
  if (given === undefined) {
    // Nobody would hear of it, or several processes would say it.
    if (!onEvent || !store?.agree) return null
    return { beforeMs: ascending(BEFORE_MS), everyMs: 3_600_000, timeoutMs }
  }
  checkObject('expiryReminders', given, ['beforeMs', 'everyMs'])
  const { beforeMs = BEFORE_MS, everyMs = 3_600_000 } = given
  const times = checkArray('expiryReminders.beforeMs', beforeMs, MAX_TIMES)
  if (times.length === 0) fail('expiryReminders.beforeMs', 'a non-empty array', beforeMs)
  const checked = times.map((time, i) =>
    checkInteger(`expiryReminders.beforeMs[${i}]`, time, 1, 366 * DAY_MS),
  )
  const every = checkIntegerOrFalse('expiryReminders.everyMs', everyMs, DAY_MS)
  if (!onEvent) throw new OptionError('expiryReminders', 'come with "onEvent", which receives the reminders')
  if (!store?.agree) throw lacks('expiryReminders', 'agree')
  return { beforeMs: ascending(checked), everyMs: every === false ? null : every, timeoutMs }
}

function ascending(times: readonly number[]): readonly number[] {
  return [...new Set(times)].sort((a, b) => a - b)
}
