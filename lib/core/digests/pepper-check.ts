import { createHmac, type KeyObject } from 'node:crypto'
import { LatchkeyError } from '../../errors.ts'
import type { Awaitable } from '../../internal/awaitable.ts'
import type { Agreement, Agreements } from '../agreements.ts'
import type { Clock } from '../clock.ts'
import type { DependencyRunner } from '../faults.ts'

/**
 * Checks that this process has the same secret for a pepper's id as the others. A wrong secret makes every key look
 * wrong, and makes new keys that no other process can verify.
 */
export interface PepperCheck {
  /** Whether nothing is left to find out. */
  readonly isSettled: boolean
  /** A key matched, so the secret is the right one: proposes it as the agreement, in the background. */
  proven(): void
  /** Resolves if digests may be made under the pepper, which is agreed on from then on. @throws LatchkeyError `unavailable` */
  beforeUse(): Awaitable<void>
  /** Resolves if a key that does not match is a wrong key. @throws LatchkeyError `unavailable` */
  beforeBlame(): Awaitable<void>
  /** Declares this process's secret the right one. @throws LatchkeyError `unavailable` */
  accept(): Promise<void>
}

export type CreatePepperCheck = (id: string, secret: KeyObject) => PepperCheck

/** For a digester of its own, without a store. */
export const UNCHECKED: PepperCheck = Object.freeze({
  isSettled: true,
  proven() {},
  beforeUse() {},
  beforeBlame() {},
  async accept() {},
})

/** Sets the check value apart from every digest: no key has blanks. */
const LABEL = 'latchkey pepper check v1'
/** How long an answer holds: an operator may since have resolved a difference, or run a migration. */
const BELIEVED_MS = { same: Infinity, other: 10_000, none: 0, unknown: 60_000 }
/** How long background checks leave a failed store alone. */
const PROVE_MS = 10_000

export function createPepperChecks(
  agreements: Agreements,
  clock: Clock,
  guard: DependencyRunner,
  inBackground: (work: Promise<unknown>) => void,
): CreatePepperCheck {
  return (id, secret) => new AgreedPepper(id, secret, agreements, clock, guard, inBackground)
}

/** A pepper whose secret the processes agree on through the store. */
class AgreedPepper implements PepperCheck {
  isSettled: boolean
  private readonly name: string
  /** Shows that two secrets are the same, and nothing else about them. */
  private readonly value: string
  private last: { readonly agreement: Agreement; readonly at: number } | null = null
  private looking: Promise<Agreement> | null = null
  private isProving = false
  private provedAt = -Infinity

  constructor(
    private readonly id: string,
    secret: KeyObject,
    private readonly agreements: Agreements,
    private readonly clock: Clock,
    private readonly guard: DependencyRunner,
    private readonly inBackground: (work: Promise<unknown>) => void,
  ) {
    this.isSettled = !agreements.isKept
    this.name = `pepper:${id}`
    this.value = createHmac('sha256', secret).update(LABEL).digest('base64url')
  }

  proven(): void {
    if (this.isSettled || this.isProving || this.peekStale() !== null) return
    if (this.isWithin(this.provedAt, PROVE_MS)) return
    this.isProving = true
    this.provedAt = this.clock.now()
    this.inBackground(this.prove())
  }

  private async prove(): Promise<void> {
    try {
      this.refuseDrift(await this.ask(() => this.agreements.propose(this.name, this.value)))
    } catch {
      // The fault is reported where it happened.
    } finally {
      this.isProving = false
    }
  }

  beforeUse(): Awaitable<void> {
    return this.compare(() => this.ask(() => this.agreements.propose(this.name, this.value)))
  }

  beforeBlame(): Awaitable<void> {
    return this.compare(() => this.look())
  }

  async accept(): Promise<void> {
    await this.ask(async () => {
      await this.agreements.replace(this.name, this.value)
      return 'same'
    })
  }

  private compare(work: () => Promise<Agreement>): Awaitable<void> {
    if (this.isSettled) return
    const recalled = this.peekStale()
    if (recalled !== null) return this.refuseDrift(recalled)
    return work().then((agreement) => this.refuseDrift(agreement))
  }

  /** One at a time. One that was under way may have looked before the first key was made. */
  private async look(): Promise<Agreement> {
    await this.looking
    this.looking ??= this.ask(() => this.agreements.look(this.name, this.value)).finally(() => {
      this.looking = null
    })
    return this.looking
  }

  private refuseDrift(agreement: Agreement): void {
    if (agreement !== 'other') return
    const problem = `the secret of the pepper "${this.id}" differs from the one that other processes with this store have: configure exactly the same bytes, or see keys.acceptConfiguration`
    throw this.guard.toError('digest', new LatchkeyError('configuration_drift', problem, { stack: false }))
  }

  private async ask(work: () => Promise<Agreement>): Promise<Agreement> {
    const agreement = await work()
    this.last = { agreement, at: this.clock.now() }
    this.isSettled ||= agreement === 'same'
    return agreement
  }

  /** The last answer, if it still holds. */
  private peekStale(): Agreement | null {
    const { last } = this
    return last && this.isWithin(last.at, BELIEVED_MS[last.agreement]) ? last.agreement : null
  }

  private isWithin(since: number, ms: number): boolean {
    const age = this.clock.now() - since
    return age >= 0 && age < ms
  }
}
