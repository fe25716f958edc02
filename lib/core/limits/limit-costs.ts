import { randomUUID } from 'node:crypto'
import type { CostChange } from './meter.ts'
import type { SettleAnswer, SettleRequest } from './rate-limiter.ts'

/** Units that an admission or a settlement has charged, and that nobody has given back. */
interface Charged {
  units: number
  /** By the limiter's clock; null if nobody knows whether they are charged, because a change of them was given up. */
  readonly chargedAt: number | null
}

/** A part of a change: units to charge, or to give back (less than 0) of what was charged before. */
interface Part {
  readonly units: number
  readonly from: Charged | null
}

/** A time by two clocks. Whichever comes first counts. */
export interface Deadline {
  /** By the clock of the keys, which may be set back. */
  readonly at: number
  /** By one that is never set back, but may stand still while the machine sleeps. */
  readonly monotonic: number
}

/** A change that was sent, or is about to be, and has no answer yet. */
export interface OpenChange {
  readonly request: SettleRequest
  readonly giveUpAt: Deadline
  /** What it makes the limits cost. */
  readonly targets: readonly number[]
  /** Its parts, for each limit. */
  readonly parts: readonly (readonly Part[])[]
}

/**
 * What an admitted call costs each limit that it counted on: what it should cost, and what was charged for it. One change at a time
 * leads from the one to the other: what a change has done decides about the next one.
 */
export class LimitCosts {
  /** What each limit should cost. */
  targets: readonly number[]
  /** The change without an answer. */
  open: OpenChange | null = null
  /** What the last change was to make of it. */
  private reached: readonly number[]
  /** For each limit, the latest last. More than it should cost, if some could not be given back. */
  private charged: readonly (readonly Charged[])[]

  constructor(
    private readonly counted: Pick<SettleRequest, 'lineageId' | 'owner' | 'limits'>,
    costs: readonly number[],
    chargedAt: number,
  ) {
    this.targets = costs
    this.reached = costs
    this.charged = costs.map((units) => [{ units, chargedAt }])
  }

  get limits(): SettleRequest['limits'] {
    return this.counted.limits
  }

  /** Whether there is nothing to change. */
  get isReached(): boolean {
    return this.open === null && this.reached === this.targets
  }

  /** The change to send: the open one, or the next. */
  propose(giveUpAt: Deadline): OpenChange {
    if (this.open) return this.open
    const { targets } = this
    const parts = this.charged.map((stack, i) => partsOf(stack, targets[i] ?? 0))
    const changes = parts.map((some) => some.map(changeOf))
    this.open = { request: { ...this.counted, id: randomUUID(), changes }, giveUpAt, targets, parts }
    return this.open
  }

  /** Takes note of what a change has done. It may have been sent twice at once, or given up meanwhile. */
  conclude(open: OpenChange, { made, settledAt }: SettleAnswer): void {
    if (this.open !== open) return
    this.end(open)
    this.charged = this.charged.map((stack, i) => {
      const added: Charged[] = []
      for (const [j, { units, from }] of (open.parts[i] ?? []).entries()) {
        if (!from) added.push({ units, chargedAt: settledAt })
        // What a bucket has given back may be a fraction.
        else from.units -= Math.min(-units, Math.ceil(made[i]?.[j] ?? 0))
      }
      return [...stack, ...added].filter(({ units }) => units > 0)
    })
  }

  /**
   * Gives up the open change, which may have been made or not. From now on its units are in doubt: they are neither charged again
   * nor given back, which might take off what other calls have used.
   */
  giveUp(open: OpenChange): void {
    this.end(open)
    this.charged = this.charged.map((stack, i) => {
      const inDoubt = (open.parts[i] ?? []).map(({ units, from }) => {
        if (from) from.units += units
        return { units: Math.abs(units), chargedAt: null }
      })
      return [...stack, ...inDoubt].filter(({ units }) => units > 0)
    })
  }

  private end({ targets }: OpenChange): void {
    this.open = null
    this.reached = targets
  }
}

/** What leads from these charges to a cost. The latest is given back first, but not what is in doubt. */
function partsOf(stack: readonly Charged[], target: number): readonly Part[] {
  const more = target - stack.reduce((total, { units }) => total + units, 0)
  if (more > 0) return [{ units: more, from: null }]
  const parts: Part[] = []
  let rest = -more
  for (let i = stack.length - 1; i >= 0 && rest > 0; i--) {
    const from = stack[i] as Charged
    const units = Math.min(rest, from.units)
    rest -= units
    if (units > 0 && from.chargedAt !== null) parts.push({ units: -units, from })
  }
  return parts
}

function changeOf({ units, from }: Part): CostChange {
  return { units, chargedAt: from?.chargedAt ?? 0 }
}
