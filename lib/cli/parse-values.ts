import type { Permissions } from '../core/keys/permissions.ts'
import type { Owner } from '../core/keys/record.ts'
import type { Quota } from '../core/limits/quota.ts'
import type { RateLimit } from '../core/limits/rate-limit.ts'
import { usageError } from './cli-error.ts'

/** What the values of options mean. What is not understood is refused with the name of its option, and not repeated. */

const UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
}

/** `90d`, `24h`, `15m`, `30s`, `500ms` or `2w`, in milliseconds. @throws CliError */
export function parseDuration(option: string, text: string): number {
  const [, amount, unit = ''] = /^(\d{1,12})(ms|[smhdw])$/.exec(text) ?? []
  if (amount === undefined) throw usageError(`${option} takes a duration such as 90d, 24h, 15m or 30s`)
  return Number(amount) * (UNITS[unit] as number)
}

const DATE = /^\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,3})?)?(?:Z|[+-]\d\d:\d\d))?$/

/** A date, a moment with its zone, or a duration from now. A date is the beginning of its day in UTC. @throws CliError */
export function parseMoment(option: string, text: string, now: number): Date {
  if (/^\d{1,12}(?:ms|[smhdw])$/.test(text)) return new Date(now + parseDuration(option, text))
  const moment = new Date(text)
  const isThere = DATE.test(text) && !Number.isNaN(moment.getTime())
  // JavaScript takes the 30th of February for the 1st of March.
  const isReal =
    isThere && new Date(`${text.slice(0, 10)}T00:00:00Z`).toISOString().startsWith(text.slice(0, 10))
  if (!isReal)
    throw usageError(`${option} takes 2027-01-31, 2027-01-31T18:00Z, or a duration from now such as 90d`)
  return moment
}

/** The same, or null for `never`. @throws CliError */
export function parseEnd(option: string, text: string, now: number): Date | null {
  return text === 'never' ? null : parseMoment(option, text, now)
}

/** `user:u_1`. The id may hold colons. @throws CliError */
export function parseOwner(option: string, text: string): Owner {
  const at = text.indexOf(':')
  if (at < 1 || at === text.length - 1) throw usageError(`${option} takes a type and an id, such as user:u_1`)
  return { type: text.slice(0, at), id: text.slice(at + 1) }
}

/** `projects:read,write`, several times; `none` for none. @throws CliError */
export function parsePermissions(option: string, texts: readonly string[]): Permissions {
  if (texts.length === 1 && texts[0] === 'none') return {}
  const permissions: Record<string, string[]> = {}
  for (const text of texts) {
    const at = text.lastIndexOf(':')
    if (at < 1 || at === text.length - 1) {
      throw usageError(`${option} takes a resource and its actions, such as projects:read,write`)
    }
    const resource = text.slice(0, at)
    const actions = Object.hasOwn(permissions, resource) ? (permissions[resource] as string[]) : []
    Object.defineProperty(permissions, resource, {
      value: [...new Set([...actions, ...text.slice(at + 1).split(',')])],
      enumerable: true,
      configurable: true,
      writable: true,
    })
  }
  return permissions
}

const LIMIT = /^([A-Za-z0-9_-]{1,32})=(\d{1,13})\/(?:(day|month)|(\d{1,12}(?:ms|[smhdw])))$/

/** `minute=100/1m`, `daily=1000/day`, or JSON, several times; `none` for none and `default` for those of the service. @throws CliError */
export function parseRateLimits(option: string, texts: readonly string[]): readonly RateLimit[] | null {
  if (texts.length === 1 && texts[0] === 'none') return []
  if (texts.length === 1 && texts[0] === 'default') return null
  return texts.map((text) => {
    if (text.startsWith('{')) return parseJson(option, text) as RateLimit
    const [, name, limit, per, window] = LIMIT.exec(text) ?? []
    if (name === undefined) {
      throw usageError(`${option} takes minute=100/1m, daily=1000/day, or a limit as JSON; none; or default`)
    }
    const named = { name, limit: Number(limit) }
    return per === undefined
      ? { ...named, windowMs: parseDuration(option, window as string) }
      : { ...named, per: per as 'day' | 'month' }
  })
}

/** `1000`, `1000/month` with as much at every refill, or JSON; `unlimited` for none. @throws CliError */
export function parseQuota(option: string, text: string): Quota | null {
  if (text === 'unlimited') return null
  if (text.startsWith('{')) return parseJson(option, text) as Quota
  const [, amount, per, every] =
    /^(\d{1,13})(?:\/(?:(day|month)|(\d{1,12}(?:ms|[smhdw]))))?$/.exec(text) ?? []
  if (amount === undefined)
    throw usageError(`${option} takes 1000, 1000/month, a quota as JSON, or unlimited`)
  const remaining = Number(amount)
  if (per !== undefined) return { remaining, refill: { amount: remaining, per: per as 'day' | 'month' } }
  if (every === undefined) return { remaining }
  return { remaining, refill: { amount: remaining, everyMs: parseDuration(option, every) } }
}

/** Addresses and blocks, several times; `any` for everywhere. */
export function parseAllowedIps(texts: readonly string[]): readonly string[] | null {
  return texts.length === 1 && texts[0] === 'any' ? null : texts
}

/** @throws CliError */
export function parseJson(option: string, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw usageError(`${option} takes valid JSON`)
  }
}

/** A whole number. @throws CliError */
export function parseInteger(option: string, text: string, min: number, max: number): number {
  const number = /^\d{1,15}$/.test(text) ? Number(text) : NaN
  if (number >= min && number <= max) return number
  throw usageError(`${option} takes a whole number from ${min} to ${max}`)
}

/** One of a few words. @throws CliError */
export function parseWord<T extends string>(option: string, text: string, known: readonly T[]): T {
  const found = known.find((word) => word === text)
  if (found === undefined)
    throw usageError(`${option} takes ${known.slice(0, -1).join(', ')} or ${known.at(-1)}`)
  return found
}

/** Collects an option that may come several times. */
export function collect(text: string, before: readonly string[] = []): readonly string[] {
  return [...before, text]
}
