import { LatchkeyError } from '../../errors.ts'
import type { KeyStore } from '../keys/key-store.ts'
import { lacks } from '../keys/lacks.ts'

/** The method that reads counts. @throws LatchkeyError `unsupported` where nothing is counted */
export function requireCounts(
  method: string,
  { readUsage }: KeyStore,
  keepDays: number,
): NonNullable<KeyStore['readUsage']> {
  if (keepDays === 0) throw new LatchkeyError('unsupported', 'No use is counted, since "usage.keepDays" is 0')
  if (!readUsage) throw lacks(method, 'readUsage')
  return readUsage
}
