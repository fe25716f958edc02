import { LatchkeyError } from '../errors.ts'
import type { Agreements } from './agreements.ts'
import type { Clock } from './clock.ts'
import type { ApiKeyEvent } from './events.ts'

/** What processes with one store share beside it, or believe they do. */
export type SharedPart = 'rateLimiter' | 'invalidation'

/** Finds out whether processes that share their keys also count and tell of changes in the same place. */
export interface SharingCheck {
  /** Whether there is something to find out. Once that is done it costs nothing to ask. */
  isDue(): boolean
  /** Finds out, and reports a fault where they do not. */
  run(): Promise<void>
  /** Says that where this process counts, or tells of changes, is right. @throws LatchkeyError `unavailable` */
  accept(part: SharedPart): Promise<void>
}

const OPERATIONS = { rateLimiter: 'rate_limiter', invalidation: 'invalidation' } as const
const RISKS = {
  rateLimiter: 'limits are counted apart, and changes noticed only when caches have aged',
  invalidation: 'changes are noticed only when caches have aged',
}
const AGAIN_MS = 60_000

/**
 * The store of the keys remembers the settings, so two applications that share a Redis but not their keys never disagree. Each process
 * reports a difference once; both go on working, each with its own settings.
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
    const problem = `the ${part} of this process has the ${value}, and other processes with this store have another: ${RISKS[part]}. Configure the same, or see keys.acceptConfiguration`
    const error = new LatchkeyError('configuration_drift', problem, { stack: false })
    emit({ type: 'fault', at: new Date(clock.now()), operation: OPERATIONS[part], error })
  }

  async function accept(part: SharedPart): Promise<void> {
    const value = shared[part]
    if (value === undefined)
      throw new TypeError(`"${part}" has nothing that other processes would have to share`)
    await agreements.replace(part, value)
    open.delete(part)
  }

  return { isDue, run, accept }
}
