/** A value, or the promise of one. */
export type Awaitable<T> = T | PromiseLike<T>

export function isPromiseLike<T>(value: Awaitable<T>): value is PromiseLike<T> {
  return typeof value === 'object' && value !== null && typeof (value as PromiseLike<T>).then === 'function'
}
