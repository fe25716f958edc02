import type { ChangeParts } from './change-keys.ts'
import type { ImportParts } from './prepare-import.ts'

/** What managing keys takes of the rest. */
export interface ManagementParts extends ChangeParts, ImportParts {
  readonly prefix: string
  /** How long a use in another process may go unnoticed here. */
  readonly idleSlackMs: number
  /** Writes the uses that are still in memory; false where some could not be written. */
  flushUsage(): Promise<boolean>
  /** Whether uses of a key are still in memory. */
  isInUse(keyId: string): boolean
  /** How many days counts of use are kept; 0 if nothing is counted. */
  readonly keepDays: number
  /** Writes the counts of use that are still in memory; false where some could not be written. */
  flushCounts(): Promise<boolean>
}
