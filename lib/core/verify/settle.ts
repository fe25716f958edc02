import { OptionError } from '../../internal/option-error.ts'
import { type Cost, checkNames, unitsOf } from '../limits/cost.ts'
import { LimitCosts } from '../limits/limit-costs.ts'
import { oneOfEachName } from '../limits/one-of-each-name.ts'
import type { QuotaLeases } from '../limits/quota-leases.ts'
import type { LimitState } from '../limits/rate-limit.ts'
import { costAt, type RateLimiter } from '../limits/rate-limiter.ts'
import type { Resending } from '../limits/resend-settlements.ts'
import type { UsageCounter } from '../usage/usage-counter.ts'
import { Admitted, type Charge, type Settlement } from './admitted-key.ts'
import type { CachedKey, RecordCache } from './record-cache.ts'
import type { VerifiedKey } from './verify-result.ts'

export interface SettlerParts {
  readonly limiter: RateLimiter
  readonly cache: Pick<RecordCache, 'loadFresh'>
  readonly quotaLeases: QuotaLeases
  readonly settlements: Resending
  /** The names that a cost may have besides those of the key's limits; null if any. */
  readonly limitNames: ReadonlySet<string> | null
  readonly clock: { now(): number }
  /** Null if nothing is counted by the hour. */
  readonly usageCounter: UsageCounter | null
}

const NO_LIMITS: readonly LimitState[] = Object.freeze([])

/** Replaces what admitted calls have cost, in limits and quotas. */
export class Settler {
  constructor(private readonly parts: SettlerParts) {}

  /** Replaces the cost of a call; returns how the limits that it counted on stand then. */
  async settle(result: VerifiedKey, cost: Cost): Promise<readonly LimitState[]> {
    const charge = Admitted.chargeOf(result, this.parts.limiter)
    checkSettled(charge, cost, this.parts.limitNames)
    if (isNothing(charge)) return NO_LIMITS
    return this.change(charge, cost)
  }

  /** Gives back everything; false if there is nothing to give back. */
  async refund(result: VerifiedKey): Promise<boolean> {
    const charge = Admitted.chargeOf(result, this.parts.limiter)
    if (isNothing(charge)) return false
    const { limits, quota } = settlementOf(charge)
    const isSpent = quota > 0 || (limits?.targets.some((units) => units > 0) ?? false)
    if (isSpent) await this.change(charge, 0)
    return isSpent
  }

  private change(charge: Charge, cost: Cost): Promise<readonly LimitState[]> {
    const settlement = settlementOf(charge)
    // What it costs from now on is decided at once, and made when those before are: of two refunds at once, one finds nothing.
    const before = unitsOfEach(settlement, charge)
    aim(charge, settlement, cost)
    this.count(charge, before, unitsOfEach(settlement, charge))
    const changing = settlement.last.then(() => this.apply(charge, settlement))
    settlement.last = changing.catch(() => {})
    return changing
  }

  /** Counts what the change aims at: a limiter that cannot be reached makes it later. */
  private count({ facts }: Charge, before: Units, after: Units): void {
    const { usageCounter, clock } = this.parts
    if (!usageCounter) return
    const now = clock.now()
    for (const [limit, units] of after) {
      usageCounter.settled(facts.apiKey.id, limit, units - (before.get(limit) ?? 0), now)
    }
  }

  private async apply({ facts }: Charge, settlement: Settlement): Promise<readonly LimitState[]> {
    let limits = NO_LIMITS
    try {
      if (settlement.limits) limits = (await this.parts.settlements.settle(settlement.limits)).limits
    } finally {
      // The limiter makes its change too, if only later.
      const more = settlement.quota - sum(settlement.taken)
      if (more > 0 && facts.quota) await this.take(facts, settlement, more)
      else if (more < 0) this.giveBack(settlement, -more)
    }
    if (facts.hasNamesakes) limits = oneOfEachName(limits)
    if (!facts.quota) return limits
    return [...limits, this.parts.quotaLeases.stateOf(facts, false)]
  }

  /** Takes units of the quota: all that are left, if those are fewer. */
  private async take(facts: CachedKey, { taken }: Settlement, units: number): Promise<void> {
    const { quotaLeases, cache } = this.parts
    let known = facts
    let isFresh = false
    for (let wanted = units, tries = 0; wanted > 0 && tries < MAX_TAKES; tries += 1) {
      const lease = quotaLeases.takeNow(known, wanted)
      const answer = lease
        ? ({ outcome: 'taken', lease } as const)
        : await quotaLeases.take(known, wanted, isFresh)
      if (answer.outcome === 'taken') {
        taken.push({ lease: answer.lease, units: wanted })
        return
      }
      if (answer.outcome === 'gone') return
      if (answer.outcome === 'short') {
        wanted = Math.min(wanted - 1, quotaLeases.stateOf(known, false).remaining)
        continue
      }
      // The record may be as old as the call, and others may have given units back since.
      const { cached, fresh } = await cache.loadFresh(facts.lookup)
      if (!cached?.quota) return
      known = cached
      isFresh = fresh
    }
  }

  /** Gives back units, the latest first. Those of an ended epoch stay spent. */
  private giveBack(settlement: Settlement, units: number): void {
    let rest = units
    for (const part of settlement.taken.toReversed()) {
      const back = Math.min(rest, part.units)
      rest -= back
      if (back > 0 && this.parts.quotaLeases.putBackIfKept(part.lease, back)) part.units -= back
    }
    settlement.taken = settlement.taken.filter((part) => part.units > 0)
  }
}

/** How often to ask for what is left of a quota: others take from it too. */
const MAX_TAKES = 5

/** Whether the admission counted on nothing. */
function isNothing({ chargedAt, lease }: Charge): boolean {
  return chargedAt === null && !lease
}

/** Requires that a settlement names what the call counted on. @throws TypeError */
function checkSettled({ facts, cost: counted }: Charge, cost: Cost, known: ReadonlySet<string> | null): void {
  if (typeof cost === 'number') return
  checkNames(facts.limits, cost, known)
  for (const name of Object.keys(cost)) {
    if (counted.limits.some((limit) => limit.name === name)) continue
    const missed = facts.limits.find((limit) => limit.name === name)
    if (!missed) continue
    if (missed.kind === 'concurrent') {
      throw new OptionError(`cost.${name}`, 'be a limit that counts units: a place is released, not settled')
    }
    const must = `be a limit that the call counted on: name "${name}" in the cost of the call too, with 0 if need be`
    throw new OptionError(`cost.${name}`, must)
  }
}

function settlementOf(charge: Charge): Settlement {
  const { facts, cost, chargedAt, lease } = charge
  const { limits } = cost
  const counted = { lineageId: facts.apiKey.lineageId, owner: facts.owner, limits }
  const costs = limits.map((_limit, i) => costAt(cost, i))
  charge.settlement ??= {
    limits: chargedAt === null ? null : new LimitCosts(counted, costs, chargedAt),
    quota: lease ? cost.quota : 0,
    taken: lease ? [{ lease, units: cost.quota }] : [],
    last: Promise.resolve(),
  }
  return charge.settlement
}

/** Has a settlement make this cost of an admission. */
function aim({ lease }: Charge, settlement: Settlement, cost: Cost): void {
  const { limits } = settlement
  if (limits) {
    limits.targets = limits.limits.map(({ name, isNamed }, i) =>
      targetOf(cost, name, isNamed, limits.targets[i] ?? 0),
    )
  }
  if (lease) settlement.quota = targetOf(cost, 'quota', false, settlement.quota)
}

/** What a call costs, by the name of the limit or `quota`. Of a key's limit and its owner's with one name, each counts. */
type Units = ReadonlyMap<string, number>

function unitsOfEach({ limits, quota }: Settlement, { lease }: Charge): Units {
  const units = new Map<string, number>()
  for (const [i, { name }] of limits?.limits.entries() ?? []) {
    units.set(name, (units.get(name) ?? 0) + (limits?.targets[i] ?? 0))
  }
  return lease ? units.set('quota', quota) : units
}

/** What a settlement makes a limit cost: 0 gives everything back, and what it does not name costs what it did. */
function targetOf(cost: Cost, name: string, isNamed: boolean, before: number): number {
  if (typeof cost === 'number') return isNamed && cost > 0 ? before : cost
  return unitsOf(cost, name, before)
}

function sum(parts: readonly { readonly units: number }[]): number {
  return parts.reduce((total, { units }) => total + units, 0)
}
