import { isDate } from './any-realm.ts'

/** Freezes a tree of plain objects and arrays. Dates stay as they are: freezing does not protect them. */
export function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value) || isDate(value)) return value
  for (const member of Object.values(value)) deepFreeze(member)
  return Object.freeze(value)
}
