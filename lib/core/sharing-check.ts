import { LatchkeyError } from '../errors.ts'
import type { Agreements } from './agreements.ts'
import type { Clock } from './clock.ts'
import type { ApiKeyEvent } from './events.ts'

/** What processes with one store also share, or should. */
export type SharedPart = 'rateLimiter' | 'invalidation'

/** Checks whether processes that share their keys also count, and publish changes, in the same place. */
export interface SharingCheck {
  /** Whether a check is due. Once it is done, asking costs nothing. */
  isDue(): boolean
  /** Checks, and reports a fault if they do not. */
  run(): Promise<void>
  /** Declares this process's place for counting, or for publishing changes, the right one. @throws LatchkeyError `unavailable` */
  accept(part: SharedPart): Promise<void>
}

const OPERATIONS = { rateLimiter: 'rate_limiter', invalidation: 'invalidation' } as const
const RISKS = {
  rateLimiter: 'they count limits separately, and notice changes only when cached records expire',
  invalidation: 'they notice changes only when cached records expire',
}
const AGAIN_MS = 60_000

/**
 * The store of the keys remembers the settings, so two applications that share a Redis but not their keys never
 * disagree. Each process reports a difference once and continues with its own settings.
 */
export function createSharingCheck(
  agreements: Agreements,
  shared: Readonly<Record<SharedPart, string | undefined>>,
  clock: Clock,
  emit: (event: ApiKeyEvent) => void,
): SharingCheck {
  const open = new Set<SharedPart>()
  for (const part of ['rateLimiter', 'invalidation'] as const) {
    if (agreements.isKept && shared[part] !== undefined) open.add(part)
  }
  let askedAt = -Infinity

  function isDue(): boolean {
    if (open.size === 0) return false
    const age = clock.now() - askedAt
    return age < 0 || age >= AGAIN_MS
  }

  async function run(): Promise<void> {
    askedAt = clock.now()
    for (const part of [...open]) {
      const value = shared[part] as string
      // A store that fails has been reported, and is asked again later.
      const agreement = await agreements.propose(part, value).catch(() => 'unknown')
      if (agreement !== 'unknown') open.delete(part)
      if (agreement === 'other') report(part, value)
    }
  }

  function report(part: SharedPart, value: string): void {
    const problem = `the ${part} of this process has the ${value}, but other processes with this store have another: ${RISKS[part]}. Use the same configuration, or see keys.acceptConfiguration`
    const error = new LatchkeyError('configuration_drift', problem, { stack: false })
    emit({ type: 'fault', at: new Date(clock.now()), operation: OPERATIONS[part], error })
  }

  async function accept(part: SharedPart): Promise<void> {
    const value = shared[part]
    if (value === undefined) throw new TypeError(`"${part}" has no setting that processes must share`)
    await agreements.replace(part, value)
    open.delete(part)
  }

  return { isDue, run, accept }
}
