import { createHmac, type KeyObject } from 'node:crypto'
import { LatchkeyError } from '../../errors.ts'
import type { Awaitable } from '../../internal/awaitable.ts'
import type { Agreement, Agreements } from '../agreements.ts'
import type { Clock } from '../clock.ts'
import type { DependencyRunner } from '../faults.ts'

/**
 * Whether this process has the secret under a pepper's id that the others have. A wrong one makes every key look
 * wrong, and makes new keys that nobody else can verify.
 */
export interface PepperCheck {
  /** Whether nothing is left to find out. */
  readonly isSettled: boolean
  /** A key was right under it, so the secret is the one that keys were made with: agreed on from now on. Nobody waits. */
  proven(): void
  /** Settles where a digest may be made under it, which from then on is agreed on. @throws LatchkeyError `unavailable` */
  beforeUse(): Awaitable<void>
  /** Settles where a key that is wrong under it is a wrong key. @throws LatchkeyError `unavailable` */
  beforeBlame(): Awaitable<void>
  /** Says that the secret of this process is the right one. @throws LatchkeyError `unavailable` */
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
/** How long an answer is believed: an operator may have settled a difference, or run a migration, since. */
const BELIEVED_MS = { same: Infinity, other: 10_000, none: 0, unknown: 60_000 }
/** How long a store that failed is left alone by what nobody waits for. */
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

    /** What was answered lately, and need not be asked again yet. */
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
