import { OptionError } from '../internal/option-error.ts'
import { checkText } from '../internal/options.ts'

/** What the names of keys begin with. @throws TypeError */
export function checkKeyPrefix(value: unknown): string {
  const keyPrefix = checkText('keyPrefix', value, 100)
  if (!/[{}]/.test(keyPrefix)) return keyPrefix
  throw new OptionError('keyPrefix', 'not have braces: they say where in a Cluster a key belongs')
}
