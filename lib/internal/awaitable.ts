/** A value, or the promise of one. */
export type Awaitable<T> = T | PromiseLike<T>

/**
 * Goes on with `value` at once where it is there already, and once it is there otherwise. Not named `then`: a
 * module with such an export is a thenable, and `await import()` of it never comes to the module.
 */
export function goOn<T, R>(value: Awaitable<T>, next: (value: T) => Awaitable<R>): Awaitable<R> {
  return isPromiseLike(value) ? value.then(next) : next(value)
}

export function isPromiseLike<T>(value: Awaitable<T>): value is PromiseLike<T> {
  return typeof value === 'object' && value !== null && typeof (value as PromiseLike<T>).then === 'function'
}
