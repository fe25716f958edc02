import { type KeyStore, memoryStore } from 'latchkey'

export type StoreMethod = keyof KeyStore

/** What a call does instead of, or around, the real work, which is `work`. */
export type StoreFault = (work: () => Promise<unknown>, ...args: unknown[]) => unknown

export interface HeldCall {
  /** Resolves once the call has been made and its answer has been read. */
  readonly reached: Promise<void>
  /** Lets the caller have the answer. */
  release(): void
}

export interface RecordingStore extends Required<KeyStore> {
  /** How often a method was called; without a method, how often any was. */
  calls(method?: StoreMethod): number
  /** The arguments of each call of a method, in their order. */
  argumentsOf(method: StoreMethod): readonly (readonly unknown[])[]
  /** Forgets the calls so far. */
  forgetCalls(): void
  /** Gives a method a fault until `heal`: `store.fail('find', hangs)`. */
  fail(method: StoreMethod, fault: StoreFault): void
  /** Ends the faults of a method; without a method, of all. */
  heal(method?: StoreMethod): void
  /** Carries out the next call of a method at once and keeps its answer back, so that it arrives late and old. */
  hold(method: StoreMethod): HeldCall
  /** From now on `find` answers as of now, as a replica that has fallen behind. */
  lag(): Promise<void>
}

/** Never answers. */
export const hangs: StoreFault = () => new Promise(() => {})

/** Throws before there is a promise. */
export const throws = (error: unknown): StoreFault => {
  return () => {
    throw error
  }
}

/** Rejects. */
export const rejects = (error: unknown): StoreFault => {
  return () => Promise.reject(error)
}

/** Answers something else than the truth. */
export const answers = (value: unknown): StoreFault => {
  return async () => value
}

/** A store whose calls are counted, and which can be broken in the ways that stores break. */
export function recordingStore(inner: KeyStore = memoryStore()): RecordingStore {
  const log: { method: StoreMethod; args: unknown[] }[] = []
  const faults = new Map<StoreMethod, StoreFault>()
  const holds = new Map<StoreMethod, StoreFault>()

  function wrap(method: StoreMethod) {
    return (...args: unknown[]) => {
      log.push({ method, args })
      const work = () => (inner[method] as (...args: unknown[]) => Promise<unknown>)(...args)
      const fault = holds.get(method) ?? faults.get(method)
      holds.delete(method)
      return fault ? fault(work, ...args) : work()
    }
  }

  function hold(method: StoreMethod): HeldCall {
    const reached = signal()
    const released = signal()
    holds.set(method, async (work) => {
      const answer = await work()
      reached.fire()
      await released.fired
      return answer
    })
    return { reached: reached.fired, release: released.fire }
  }

  async function lag(): Promise<void> {
    const past = await inner.list({}, { limit: 1_000 })
    faults.set('find', async (_work, ...args) => {
      const [by] = args as Parameters<KeyStore['find']>
      const found = past.find(({ id, lookup }) => ('id' in by ? id === by.id : by.lookups.includes(lookup)))
      return found ? structuredClone(found) : null
    })
  }

  const methods = {
    insert: wrap('insert'),
    find: wrap('find'),
    update: wrap('update'),
    replaceDigest: wrap('replaceDigest'),
    list: wrap('list'),
    ...(inner.count && { count: wrap('count') }),
    purge: wrap('purge'),
    forget: wrap('forget'),
    recordUsage: wrap('recordUsage'),
    swapQuota: wrap('swapQuota'),
    ...(inner.swapQuotas && { swapQuotas: wrap('swapQuotas') }),
    agree: wrap('agree'),
    addUsage: wrap('addUsage'),
    readUsage: wrap('readUsage'),
    removeUsage: wrap('removeUsage'),
  } as unknown as Required<KeyStore>

  return {
    ...methods,
    calls: (method) => log.filter((call) => !method || call.method === method).length,
    argumentsOf: (method) => log.filter((call) => call.method === method).map(({ args }) => args),
    forgetCalls: () => void log.splice(0),
    fail: (method, fault) => void faults.set(method, fault),
    heal: (method) => void (method ? faults.delete(method) : faults.clear()),
    hold,
    lag,
  }
}

function signal(): { fired: Promise<void>; fire(): void } {
  let fire = () => {}
  const fired = new Promise<void>((resolve) => {
    fire = resolve
  })
  return { fired, fire: () => fire() }
}
