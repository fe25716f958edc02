import type { ApiKey } from '../core/keys/record.ts'
import type { LatchkeyError } from '../errors.ts'
import type { Actor } from './actor.ts'
import type { HandlerParts } from './handler-parts.ts'
import { refusalOfTaken } from './key-count-limit.ts'
import { tellOfReading } from './permit.ts'
import { decide } from './policy.ts'
import { hasCode, refusal } from './refusal.ts'

/** A request that creates a key. */
export interface Creation {
  readonly actor: Actor
  /** The id that its idempotency key gives the new key; undefined without one. */
  readonly id: string | undefined
  /** The id of the rotated key. */
  readonly previousId?: string
}

/** Acts once, however often the same request arrives. @throws LatchkeyError `already_done`, and others */
export async function doOnce<Done>(
  parts: HandlerParts,
  creation: Creation,
  act: () => Promise<Done>,
): Promise<Done> {
  const { id } = creation
  try {
    return await act()
  } catch (error) {
    if (id === undefined || !hasCode(error, 'duplicate_key')) throw error
    throw await refusalOfRepetition(parts, creation, id, await parts.keys.get(id))
  }
}

/** Refuses a request that was done before, ahead of all other checks. */
export async function refuseDone(parts: HandlerParts, creation: Creation): Promise<void> {
  const apiKey = creation.id === undefined ? null : await parts.keys.get(creation.id)
  if (apiKey) throw await refusalOfRepetition(parts, creation, apiKey.id, apiKey)
}

/**
 * A request is done only if it succeeded. Nobody got a key that was revoked for lack of room, or a successor that its previous key
 * does not point to.
 */
async function refusalOfRepetition(
  parts: HandlerParts,
  { actor, previousId }: Creation,
  id: string,
  apiKey: ApiKey | null,
): Promise<LatchkeyError> {
  if (previousId !== undefined && (await parts.keys.get(previousId))?.rotatedTo !== id) {
    return refusal('conflict', {
      accepted: 'another Idempotency-Key, unless the first request is still in progress',
    })
  }
  return (apiKey && refusalOfTaken(apiKey)) ?? alreadyDone(parts, actor, apiKey)
}

/** Contains the created key if the actor may read it, but never its secret. */
function alreadyDone(parts: HandlerParts, actor: Actor, apiKey: ApiKey | null): LatchkeyError {
  const isReadable = decide(actor, 'read', apiKey, null, parts.policy, parts.now()).ok
  if (!apiKey || !isReadable) return refusal('already_done')
  tellOfReading(parts, actor, apiKey)
  return refusal('already_done', { apiKey })
}
