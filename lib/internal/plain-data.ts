import { isDate } from './any-realm.ts'
import { isPlainObject } from './options.ts'

/** A deep copy of JSON and dates, made of this realm's classes; under Jest `structuredClone` uses those of another. */
export function copyData<T>(value: T): T {
  return copyOf(value) as T
}

function copyOf(value: unknown): unknown {
  if (isDate(value)) return new Date(value.getTime())
  if (Array.isArray(value)) return Array.from(value, copyOf)
  if (!isPlainObject(value)) return value
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, copyOf(member)]))
}

/** Whether two values are the same JSON and dates, whatever order their members are in. */
export function isSameData(a: unknown, b: unknown): boolean {
  if (isDate(a) && isDate(b)) return a.getTime() === b.getTime()
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.length === b.length && a.every((entry, i) => isSameData(entry, b[i]))
  }
  if (!isPlainObject(a) || !isPlainObject(b)) return a === b
  const names = Object.keys(a)
  return (
    names.length === Object.keys(b).length &&
    names.every((name) => Object.hasOwn(b, name) && isSameData(a[name], b[name]))
  )
}
