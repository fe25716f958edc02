import type { Invalidation, InvalidationListener, KeyVersion } from 'latchkey'

export interface FakeInvalidation extends Invalidation {
  /** What was published, message by message. */
  readonly published: readonly (readonly KeyVersion[])[]
  /** Those who listen now. */
  readonly listeners: ReadonlySet<InvalidationListener>
}

/** An invalidation within this process: who listens hears at once of what is published, the publisher too. */
export function fakeInvalidation(): FakeInvalidation {
  const published: (readonly KeyVersion[])[] = []
  const listeners = new Set<InvalidationListener>()
  return {
    published,
    listeners,
    publish(keys) {
      published.push(keys)
      for (const listener of listeners) listener.changed(keys)
    },
    listen(listener) {
      listeners.add(listener)
      return () => void listeners.delete(listener)
    },
  }
}
