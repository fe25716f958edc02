import { isLatchkeyError } from '../errors.ts'
import type { KeyStore, Proposal } from './keys/key-store.ts'

/**
 * How a value of this process compares with what is agreed on:
 *
 * - `same`: all processes have this value
 * - `other`: other processes have another value
 * - `none`: nothing is agreed on yet
 * - `unknown`: the store cannot keep agreements, or cannot yet
 */
export type Agreement = 'same' | 'other' | 'none' | 'unknown'

/** What the processes that share a store must have in common, stored with the keys. */
export interface Agreements {
  /** Whether the store has the capability at all. */
  readonly isKept: boolean
  /** Compares, and writes nothing. @throws LatchkeyError `unavailable` where the store cannot be asked */
  look(name: string, value: string): Promise<Agreement>
  /** Compares, and keeps the value where nothing is agreed on yet. @throws LatchkeyError `unavailable` */
  propose(name: string, value: string): Promise<Agreement>
  /** Keeps the value, whatever there was. @throws LatchkeyError `unavailable` */
  replace(name: string, value: string): Promise<void>
}

export function createAgreements(store: KeyStore): Agreements {
  async function compare(name: string, value: string, proposal: Proposal | null): Promise<Agreement> {
    if (!store.agree) return 'unknown'
    try {
      const agreed = await store.agree(name, proposal)
      if (agreed === null) return 'none'
      return agreed === value ? 'same' : 'other'
    } catch (error) {
      if (isLasting(error)) return 'unknown'
      throw error
    }
  }

  return {
    isKept: store.agree !== undefined,
    look: (name, value) => compare(name, value, null),
    propose: (name, value) => compare(name, value, { value, replace: false }),
    async replace(name, value) {
      await store.agree?.(name, { value, replace: true })
    },
  }
}

/**
 * Whether the store will fail the same way again: its table does not exist yet, as during the rollout of a release, or
 * it is read-only. Keys are then verified without agreements; the store's fault was reported.
 */
function isLasting(error: unknown): boolean {
  const cause = isLatchkeyError(error) ? error.cause : undefined
  return isLatchkeyError(cause) && ['not_migrated', 'read_only', 'unsupported'].includes(cause.code)
}
