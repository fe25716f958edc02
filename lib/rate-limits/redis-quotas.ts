import { LRUCache } from 'lru-cache'
import type { LimitRequest, QuotaTold } from '../core/rate-limiter.ts'

/** Units that a reservation has handed to this process: a stretch of all those handed out in the epoch. */
export interface Grant {
  /** When the hash was born that it was first told to; to another it may be told, and counts for nothing. */
  readonly born: number
  readonly epoch: number
  readonly end: number
  readonly size: number
}

/** What this process knows of the quotas that Redis counts. */
export interface RedisQuotas {
  /** Whether a grant could be told: only to a hash whose birth is known. */
  isKnown(lineageId: string): boolean
  /** Takes note of a birth. */
  born(lineageId: string, quota: QuotaTold, born: number): void
  /** The grants to tell: that of this call, and those that Redis may not have heard of. */
  grantsFor(lineageId: string, quota: QuotaTold): readonly Grant[]
  /** The words by which a call tells of its quota and of the grants. */
  wordsOf(request: LimitRequest, quota: QuotaTold, grants: readonly Grant[]): string[]
  /** Takes note of an answer: these grants were heard, and so the quota stands. */
  answered(
    lineageId: string,
    grants: readonly Grant[],
    state: { readonly born: number; readonly epoch: number; readonly spent: number },
  ): void
}

interface Known {
  readonly born: number
  readonly epoch: number
  /** A server that has lost its latest writes learns it again. */
  readonly spent: number
  /** Told, and not known to be heard. */
  readonly untold: readonly Grant[]
}

const NONE: readonly Grant[] = Object.freeze([])
const MAX_LINEAGES = 10_000
/** A server that is silent for longer costs the blocks before the last of these. */
const MAX_UNTOLD = 8

export function createRedisQuotas(): RedisQuotas {
  const quotas = new LRUCache<string, Known>({ max: MAX_LINEAGES })

  return {
    isKnown: (lineageId) => quotas.has(lineageId),

    born(lineageId, { epoch }, born) {
      quotas.set(lineageId, { born, epoch, spent: 0, untold: NONE })
    },

    grantsFor(lineageId, { epoch, allotted, granted }) {
      const known = quotas.get(lineageId)
      if (!known) return NONE
      if (granted > 0) {
        const grant = { born: known.born, epoch, end: allotted, size: granted }
        const untold = [...known.untold, grant].slice(-MAX_UNTOLD)
        quotas.set(lineageId, { ...known, untold })
      }
      return (quotas.get(lineageId)?.untold ?? NONE).filter((grant) => grant.epoch === epoch)
    },

    wordsOf({ lineageId }, { epoch }, grants) {
      const known = quotas.get(lineageId)
      const spent = known?.epoch === epoch ? known.spent : 0
      const words = [`${epoch} ${known?.born ?? 0} ${spent}`]
      for (const { born, end, size } of grants) words.push(`${born} ${end} ${size}`)
      return words
    },

    answered(lineageId, grants, { born, epoch, spent }) {
      const known = quotas.get(lineageId)
      const isSame = known?.born === born && known.epoch === epoch
      if (isSame && spent <= known.spent && grants.length === 0) return
      const untold = (known?.untold ?? NONE).filter(
        (grant) => grant.born === born && grant.epoch >= epoch && !grants.includes(grant),
      )
      quotas.set(lineageId, { born, epoch, spent: isSame ? Math.max(spent, known.spent) : spent, untold })
    },
  }
}
