import { type Clock, sleep } from '../clock.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { DependencyRunner } from '../faults.ts'
import type { Invalidation } from '../invalidation.ts'
import type { Owner } from '../keys/record.ts'
import type { RateLimiter } from '../limits/rate-limiter.ts'
import { ownerText } from '../limits/service-limits.ts'
import type { RecordCache } from '../verify/record-cache.ts'

/** A record with the version that a commit has given it. */
export interface ChangedKey {
  readonly id: string
  readonly lineageId: string
  readonly owner: Owner
  readonly version: number
}

/** Makes committed changes known everywhere; once it resolves, no older version is accepted. */
export type PublishChange = (changed: readonly ChangedKey[]) => Promise<void>

/**
 * The protocol of a change, after its commit: refuse older versions in this process, raise the version that the limiter
 * keeps, resolve. If the limiter cannot be reached, the change resolves once every cached record has expired: rather
 * late than early. A message to the other processes goes out in parallel; nothing relies on its arrival.
 */
export function createPublishChange(
  cache: RecordCache,
  limiter: RateLimiter,
  invalidation: Invalidation | undefined,
  options: { retainMs: number; maxAgeMs: number },
  clock: Clock,
  guard: DependencyRunner,
  emit: (event: ApiKeyEvent) => void,
): PublishChange {
  return async function publishChange(changed) {
    if (changed.length === 0) return
    const committedAt = clock.now()
    for (const { id, version } of changed) cache.changed(id, version)
    const told = tellOthers(changed)
    const marks = changed.map(({ id, lineageId, owner, version }) => ({
      lineageId,
      keyId: id,
      version,
      owner: ownerText(owner),
    }))
    try {
      const raise = () => limiter.raiseVersions(marks, options.retainMs)
      await guard.run('rate_limiter', raise, [], 'raiseVersions')
    } catch (error) {
      const delayMs = Math.max(0, committedAt + options.maxAgeMs - clock.now())
      const keyIds = changed.map(({ id }) => id)
      emit({ type: 'change.delayed', at: new Date(clock.now()), keyIds, delayMs, error })
      await sleep(clock, delayMs)
    }
    await told
  }

  async function tellOthers(changed: readonly ChangedKey[]): Promise<void> {
    if (!invalidation) return
    const keys = changed.map(({ id, version }) => ({ keyId: id, version }))
    // A failure is reported, and the age of the caches is the bound.
    await guard.run('invalidation', () => invalidation.publish(keys)).catch(() => {})
  }
}
