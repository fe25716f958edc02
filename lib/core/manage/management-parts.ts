import { OptionError } from '../../internal/option-error.ts'
import type { KeySettings } from '../keys/key-settings.ts'
import type { ChangeParts } from './change-keys.ts'
import type { ImportParts } from './prepare-import.ts'

/** What managing keys takes of the rest. */
export interface ManagementParts extends ChangeParts, ImportParts {
  readonly prefix: string
  /** Names of limits of owners, which no key may have for a limit of its own. */
  readonly ownersLimitNames: ReadonlySet<string>
  /** How long a use in another process may go unnoticed here. */
  readonly idleSlackMs: number
  /** Writes the uses that are still in memory; false where some could not be written. */
  flushUsage(): Promise<boolean>
  /** Whether uses of a key are still in memory. */
  isInUse(keyId: string): boolean
}

/** Requires that limits of a key do not have the names of limits of its owner. @throws TypeError */
export function checkLimitNames(
  { ownersLimitNames }: Pick<ManagementParts, 'ownersLimitNames'>,
  { rateLimits }: Pick<Partial<KeySettings>, 'rateLimits'>,
): void {
  for (const [i, { name }] of (rateLimits ?? []).entries()) {
    if (!ownersLimitNames.has(name)) continue
    throw new OptionError(`rateLimits[${i}].name`, 'not be the name of a limit that the owner has')
  }
}
