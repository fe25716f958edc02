import { OptionError } from '../../internal/option-error.ts'
import type { KeySettings } from '../keys/key-settings.ts'

/** Requires that limits of a key do not have the names of limits of its owner. @throws TypeError */
export function checkLimitNames(
  { ownersLimitNames }: { readonly ownersLimitNames: ReadonlySet<string> },
  { rateLimits }: Pick<Partial<KeySettings>, 'rateLimits'>,
): void {
  for (const [i, { name }] of (rateLimits ?? []).entries()) {
    if (!ownersLimitNames.has(name)) continue
    throw new OptionError(`rateLimits[${i}].name`, 'not be the name of a limit that the owner has')
  }
}
