import type { DependencyRunner } from '../faults.ts'
import type { ApiKey } from '../keys/record.ts'
import { decideKey, type KeyView } from './decide-key.ts'
import { idleAtOf, type KnownUses } from './idle-at.ts'
import type { VerifyOptions } from './key-verifier.ts'
import type { OwnerState } from './owner-state.ts'
import type { CachedKey } from './record-cache.ts'
import type { InvalidReason, RefusedKey } from './verify-result.ts'

export interface JudgeParts extends KnownUses {
  readonly clock: { now(): number }
  readonly guard: DependencyRunner
  readonly ownerState: OwnerState | null
}

/** A step that `decideKey` takes. */
export type DecidedStep =
  | 'prefix'
  | 'revocation'
  | 'enabled'
  | 'expiry'
  | 'idle_expiry'
  | 'owner'
  | 'address'
  | 'permissions'

/** All that `decideKey` says of a key. */
export interface Verdicts {
  readonly facts: CachedKey
  readonly idleAtMs: number
  /** When it was decided. */
  readonly now: number
  /** The key as its owner may use it; null if the owner may use no keys, or was not asked. */
  readonly granted: ApiKey | null
  readonly owner: 'no_hooks' | 'asked' | 'not_asked'
  readonly refusals: ReadonlyMap<DecidedStep, RefusedKey>
}

/** What is decided upon. */
interface Question {
  readonly view: KeyView
  readonly asked: VerifyOptions
}

/**
 * Finds everything that refuses a key: what has refused is taken away, and the rest decided upon again. The owner is asked about only
 * while nothing has refused.
 *
 * @throws LatchkeyError `unavailable`
 */
export async function judgeWhole(
  parts: JudgeParts,
  facts: CachedKey,
  asked: VerifyOptions,
  isRefusedBefore: boolean,
): Promise<Verdicts> {
  const { clock, guard, ownerState } = parts
  const refusals = new Map<DecidedStep, RefusedKey>()
  const idleAtMs = idleAtOf(facts, parts)
  let granted: ApiKey | null = ownerState ? null : facts.apiKey
  let owner: Verdicts['owner'] = ownerState ? 'not_asked' : 'no_hooks'
  let question: Question = { view: { facts, idleAtMs, granted: granted ?? undefined }, asked }
  for (;;) {
    const now = clock.now()
    const decision = decideKey(question.view, question.asked, now)
    switch (decision.outcome) {
      case 'allowed':
        return { facts, idleAtMs, now, granted, owner, refusals }
      case 'requirement_unknown':
        throw guard.toError('permissions', decision.error)
      case 'owner_unknown': {
        const isAsked = !isRefusedBefore && refusals.size === 0
        if (isAsked && ownerState) {
          owner = 'asked'
          granted = await ownerState(facts.apiKey)
        }
        question = withGranted(question, isAsked ? granted : facts.apiKey)
        break
      }
      case 'refused': {
        const step = stepOf(decision.refusal)
        refusals.set(step, decision.refusal)
        question = WITHOUT[step](question)
      }
    }
  }
}

const STEPS: Readonly<Partial<Record<InvalidReason, DecidedStep>>> = {
  prefix_not_accepted: 'prefix',
  revoked: 'revocation',
  disabled: 'enabled',
  expired: 'expiry',
  idle: 'idle_expiry',
  owner_inactive: 'owner',
}

/** @throws TypeError for a refusal that `decideKey` never returns */
function stepOf(refusal: RefusedKey): DecidedStep {
  if (refusal.code === 'address_not_allowed') return 'address'
  if (refusal.code === 'insufficient_permissions') return 'permissions'
  const step = refusal.code === 'invalid_key' ? STEPS[refusal.reason] : undefined
  if (!step) throw new TypeError(`no step refuses with ${refusal.code}`)
  return step
}

/** The question without what the step has refused. */
const WITHOUT: Readonly<Record<DecidedStep, (question: Question) => Question>> = {
  prefix: ({ view, asked }) => ({ view, asked: { ...asked, prefix: undefined } }),
  revocation: (question) => withFacts(question, { isRevoked: false }),
  enabled: (question) => withFacts(question, { apiKey: { ...question.view.facts.apiKey, enabled: true } }),
  expiry: (question) => withFacts(question, { expiresAtMs: null }),
  idle_expiry: ({ view, asked }) => ({ view: { ...view, idleAtMs: Infinity }, asked }),
  owner: (question) => withGranted(question, question.view.facts.apiKey),
  address: (question) => withFacts(question, { isAllowedIp: null }),
  permissions: ({ view, asked }) => ({ view, asked: { ...asked, permissions: undefined } }),
}

function withFacts({ view, asked }: Question, facts: Partial<KeyView['facts']>): Question {
  return { view: { ...view, facts: { ...view.facts, ...facts } }, asked }
}

function withGranted({ view, asked }: Question, granted: KeyView['granted']): Question {
  return { view: { ...view, granted }, asked }
}
