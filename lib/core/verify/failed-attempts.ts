import { LRUCache } from 'lru-cache'
import { checkInteger, checkObject, fail, isPlainObject } from '../../internal/options.ts'
import type { Clock } from '../clock.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { DependencyRunner } from '../faults.ts'
import { addressGroup } from '../keys/client-address.ts'
import { compileRateLimits } from '../limits/rate-limit.ts'
import { checkLimitAnswer, type LimitAnswer, type RateLimiter } from '../limits/rate-limiter.ts'
import { createMissingAddressNote } from './missing-address.ts'

/** How many invalid keys an address may send. */
export interface FailedAttemptsOptions {
  /**
   * How many invalid keys within the window. The last of them blocks the address until the window ends.
   *
   * @default 100
   */
  limit?: number
  /**
   * The window in milliseconds, at most a day. It opens with the first invalid key.
   *
   * @default 60_000
   */
  windowMs?: number
  /**
   * The most addresses to remember, separately for counted and for blocked ones. Beyond it, the address unseen for
   * longest is forgotten. Counts in Redis are separate: they last for a window.
   *
   * @default 10_000
   */
  maxEntries?: number
}

/** Counts invalid keys by client address, and knows which addresses sent too many. */
export interface FailedAttempts {
  /** For how many milliseconds this address stays blocked; 0 if it is not. */
  blockedForMs(ip: string | undefined): number
  /** Counts an invalid key in the background. */
  count(ip: string | undefined): void
}

/** Without `failedAttempts`. */
export const NO_FAILED_ATTEMPTS: FailedAttempts = Object.freeze({ blockedForMs: () => 0, count: () => {} })

/** The options if blocking is on, null if it is off. A wrong value must not turn it off. */
export function checkFailedAttempts(value: unknown): FailedAttemptsOptions | null {
  if (value === false) return null
  if (value === true) return {}
  if (isPlainObject(value)) return value
  return fail('failedAttempts', 'true, false or an object', value)
}

/** How many addresses may be waiting to be counted: a flood from many must not pile up calls. */
const MAX_PENDING = 1_000

/**
 * Counts through the limiter, so that all processes that share it count together, and remembers in this one who is
 * blocked. One call at a time is under way for each address: what comes meanwhile is counted by the next.
 */
export function createFailedAttempts(
  options: FailedAttemptsOptions,
  limiter: RateLimiter,
  clock: Clock,
  guard: DependencyRunner,
  emit: (event: ApiKeyEvent) => void,
  inBackground: (work: Promise<unknown>) => void,
): FailedAttempts {
  checkObject('failedAttempts', options, ['limit', 'windowMs', 'maxEntries'], { maxAddresses: 'maxEntries' })
  const { limit = 100, windowMs = 60_000, maxEntries = 10_000 } = options
  checkInteger('failedAttempts.limit', limit, 1, 1_000_000)
  checkInteger('failedAttempts.windowMs', windowMs, 1_000, 86_400_000)
  checkInteger('failedAttempts.maxEntries', maxEntries, 1, 10_000_000)
  const limits = compileRateLimits('failedAttempts', [{ name: 'failed', limit, windowMs }])
  const noteMissing = createMissingAddressNote(clock, emit)
  const blockedUntil = new LRUCache<string, number>({ max: maxEntries })
  /** Of these the limiter holds a count. */
  const counted = new LRUCache<string, true>({
    max: maxEntries,
    dispose(_true, address, reason) {
      if (reason === 'evict') limiter.forget?.(lineageOf(address))
    },
  })
  /** By address: how many are to be counted once the call under way has ended. */
  const pending = new Map<string, number>()

  function blockedForMs(ip: string | undefined): number {
    if (blockedUntil.size === 0) return 0
    const address = addressGroup(ip)
    const until = address === null ? undefined : blockedUntil.get(address)
    if (address === null || until === undefined) return 0
    const left = until - clock.now()
    // A clock that was set back blocks nobody for longer than a window.
    if (left > 0 && left <= windowMs) return left
    blockedUntil.delete(address)
    return 0
  }

  function count(ip: string | undefined): void {
    const address = addressGroup(ip)
    if (address === null) {
      noteMissing('failedAttempts', ip)
      return
    }
    const waiting = pending.get(address)
    if (waiting !== undefined) pending.set(address, waiting + 1)
    else if (pending.size < MAX_PENDING) {
      pending.set(address, 0)
      inBackground(countAll(address))
    }
  }

  async function countAll(address: string): Promise<void> {
    try {
      for (let failures = 1; failures > 0; failures = take(address)) {
        if (await isBlockedBy(address, failures)) return
      }
    } catch {
      // The fault is reported where it happened; an attempt more or less goes uncounted.
    } finally {
      pending.delete(address)
    }
  }

  function take(address: string): number {
    const waiting = pending.get(address) ?? 0
    pending.set(address, 0)
    return waiting
  }

  /** Counts this many; whether the address is blocked now, and nothing of it has to be counted any more. */
  async function isBlockedBy(address: string, failures: number): Promise<boolean> {
    let answer = await ask(address, Math.min(failures, limit))
    const left = answer.outcome === 'stale' ? 0 : (answer.limits[0]?.remaining ?? 0)
    // All or nothing is spent; what is left has to be, or other processes would not know.
    if (answer.outcome === 'limited' && left > 0) answer = await ask(address, left)
    if (answer.outcome === 'stale') return false
    const [state] = answer.limits
    if (answer.outcome === 'admitted' && state?.remaining !== 0) return false
    const forMs = Math.min(windowMs, state?.resetMs ?? windowMs)
    blockedUntil.set(address, clock.now() + forMs)
    emit({ type: 'address.blocked', at: new Date(clock.now()), address, forMs })
    return true
  }

  async function ask(address: string, cost: number): Promise<LimitAnswer> {
    const request = {
      lineageId: lineageOf(address),
      keyId: '',
      version: 1,
      fresh: true,
      cost,
      limits,
      retainMs: windowMs,
    }
    try {
      return await guard.run('rate_limiter', async () => checkLimitAnswer(await limiter.check(request)))
    } finally {
      counted.set(address, true)
    }
  }

  return { blockedForMs, count }
}

function lineageOf(address: string): string {
  return `failed ${address}`
}
