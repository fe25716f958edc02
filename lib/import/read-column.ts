import { isDate } from '../internal/any-realm.ts'
import { describe, isPlainObject } from '../internal/options.ts'

/*
 * What a column holds depends on the driver: dates come as dates, as text or as milliseconds, flags as numbers, JSON as
 * text or read already. Whatever is none of these is an error that names the column, and never shows its value.
 */

const ZONE = /(?:[zZ]|([+-]\d\d)(?::?(\d\d))?)$/
const DATE = /^(\d{4})-(\d\d)-(\d\d)[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?/

/** A date, or null. Text without a zone is UTC. @throws TypeError */
export function readDate(column: string, value: unknown): Date | null {
  if (value === null || value === undefined) return null
  if (isDate(value) || typeof value === 'number' || typeof value === 'bigint') {
    return validDate(column, new Date(isDate(value) ? value : Number(value)), value)
  }
  if (typeof value !== 'string' || !DATE.test(value)) fail(column, 'a date', value)
  // JavaScript takes the 30th of February for the 1st of March, and knows no zone without minutes.
  const [, year, month, day] = DATE.exec(value) ?? []
  const isThere =
    new Date(Date.UTC(Number(year), Number(month) - 1, Number(day))).getUTCDate() === Number(day)
  if (!isThere) fail(column, 'a date', value)
  const text = value.replace(' ', 'T')
  const zoned = text.replace(ZONE, (zone, hours, minutes) => (hours ? `${hours}:${minutes ?? '00'}` : zone))
  return validDate(column, new Date(ZONE.test(text.slice(16)) ? zoned : `${text}Z`), value)
}

/** An integer, or null. @throws TypeError */
export function readInteger(column: string, value: unknown): number | null {
  if (value === null || value === undefined) return null
  const number = typeof value === 'bigint' || typeof value === 'string' ? Number(value) : value
  if (typeof number !== 'number' || value === '' || !Number.isSafeInteger(number)) {
    fail(column, 'an integer', value)
  }
  return number
}

/** A flag; `fallback` where the column is null. @throws TypeError */
export function readFlag(column: string, value: unknown, fallback: boolean): boolean {
  if (value === null || value === undefined) return fallback
  if (typeof value === 'boolean') return value
  const number = readInteger(column, value)
  if (number !== 0 && number !== 1) fail(column, 'true or false', value)
  return number === 1
}

/** Text, or null where there is none. @throws TypeError */
export function readText(column: string, value: unknown): string | null {
  if (value === null || value === undefined || value === '') return null
  if (typeof value !== 'string') fail(column, 'text', value)
  return value
}

/** Text that must be there. @throws TypeError */
export function readName(column: string, value: unknown): string {
  const text =
    typeof value === 'number' || typeof value === 'bigint' ? String(value) : readText(column, value)
  return text ?? fail(column, 'text', value)
}

/** JSON that may have been made text twice, or was read by the driver; null where there is none. @throws TypeError */
export function readJson(column: string, value: unknown): unknown {
  let json = value
  for (let times = 0; times < 2 && typeof json === 'string' && json !== ''; times++) {
    try {
      json = JSON.parse(json)
    } catch {
      fail(column, 'JSON', value)
    }
  }
  return json === '' ? null : (json ?? null)
}

/** A JSON object, or null. @throws TypeError */
export function readJsonObject(column: string, value: unknown): Record<string, unknown> | null {
  const json = readJson(column, value)
  if (json !== null && !isPlainObject(json)) fail(column, 'a JSON object', json)
  return json
}

function validDate(column: string, date: Date, value: unknown): Date {
  return Number.isNaN(date.getTime()) ? fail(column, 'a date', value) : date
}

function fail(column: string, expected: string, value: unknown): never {
  throw new TypeError(`the column "${column}" must be ${expected}, and is ${describe(value)}`)
}
