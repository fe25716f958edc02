import type { Awaitable } from '../../internal/awaitable.ts'
import { deepFreeze } from '../../internal/deep-freeze.ts'
import { OptionError } from '../../internal/option-error.ts'
import type { DependencyRunner } from '../faults.ts'
import type { KeySettings } from '../keys/key-settings.ts'
import type { Owner } from '../keys/record.ts'
import type { ServiceLimits } from '../limits/service-limits.ts'

export interface LimitNameParts {
  /** The limits of the service. */
  readonly serviceLimits: ServiceLimits
  readonly guard: DependencyRunner
}

/**
 * Requires that limits of a key do not have the names of limits of its owner. What the service sets by a function, it asks
 * for this owner.
 *
 * @param findOwner the owner of the key; null if there is no such key
 * @throws TypeError naming the limit.
 * @throws LatchkeyError `unavailable` when the function of the service fails.
 */
export async function checkLimitNames(
  { serviceLimits, guard }: LimitNameParts,
  { rateLimits }: Pick<Partial<KeySettings>, 'rateLimits'>,
  findOwner: () => Awaitable<Owner | null>,
): Promise<void> {
  if (!rateLimits || rateLimits.length === 0) return
  const taken = serviceLimits.ownersNames ?? (await askNames())
  for (const [i, { name }] of rateLimits.entries()) {
    if (!taken.has(name)) continue
    throw new OptionError(`rateLimits[${i}].name`, 'not be the name of a limit that the owner has')
  }

  async function askNames(): Promise<ReadonlySet<string>> {
    const owner = await findOwner()
    if (!owner) return new Set()
    const asked = deepFreeze({ ...owner })
    const { owners } = await guard.run('owner_limits', () => serviceLimits.of(asked))
    return new Set(owners.map(({ name }) => name))
  }
}
