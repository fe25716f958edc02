import { OptionError } from '../../internal/option-error.ts'
import { checkArray, checkObject, checkOneOf, fail, isPlainObject } from '../../internal/options.ts'
import { BOUNDS, checkBounded } from '../keys/bounds.ts'
import { CALENDAR_UNITS, checkTimeZone } from './calendar.ts'
import { type CompiledLimit, LIMIT_NAME } from './rate-limit.ts'

const MEMBERS = ['name', 'limit', 'only', 'windowMs', 'burst', 'per', 'timeZone', 'concurrent', 'maxHeldMs']
const DEFAULT_MAX_HELD_MS = 60_000

/** Checks limits of a key and prepares them. @throws TypeError naming the member. */
export function compileRateLimits(name: string, value: unknown): readonly CompiledLimit[] {
  return compileAll(name, value, (path, limit) => compileRateLimit(path, limit))
}

/** The same for limits of the service, some of which may be the owner's: those come last. */
export function compileServiceLimits(name: string, value: unknown): readonly CompiledLimit[] {
  const limits = compileAll(name, value, (path, given) => {
    const { scope = 'key', ...limit } = checkObject(path, given, [...MEMBERS, 'scope'])
    const isOwners = checkOneOf(`${path}.scope`, scope, ['key', 'owner']) === 'owner'
    return Object.freeze({ ...compileRateLimit(path, limit), isOwners })
  })
  const owners = limits.filter(({ isOwners }) => isOwners)
  if (owners.length === 0) return limits
  return Object.freeze([...limits.filter(({ isOwners }) => !isOwners), ...owners])
}

function compileAll(
  name: string,
  value: unknown,
  compile: (path: string, limit: unknown) => CompiledLimit,
): readonly CompiledLimit[] {
  const limits = checkArray(name, value, BOUNDS.rateLimits.max).map((limit, i) =>
    compile(`${name}[${i}]`, limit),
  )
  const names = new Set<string>()
  for (const [i, limit] of limits.entries()) {
    if (names.has(limit.name))
      throw new OptionError(`${name}[${i}].name`, 'be unique among the limits of a key')
    names.add(limit.name)
  }
  return Object.freeze(limits)
}

function compileRateLimit(path: string, value: unknown): CompiledLimit {
  if (isPlainObject(value) && value.scope !== undefined) {
    throw new OptionError(`${path}.scope`, 'be used only in "rateLimits" of createApiKeys')
  }
  const given = checkObject(path, value, MEMBERS)
  const { name } = given
  if (typeof name !== 'string' || !LIMIT_NAME.test(name)) {
    fail(`${path}.name`, '1 to 32 letters, digits, "_" and "-"', name)
  }
  if (name === 'quota') throw new OptionError(`${path}.name`, 'not be "quota", which names the quota')
  if (given.only !== undefined) checkOneOf(`${path}.only`, given.only, ['named'])
  if (given.concurrent !== undefined) return compileConcurrent(path, name, given)
  if (given.maxHeldMs !== undefined)
    throw new OptionError(
      `${path}.maxHeldMs`,
      'be used only with "concurrent"',
      `"${path}.maxHeldMs" is allowed only with "concurrent"`,
    )
  const limit = checkBounded(`${path}.limit`, given.limit, BOUNDS.limit)
  if (given.per !== undefined) return compileCalendar(path, name, limit, given)
  if (given.timeZone !== undefined)
    throw new OptionError(
      `${path}.timeZone`,
      'be used only with "per"',
      `"${path}.timeZone" is allowed only with "per"`,
    )
  const windowMs = checkBounded(`${path}.windowMs`, given.windowMs, BOUNDS.windowMs)
  const bucket = given.burst !== undefined
  const capacity = bucket ? checkBounded(`${path}.burst`, given.burst, BOUNDS.burst) : limit
  const kind = bucket ? 'bucket' : 'window'
  return Object.freeze({
    name,
    kind,
    isNamed: given.only === 'named',
    isOwners: false,
    limit,
    windowMs,
    capacity,
    maxHeldMs: 0,
    per: 'day',
    timeZone: 'UTC',
    shape: `${name} ${kind} ${windowMs}`,
  })
}

function compileConcurrent(path: string, name: string, given: Record<string, unknown>): CompiledLimit {
  refuseOthers(path, given, ['limit', 'windowMs', 'burst', 'per', 'timeZone'], 'concurrent')
  const limit = checkBounded(`${path}.concurrent`, given.concurrent, BOUNDS.concurrent)
  const { maxHeldMs = DEFAULT_MAX_HELD_MS } = given
  return Object.freeze({
    name,
    kind: 'concurrent',
    isNamed: given.only === 'named',
    isOwners: false,
    limit,
    windowMs: 0,
    capacity: limit,
    maxHeldMs: checkBounded(`${path}.maxHeldMs`, maxHeldMs, BOUNDS.maxHeldMs),
    per: 'day',
    timeZone: 'UTC',
    shape: `${name} concurrent`,
  })
}

/** Requires that none of `others` is given beside `member`. */
function refuseOthers(
  path: string,
  given: Record<string, unknown>,
  others: readonly string[],
  member: string,
): void {
  for (const other of others) {
    if (given[other] === undefined) continue
    const problem = `"${path}.${other}" cannot be combined with "${member}"`
    throw new OptionError(`${path}.${other}`, `not be combined with "${member}"`, problem)
  }
}

function compileCalendar(
  path: string,
  name: string,
  limit: number,
  given: Record<string, unknown>,
): CompiledLimit {
  const per = checkOneOf(`${path}.per`, given.per, CALENDAR_UNITS)
  refuseOthers(path, given, ['windowMs', 'burst'], 'per')
  const timeZone = checkTimeZone(`${path}.timeZone`, given.timeZone ?? 'UTC')
  return Object.freeze({
    name,
    kind: 'calendar',
    isNamed: given.only === 'named',
    isOwners: false,
    limit,
    windowMs: 0,
    capacity: limit,
    maxHeldMs: 0,
    per,
    timeZone,
    shape: `${name} ${per} ${timeZone}`,
  })
}
