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
  return function createPepperCheck(id, secret) {
    const name = `pepper:${id}`
    const value = createHmac('sha256', secret).update(LABEL).digest('base64url')
    let isSettled = !agreements.isKept
    let last: { readonly agreement: Agreement; readonly at: number } | null = null
    let looking: Promise<Agreement> | null = null
    let isProving = false
    let provedAt = -Infinity

    async function ask(work: () => Promise<Agreement>): Promise<Agreement> {
      const agreement = await work()
      last = { agreement, at: clock.now() }
      isSettled ||= agreement === 'same'
      return agreement
    }

    /** The last answer, if it still holds. */
    function peekStale(): Agreement | null {
      return last && isWithin(last.at, BELIEVED_MS[last.agreement]) ? last.agreement : null
    }

    function isWithin(since: number, ms: number): boolean {
      const age = clock.now() - since
      return age >= 0 && age < ms
    }

    function proven(): void {
      if (isSettled || isProving || peekStale() !== null || isWithin(provedAt, PROVE_MS)) return
      isProving = true
      provedAt = clock.now()
      inBackground(prove())
    }

    async function prove(): Promise<void> {
      try {
        refuseDrift(await ask(() => agreements.propose(name, value)))
      } catch {
        // The fault is reported where it happened.
      } finally {
        isProving = false
      }
    }

    function beforeUse(): Awaitable<void> {
      return compare(() => ask(() => agreements.propose(name, value)))
    }

    function beforeBlame(): Awaitable<void> {
      return compare(look)
    }

    function compare(work: () => Promise<Agreement>): Awaitable<void> {
      if (isSettled) return
      const recalled = peekStale()
      return recalled === null ? work().then(refuseDrift) : refuseDrift(recalled)
    }

    /** One at a time. One that was under way may have looked before the first key was made. */
    async function look(): Promise<Agreement> {
      await looking
      looking ??= ask(() => agreements.look(name, value)).finally(() => {
        looking = null
      })
      return looking
    }

    function refuseDrift(agreement: Agreement): void {
      if (agreement !== 'other') return
      const problem = `the secret of the pepper "${id}" differs from the one that other processes with this store have: configure exactly the same bytes, or see keys.acceptConfiguration`
      throw guard.toError('digest', new LatchkeyError('configuration_drift', problem, { stack: false }))
    }

    async function accept(): Promise<void> {
      await ask(async () => {
        await agreements.replace(name, value)
        return 'same'
      })
    }

    return {
      get isSettled() {
        return isSettled
      },
      proven,
      beforeUse,
      beforeBlame,
      accept,
    }
  }
}
