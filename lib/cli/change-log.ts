import type { ApiKeyEvent } from '../core/events.ts'
import { firstLine } from './describe-error.ts'

/** When servers notice a change: with a shared limiter at once; `unknown` where the application made `keys`. */
export type Reach = 'at once' | 'later' | 'unknown'

/** Hears whether changes have reached the other processes. */
export class ChangeLog {
  private delay: unknown = null
  private drift: string | null = null

  constructor(
    private readonly reach: Reach,
    /** How long servers may hold a record, in milliseconds. */
    private readonly maxAgeMs: number,
  ) {}

  hear(event: ApiKeyEvent): void {
    if (event.type === 'change.delayed') this.delay = event.error
    if (event.type !== 'fault' || event.operation !== 'rate_limiter') return
    const { code, message } = (event.error ?? {}) as { code?: unknown; message?: unknown }
    if (code === 'configuration_drift') this.drift = String(message)
  }

  /** Says by when a change that was made at `changedAt` holds everywhere. */
  describe(changedAt: number): string {
    if (this.reach === 'unknown') {
      return 'In effect at once where servers share their limiter; elsewhere within their cache.maxAgeMs.'
    }
    const by = `In effect by ${new Date(changedAt + this.maxAgeMs).toISOString()}`
    const bound = `servers hold a key for up to ${this.maxAgeMs} ms (cache.maxAgeMs)`
    if (this.reach === 'later') return `${by}: no Redis is named, and ${bound}.`
    if (this.drift !== null) return `${by}: ${bound}. ${this.drift}.`
    if (this.delay !== null) {
      return `In effect now: Redis did not answer (${firstLine(reasonOf(this.delay))}), so the command waited; ${bound}.`
    }
    return 'In effect now, in every process that counts in this Redis.'
  }

  /** The same for programs: null where nobody can say. */
  effectiveAt(changedAt: number): Date | null {
    if (this.reach === 'unknown') return null
    // Without an answer of Redis, a change resolves once no server holds the key any more.
    const isNow = this.reach === 'at once' && this.drift === null
    return new Date(isNow ? changedAt : changedAt + this.maxAgeMs)
  }
}

function reasonOf(error: unknown): unknown {
  return (error as { cause?: unknown } | null)?.cause ?? error
}
