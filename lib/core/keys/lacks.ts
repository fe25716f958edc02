import { LatchkeyError } from '../../errors.ts'

/** The error of a setting or a method that needs what the store cannot do. */
export function lacks(setting: string, method: string): LatchkeyError {
  const problem = `"${setting}" needs a store with "${method}", which this one lacks`
  return new LatchkeyError('unsupported', problem)
}
