import { randomUUID } from 'node:crypto'
import { OptionError } from '../../internal/option-error.ts'
import { type Cost, checkNames, unitsOf } from '../limits/cost.ts'
import type { QuotaLeases } from '../limits/quota-leases.ts'
import type { LimitState, MeterChange } from '../limits/rate-limit.ts'
import { costAt, type RateLimiter, type SettleAnswer } from '../limits/rate-limiter.ts'
import type { Resending } from '../limits/resend-settlements.ts'
import { Admitted, type Charge, type Charged, type Settlement } from './admitted-key.ts'
import type { CachedKey } from './record-cache.ts'
import type { VerifiedKey } from './verify-result.ts'

export interface SettlerParts {
  readonly limiter: RateLimiter
  readonly quotaLeases: QuotaLeases
  readonly settlements: Resending
  /** The names that a cost may have besides those of the key's limits; null if any. */
  readonly limitNames: ReadonlySet<string> | null
  readonly clock: { now(): number }
}

/** How much more, or less, an admission costs. */
interface Difference {
  /** For each limit that it counted on. */
  readonly changes: readonly (readonly MeterChange[])[]
  /** What is charged now: it learns the time at which the limiter did so. */
  readonly added: readonly Charged[]
  /** What the quota is to cost. */
  readonly quota: number
}

const NO_LIMITS: readonly LimitState[] = Object.freeze([])

/** Replaces what admitted calls have cost, in limits and quotas. */
export class Settler {
  constructor(private readonly parts: SettlerParts) {}

  /** Replaces the cost of a call; returns how the limits that it counted on stand then. */
  async settle(result: VerifiedKey, cost: Cost): Promise<readonly LimitState[]> {
    const charge = Admitted.chargeOf(result, this.parts.limiter)
    if (!charge) return NO_LIMITS
    checkSettled(charge, cost, this.parts.limitNames)
    return this.change(charge, cost)
  }

  /** Gives back everything; false if there is nothing to give back. */
  async refund(result: VerifiedKey): Promise<boolean> {
    const charge = Admitted.chargeOf(result, this.parts.limiter)
    if (!charge) return false
    const { charged, quota } = settlementOf(charge)
    const isSpent = quota > 0 || charged.some((stack) => sum(stack) > 0)
    if (isSpent) await this.change(charge, 0)
    return isSpent
  }

  private change(charge: Charge, cost: Cost): Promise<readonly LimitState[]> {
    const settlement = settlementOf(charge)
    // What it costs from now on is decided at once: two calls at once must not both give back the same.
    const difference = differenceOf(charge, settlement, cost)
    const changing = settlement.last.then(() => this.apply(charge, settlement, difference))
    settlement.last = changing.catch(() => {})
    return changing
  }

  private async apply(
    { facts, cost, chargedAt }: Charge,
    settlement: Settlement,
    { changes, added, quota }: Difference,
  ): Promise<readonly LimitState[]> {
    let limits = NO_LIMITS
    try {
      if (chargedAt !== null) {
        const { limits: counted } = cost
        const { lineageId } = facts.apiKey
        const request = { lineageId, owner: facts.owner, id: randomUUID(), limits: counted, changes }
        const keepTime = ({ settledAt }: SettleAnswer) => {
          for (const charged of added) charged.chargedAt = settledAt
        }
        const answer = await this.parts.settlements.settle(settlement.open, request, keepTime)
        limits = answer.limits
      }
    } finally {
      // The limiter makes its change too, if only later.
      const more = quota - sum(settlement.taken)
      if (more > 0 && facts.quota) await this.take(facts, settlement, more)
      else if (more < 0) this.giveBack(settlement, -more)
    }
    if (!facts.quota) return limits
    return [...limits, this.parts.quotaLeases.stateOf(facts, false)]
  }

  /** Takes units of the quota: all that are left, if those are fewer. */
  private async take(facts: CachedKey, { taken }: Settlement, units: number): Promise<void> {
    const { quotaLeases } = this.parts
    for (let wanted = units, tries = 0; wanted > 0 && tries < MAX_TAKES; tries += 1) {
      const lease = quotaLeases.takeNow(facts, wanted)
      const answer = lease
        ? ({ outcome: 'taken', lease } as const)
        : await quotaLeases.take(facts, wanted, true)
      if (answer.outcome === 'taken') {
        taken.push({ lease: answer.lease, units: wanted })
        return
      }
      if (answer.outcome !== 'short') return
      wanted = Math.min(wanted - 1, quotaLeases.stateOf(facts, false).remaining)
    }
  }

  private giveBack({ taken }: Settlement, units: number): void {
    for (const { lease, units: back } of takeLatest(taken, units)) this.parts.quotaLeases.putBack(lease, back)
  }
}

/** How often to ask for what is left of a quota: others take from it too. */
const MAX_TAKES = 4

/** Requires that a settlement names what the call counted on. @throws TypeError */
function checkSettled({ facts, cost: counted }: Charge, cost: Cost, known: ReadonlySet<string> | null): void {
  if (typeof cost === 'number') return
  checkNames(facts.limits, cost, known)
  for (const name of Object.keys(cost)) {
    if (counted.limits.some((limit) => limit.name === name)) continue
    if (!facts.limits.some((limit) => limit.name === name)) continue
    const must = `be a limit that the call counted on: name "${name}" in the cost of the call too, with 0 if need be`
    throw new OptionError(`cost.${name}`, must)
  }
}

function settlementOf(charge: Charge): Settlement {
  const { cost, chargedAt, lease } = charge
  charge.settlement ??= {
    charged: cost.limits.map((_limit, i) =>
      chargedAt === null ? [] : [{ units: costAt(cost, i), chargedAt }],
    ),
    quota: lease ? cost.quota : 0,
    taken: lease ? [{ lease, units: cost.quota }] : [],
    open: [],
    last: Promise.resolve(),
  }
  return charge.settlement
}

/** What a new cost changes. From then on, the settlement has the new cost. */
function differenceOf(
  { cost: first, chargedAt, lease }: Charge,
  settlement: Settlement,
  cost: Cost,
): Difference {
  const added: Charged[] = []
  const changes = first.limits.map((limit, i) => {
    const stack = settlement.charged[i] ?? []
    const before = sum(stack)
    const more = targetOf(cost, limit.name, limit.isNamed, before) - before
    if (more < 0) {
      return takeLatest(stack, -more).map(({ units, chargedAt: at }) => ({ units: -units, chargedAt: at }))
    }
    if (more === 0) return []
    const charged = { units: more, chargedAt: chargedAt ?? 0 }
    stack.push(charged)
    added.push(charged)
    // A copy: units that are given back later are taken off the other.
    return [{ ...charged }]
  })
  if (lease) settlement.quota = targetOf(cost, 'quota', false, settlement.quota)
  return { changes, added, quota: settlement.quota }
}

/** What a settlement makes a limit cost: 0 gives everything back, and what it does not name costs what it did. */
function targetOf(cost: Cost, name: string, isNamed: boolean, before: number): number {
  if (typeof cost === 'number') return isNamed && cost > 0 ? before : cost
  return unitsOf(cost, name, before)
}

function sum(stack: readonly { readonly units: number }[]): number {
  return stack.reduce((total, { units }) => total + units, 0)
}

/** Takes units off the top of a stack; returns what was taken of each entry. */
function takeLatest<Entry extends { units: number }>(stack: Entry[], units: number): Entry[] {
  const parts: Entry[] = []
  for (let rest = units; rest > 0; ) {
    const top = stack.at(-1)
    if (!top) break
    const part = Math.min(rest, top.units)
    if (part > 0) parts.push({ ...top, units: part })
    top.units -= part
    rest -= part
    if (top.units === 0) stack.pop()
  }
  return parts
}
