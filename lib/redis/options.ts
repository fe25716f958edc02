import { OptionError } from '../internal/option-error.ts'
import { checkText } from '../internal/options.ts'

/** Checks the prefix of key names in Redis. @throws TypeError */
export function checkKeyPrefix(value: unknown): string {
  const keyPrefix = checkText('keyPrefix', value, 100)
  if (!/[{}]/.test(keyPrefix)) return keyPrefix
  throw new OptionError('keyPrefix', 'not contain braces: they decide the Cluster slot of a key')
}
