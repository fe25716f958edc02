import { type Awaitable, isPromiseLike } from '../../internal/awaitable.ts'
import { OptionError } from '../../internal/option-error.ts'
import { checkFunction, checkObject, fail, isPlainObject } from '../../internal/options.ts'
import type { Owner } from '../keys/record.ts'
import { compileServiceLimits } from './compile-limits.ts'
import type { CompiledLimit, RateLimit } from './rate-limit.ts'

/** A rate limit of the service, set by `rateLimits` of `createApiKeys` or by a plan. */
export type ServiceRateLimit = RateLimit & {
  /**
   * What the limit counts.
   *
   * - `'key'`: each key by itself, with its successors. It holds for keys without limits of their own.
   * - `'owner'`: all keys of an owner together, also those with limits of their own. Nobody can remove it from a key, and
   *   no key is given a limit with its name.
   *
   * @default 'key'
   */
  readonly scope?: 'key' | 'owner'
}

/** Rate limits by plan. */
export interface RateLimitPlans {
  /** The limits of each plan, by its name. */
  readonly plans: Readonly<Record<string, readonly ServiceRateLimit[]>>
  /** The name of an owner's plan. It is asked when a record is read, and the answer is kept as long as the record. */
  planOf(owner: Owner): Awaitable<string>
}

/**
 * The limits of an owner. The answer is kept as long as the record of the key it was asked for. It is also asked when a key
 * is given limits of its own, which may not have the names of the owner's. If a later answer has such a name, both limits
 * hold.
 */
export type OwnersRateLimits = (owner: Owner) => Awaitable<readonly ServiceRateLimit[]>

/** The limits that the service sets on an owner's keys. */
export interface LimitsOfOwner {
  /** Of keys without limits of their own: those of the service, the owner's last. */
  readonly all: readonly CompiledLimit[]
  /** Of the owner, which hold for every key. */
  readonly owners: readonly CompiledLimit[]
}

/** The option `rateLimits`, checked. */
export interface ServiceLimits {
  /** The limits, if they are the same for every owner. */
  readonly fixed: LimitsOfOwner | null
  /** The names of all limits; null if they are not known beforehand. */
  readonly names: ReadonlySet<string> | null
  /** The names of limits of owners; null if they are not known beforehand. */
  readonly ownersNames: ReadonlySet<string> | null
  /** @throws what the application's function throws, and TypeError for an answer that is wrong. */
  of(owner: Owner): Awaitable<LimitsOfOwner>
}

/** Checks the option `rateLimits`. @throws TypeError naming the member. */
export function compileLimits(name: string, value: unknown): ServiceLimits {
  if (typeof value === 'function') return limitsByFunction(name, value as OwnersRateLimits)
  if (isPlainObject(value) && ('plans' in value || 'planOf' in value)) return limitsByPlan(name, value)
  if (!Array.isArray(value)) fail(name, 'an array, plans, or a function of the owner', value)
  const fixed = limitsOf(name, value)
  return { fixed, ...namesOf([fixed]), of: () => fixed }
}

/** Text that stands for an owner, and for no other. */
export function ownerText({ type, id }: Owner): string {
  return `${type.length}:${type}:${id}`
}

function limitsByFunction(name: string, limitsOfOwner: OwnersRateLimits): ServiceLimits {
  /** An answer that is given again is compiled once. */
  const compiled = new WeakMap<object, LimitsOfOwner>()
  const compile = (answer: unknown): LimitsOfOwner => {
    if (!Array.isArray(answer)) fail(`${name}()`, 'an array', answer)
    const known = compiled.get(answer)
    if (known) return known
    const limits = limitsOf(`${name}()`, answer)
    if (Object.isFrozen(answer) && answer.every(Object.isFrozen)) compiled.set(answer, limits)
    return limits
  }
  return {
    fixed: null,
    names: null,
    ownersNames: null,
    of(owner) {
      const answer = limitsOfOwner(owner)
      return isPromiseLike(answer) ? answer.then(compile) : compile(answer)
    },
  }
}

function limitsByPlan(name: string, value: Record<string, unknown>): ServiceLimits {
  const given = checkObject(name, value, ['plans', 'planOf']) as Partial<RateLimitPlans>
  const { plans } = given
  if (!isPlainObject(plans)) fail(`${name}.plans`, 'an object', plans)
  checkFunction(`${name}.planOf`, given.planOf)
  const byPlan = new Map<unknown, LimitsOfOwner>()
  for (const [plan, limits] of Object.entries(plans))
    byPlan.set(plan, limitsOf(`${name}.plans.${plan}`, limits))
  if (byPlan.size === 0) throw new OptionError(`${name}.plans`, 'have at least one plan')
  const limitsOfPlan = (plan: unknown): LimitsOfOwner => {
    const limits = byPlan.get(plan)
    if (!limits) throw new OptionError(`${name}.planOf`, 'return the name of one of the plans')
    return limits
  }
  return {
    fixed: null,
    ...namesOf([...byPlan.values()]),
    of(owner) {
      const plan = given.planOf?.(owner)
      return isPromiseLike(plan) ? plan.then(limitsOfPlan) : limitsOfPlan(plan)
    },
  }
}

function limitsOf(name: string, value: unknown): LimitsOfOwner {
  const all = compileServiceLimits(name, value)
  return Object.freeze({ all, owners: Object.freeze(all.filter(({ isOwners }) => isOwners)) })
}

function namesOf(plans: readonly LimitsOfOwner[]): Pick<ServiceLimits, 'names' | 'ownersNames'> {
  const names = (limits: readonly CompiledLimit[]) => limits.map(({ name }) => name)
  return {
    names: new Set(plans.flatMap(({ all }) => names(all))),
    ownersNames: new Set(plans.flatMap(({ owners }) => names(owners))),
  }
}
