import { memberPath } from '../../internal/key-text.ts'
import { OptionError } from '../../internal/option-error.ts'
import { fail, isPlainObject } from '../../internal/options.ts'
import { BOUNDS, checkBounded } from '../keys/bounds.ts'
import { type CompiledLimit, LIMIT_NAME } from './rate-limit.ts'
import { costAt } from './rate-limiter.ts'

/**
 * What a call costs.
 *
 * - A number: so many units of the quota and of every limit, except those with `only: 'named'`. 0 checks the key, spends
 *   nothing and shows all limits.
 * - Units by name, as `{ tokens: 500, quota: 2 }`: the limits and the quota that it names cost what it says, and the
 *   others one unit, except those with `only: 'named'`. A limit that costs 0 must still have room for one unit.
 *
 * A limit with `concurrent` costs a place and no units, whatever the number. By name, 1 takes a place and 0 takes none.
 */
export type Cost = number | Readonly<Record<string, number>>

/**
 * What a call costs a key: the limits that it counts on, the units of each and of the quota, and the limits in which it
 * takes a place.
 */
export interface KeyCost {
  readonly limits: readonly CompiledLimit[]
  /** Those of kind `concurrent`. */
  readonly places: readonly CompiledLimit[]
  /** Units of every limit, unless `costs` has those of each. */
  readonly cost: number
  readonly costs: readonly number[] | undefined
  readonly quota: number
  /** Whether the quota must have a unit left, though the call costs none. */
  readonly needsQuota: boolean
}

/** The most limits and quotas that a cost may name. */
const MAX_NAMES = 64

/** In every copy of the package: keys of one may be verified by a middleware of the other. */
const SUM = Symbol.for('latchkey.sum-of-costs')

/**
 * What several calls cost that are charged as one. It takes the place of a cost in the options of `verify`. Only the limits of a key
 * tell what a name that one cost has and another has not stands for: a limit that counts every call, or none but those that name it.
 */
class SumOfCosts {
  readonly [SUM] = true

  constructor(readonly costs: readonly Cost[]) {}

  /** Makes it an object that no check takes for units by name. */
  get [Symbol.toStringTag](): string {
    return 'SumOfCosts'
  }

  toJSON(): never {
    throw new TypeError('the costs by name of several calls cannot be sent as one')
  }
}

/** What several calls cost together. */
export function sumOfCosts(costs: readonly Cost[]): Cost {
  const charged = costs.filter((cost) => cost !== 0)
  if (charged.length === 1) return charged[0] as Cost
  if (charged.every((cost) => typeof cost === 'number')) return charged.reduce((sum, cost) => sum + cost, 0)
  return new SumOfCosts(charged) as unknown as Cost
}

function isSum(cost: unknown): cost is SumOfCosts {
  return typeof cost === 'object' && cost !== null && (cost as Partial<SumOfCosts>)[SUM] === true
}

/** Requires a cost; returns a frozen copy. @throws TypeError naming the member. */
export function checkCost(name: string, value: unknown): Cost {
  if (isSum(value)) return sumOfCosts(value.costs.map((cost) => checkCost(name, cost)))
  if (typeof value === 'number') return checkBounded(name, value, BOUNDS.cost)
  if (!isPlainObject(value)) fail(name, 'an integer, or integers by the name of a limit', value)
  const entries = Object.entries(value)
  if (entries.length > MAX_NAMES) throw new OptionError(name, `name at most ${MAX_NAMES} limits`)
  for (const [limit, units] of entries) {
    const path = memberPath(name, limit)
    if (!LIMIT_NAME.test(limit)) throw new OptionError(name, 'have names of limits as members')
    checkBounded(path, units, BOUNDS.cost)
  }
  return Object.freeze(Object.fromEntries(entries) as Record<string, number>)
}

/**
 * What a call costs a key with these limits.
 *
 * @param known the names that a cost may have besides those of the key's limits; null if any
 * @throws TypeError naming a limit that nobody has.
 */
export function keyCostOf(
  limits: readonly CompiledLimit[],
  cost: Cost,
  known: ReadonlySet<string> | null,
): KeyCost {
  if (isSum(cost)) {
    return addUp(
      limits,
      cost.costs.map((one) => keyCostOf(limits, one, known)),
    )
  }
  const parts = partsOf(limits)
  const { metered, concurrent } = parts
  if (typeof cost === 'number') {
    const counted = cost === 0 ? metered : parts.byEveryCall
    const places = cost === 0 ? concurrent : parts.placesOfEveryCall
    return { limits: counted, places, cost, costs: undefined, quota: cost, needsQuota: false }
  }
  checkNames(limits, cost, known)
  const counted = countedBy(parts, cost)
  const places = concurrent.length === 0 ? concurrent : placesFor(concurrent, cost)
  const quota = unitsOf(cost, 'quota')
  const costs = counted.map(({ name }) => unitsOf(cost, name))
  // As cheap as a number, if it is one.
  const first = costs[0] ?? 1
  const isOne = first > 0 && costs.every((units) => units === first)
  return {
    limits: counted,
    places,
    cost: first,
    costs: isOne ? undefined : costs,
    quota,
    needsQuota: true,
  }
}

/** What calls cost together. They are made as one: it takes one place, however many take one. */
function addUp(limits: readonly CompiledLimit[], all: readonly KeyCost[]): KeyCost {
  const counted = pick(limits, (limit) => all.some((one) => one.limits.includes(limit)))
  const unitsIn = (limit: CompiledLimit) =>
    all.map((one) => (one.limits.includes(limit) ? costAt(one, one.limits.indexOf(limit)) : 0))
  return {
    limits: counted,
    places: pick(limits, (limit) => all.some(({ places }) => places.includes(limit))),
    cost: 1,
    costs: counted.map((limit) => add(unitsIn(limit))),
    quota: add(all.map(({ quota }) => quota)),
    needsQuota: true,
  }
}

/** @throws TypeError when the sum is more than a call may cost. */
function add(units: readonly number[]): number {
  return checkBounded(
    'cost',
    units.reduce((sum, one) => sum + one, 0),
    BOUNDS.cost,
  )
}

/** The limits in which a call takes a place. @throws TypeError when it would take several. */
function placesFor(
  concurrent: readonly CompiledLimit[],
  cost: Readonly<Record<string, number>>,
): readonly CompiledLimit[] {
  return concurrent.filter(({ name, isNamed }) => {
    const wanted = unitsOf(cost, name, isNamed ? 0 : 1)
    if (wanted <= 1) return wanted === 1
    const problem = `"cost.${name}" must be 0 or 1: a call takes one place of the limit "${name}"`
    throw new OptionError(`cost.${name}`, 'be 0 or 1', problem)
  })
}

/** The units that a cost names for a limit, or `otherwise`. */
export function unitsOf(cost: Readonly<Record<string, number>>, name: string, otherwise = 1): number {
  return Object.hasOwn(cost, name) ? (cost[name] as number) : otherwise
}

/** Requires names of limits. @throws TypeError naming one that nobody has. */
export function checkNames(
  limits: readonly Pick<CompiledLimit, 'name'>[],
  cost: Readonly<Record<string, number>>,
  known: ReadonlySet<string> | null,
): void {
  if (known === null) return
  for (const name of Object.keys(cost)) {
    if (name === 'quota' || known.has(name) || limits.some((limit) => limit.name === name)) continue
    const problem = `"cost" names the limit "${name}", which neither this key nor "rateLimits" of createApiKeys has`
    throw new OptionError(memberPath('cost', name), 'be the name of a limit', problem)
  }
}

/** Parts of a list of limits, each made once: limiters keep by the list what they prepare for it. */
interface Parts {
  /** Those that count units. */
  readonly metered: readonly CompiledLimit[]
  /** Those of kind `concurrent`. */
  readonly concurrent: readonly CompiledLimit[]
  /** Of `metered`. */
  readonly byEveryCall: readonly CompiledLimit[]
  /** Of `metered`. */
  readonly byNames: Map<string, readonly CompiledLimit[]>
  /** Of `concurrent`. */
  readonly placesOfEveryCall: readonly CompiledLimit[]
}

const NO_PLACES: readonly CompiledLimit[] = Object.freeze([])

/** How many parts of one list are kept. */
const MAX_PARTS = 64

const partsByList = new WeakMap<readonly CompiledLimit[], Parts>()

function partsOf(limits: readonly CompiledLimit[]): Parts {
  let parts = partsByList.get(limits)
  if (!parts) {
    const metered = pick(limits, ({ kind }) => kind !== 'concurrent')
    const concurrent = metered === limits ? NO_PLACES : pick(limits, ({ kind }) => kind === 'concurrent')
    parts = {
      metered,
      concurrent,
      byEveryCall: pick(metered, ({ isNamed }) => !isNamed),
      byNames: new Map(),
      placesOfEveryCall: pick(concurrent, ({ isNamed }) => !isNamed),
    }
    partsByList.set(limits, parts)
  }
  return parts
}

/** Those of a list that are wanted: the list itself, if that is all of them. */
function pick(
  limits: readonly CompiledLimit[],
  isWanted: (limit: CompiledLimit) => boolean,
): readonly CompiledLimit[] {
  const picked = limits.filter(isWanted)
  return picked.length === limits.length ? limits : Object.freeze(picked)
}

function countedBy(
  { metered: limits, byEveryCall, byNames }: Parts,
  cost: Readonly<Record<string, number>>,
): readonly CompiledLimit[] {
  if (byEveryCall === limits) return limits
  const counted = limits.filter(({ isNamed, name }) => !isNamed || Object.hasOwn(cost, name))
  if (counted.length === limits.length) return limits
  if (counted.length === byEveryCall.length) return byEveryCall
  const names = counted.map(({ name }) => name).join(' ')
  const known = byNames.get(names)
  if (known) return known
  Object.freeze(counted)
  if (byNames.size < MAX_PARTS) byNames.set(names, counted)
  return counted
}
