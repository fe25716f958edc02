import type { ApiKey } from '../core/keys/record.ts'
import { type Actor, isOwnerOf } from './actor.ts'
import type { HandlerParts, OperationRequest } from './handler-parts.ts'
import { type Action, type Changes, decide } from './policy.ts'
import { refusalOf } from './refusal.ts'

/** What the actor may change by this action. @throws LatchkeyError where the policy refuses it */
export function permit<A extends Action>(
  { policy, now }: HandlerParts,
  actor: Actor,
  action: A,
  apiKey: ApiKey | null,
  given: unknown,
): Changes[A] {
  const decision = decide(actor, action, apiKey, given, policy, now())
  if (!decision.ok) throw refusalOf(decision)
  return decision.change
}

export function actorOf({ caller }: OperationRequest): Actor {
  if (caller.kind !== 'actor') throw new TypeError('this operation needs an actor')
  return caller.actor
}

export function keyOf({ caller }: OperationRequest): ApiKey {
  if (caller.kind !== 'key') throw new TypeError('this operation needs a key')
  return caller.apiKey
}

/** Reports that somebody other than its owner reads a key. */
export function tellOfReading({ keys }: HandlerParts, actor: Actor, apiKey: ApiKey): void {
  if (!isOwnerOf(actor, apiKey.owner)) keys.report({ type: 'read', apiKey, by: actor.id })
}

/** JSON has dates as strings. */
export function withDates(body: unknown): unknown {
  const { expiresAt } = body as { expiresAt?: string | null }
  return typeof expiresAt === 'string' ? { ...(body as object), expiresAt: new Date(expiresAt) } : body
}
