import { LRUCache } from 'lru-cache'
import { checkInteger, checkObject, fail, isPlainObject } from '../../internal/options.ts'
import type { Clock } from '../clock.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { DependencyRunner } from '../faults.ts'
import { addressGroup } from '../keys/client-address.ts'
import { compileRateLimits } from '../limits/compile-limits.ts'
import type { CompiledLimit } from '../limits/rate-limit.ts'
import { checkLimitAnswer, type LimitAnswer, type RateLimiter } from '../limits/rate-limiter.ts'
import { createMissingAddressNote, type NoteMissingAddress } from './missing-address.ts'

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
  return new CountedAttempts(
    limiter,
    { limit, windowMs, maxEntries, limits },
    clock,
    guard,
    emit,
    inBackground,
  )
}

interface Settings extends Required<FailedAttemptsOptions> {
  readonly limits: readonly CompiledLimit[]
}

/** How an address stands after it was counted. */
interface Count {
  /** Whether fewer were left than were to be counted, so that none was. */
  readonly isOver: boolean
  /** How many more block the address. */
  readonly left: number
  /** When the window ends. */
  readonly resetMs: number
}

class CountedAttempts implements FailedAttempts {
  private readonly noteMissingAddress: NoteMissingAddress
  private readonly blockedUntil: LRUCache<string, number>
  /** Of these the limiter holds a count. */
  private readonly counted: LRUCache<string, true>
  /** By address: how many are to be counted once the call under way has ended. */
  private readonly pending = new Map<string, number>()

  constructor(
    private readonly limiter: RateLimiter,
    private readonly settings: Settings,
    private readonly clock: Clock,
    private readonly guard: DependencyRunner,
    private readonly emit: (event: ApiKeyEvent) => void,
    private readonly inBackground: (work: Promise<unknown>) => void,
  ) {
    const max = settings.maxEntries
    this.noteMissingAddress = createMissingAddressNote(clock, emit)
    this.blockedUntil = new LRUCache({ max })
    this.counted = new LRUCache({
      max,
      dispose: (_true, address) => void limiter.forget?.(lineageOf(address)),
    })
  }

  blockedForMs(ip: string | undefined): number {
    if (this.blockedUntil.size === 0) return 0
    const address = addressGroup(ip)
    if (address === null) return 0
    const left = (this.blockedUntil.get(address) ?? 0) - this.clock.now()
    // A clock that was set back blocks nobody for longer than a window.
    if (left > 0 && left <= this.settings.windowMs) return left
    this.blockedUntil.delete(address)
    return 0
  }

  count(ip: string | undefined): void {
    const address = addressGroup(ip)
    if (address === null) {
      this.noteMissingAddress('failedAttempts', ip)
      return
    }
    const waiting = this.pending.get(address)
    if (waiting !== undefined) this.pending.set(address, waiting + 1)
    else if (this.pending.size < MAX_PENDING) {
      this.pending.set(address, 0)
      this.inBackground(this.countAll(address))
    }
  }

  private async countAll(address: string): Promise<void> {
    try {
      for (let failures = 1; failures > 0; failures = this.take(address)) {
        if (await this.isBlockedBy(address, failures)) return
      }
    } catch {
      // The fault is reported where it happened; an attempt more or less goes uncounted.
    } finally {
      this.pending.delete(address)
    }
  }

  private take(address: string): number {
    const waiting = this.pending.get(address) ?? 0
    this.pending.set(address, 0)
    return waiting
  }

  /** Counts this many; whether the address is blocked now, and nothing of it has to be counted any more. */
  private async isBlockedBy(address: string, failures: number): Promise<boolean> {
    const { limit, windowMs } = this.settings
    let count = await this.ask(address, Math.min(failures, limit))
    // All or nothing is spent; what is left has to be, or other processes would not know.
    if (count.isOver && count.left > 0) count = await this.ask(address, count.left)
    if (!count.isOver && count.left > 0) return false
    const forMs = Math.min(windowMs, count.resetMs)
    this.blockedUntil.set(address, this.clock.now() + forMs)
    this.emit({ type: 'address.blocked', at: new Date(this.clock.now()), address, forMs })
    return true
  }

  private async ask(address: string, cost: number): Promise<Count> {
    const request = {
      lineageId: lineageOf(address),
      keyId: '',
      version: 1,
      fresh: true,
      cost,
      limits: this.settings.limits,
      retainMs: this.settings.windowMs,
    }
    const count = async () => countOf(await this.limiter.check(request))
    try {
      return await this.guard.run('rate_limiter', count, [], 'check')
    } finally {
      this.counted.set(address, true)
    }
  }
}

/** A limiter that takes the request for stale has counted nothing. */
function countOf(given: LimitAnswer): Count {
  const answer = checkLimitAnswer(given)
  if (answer.outcome === 'stale') return { isOver: false, left: Infinity, resetMs: 0 }
  const [state] = answer.limits
  return {
    isOver: answer.outcome === 'limited',
    left: state?.remaining ?? 0,
    resetMs: state?.resetMs ?? Infinity,
  }
}

function lineageOf(address: string): string {
  return `failed ${address}`
}
