import { type ApiKey, keyStatus } from '../core/keys/record.ts'
import type { UpdateOptions } from '../core/manage/key-management.ts'
import { doOnce, refuseDone } from './do-once.ts'
import type { Answered, Handler, HandlerParts, OperationRequest } from './handler-parts.ts'
import { idOfRequest } from './idempotency.ts'
import type { KeyCountLimit } from './key-count-limit.ts'
import { findLoosening } from './loosening.ts'
import { actorOf, permit, withDates } from './permit.ts'
import type { Action, Changes } from './policy.ts'
import { matchesVersion, readIfMatch, writeETag } from './preconditions.ts'
import { hasCode, refusal } from './refusal.ts'
import { workingRelatives } from './working-relatives.ts'

/** How often to decide again if the key changes between the decision and the change. */
const MAX_ATTEMPTS = 10

/** The handlers of the operations that change one key. */
export function createChangeHandlers(
  parts: HandlerParts,
  room: KeyCountLimit,
): Readonly<Record<'update' | 'enable' | 'disable' | 'revoke' | 'rotate', Handler>> {
  const { keys } = parts
  return {
    update: (asked) =>
      changeKey(parts, asked, 'update', (apiKey, change, options) =>
        update(parts, room, asked, apiKey, change, options),
      ),
    enable: (asked) =>
      changeKey(parts, asked, 'enable', ({ id, owner }, _change, options) =>
        room.enable(owner, () => keys.enable(id, options)),
      ),
    disable: (asked) =>
      changeKey(parts, asked, 'disable', ({ id }, _change, options) => keys.disable(id, options)),
    revoke: (asked) =>
      changeKey(parts, asked, 'revoke', ({ id }, change, options) =>
        keys.revoke(id, { ...change, ...options }),
      ),
    rotate: (asked) => rotate(parts, room, asked),
  }
}

async function update(
  parts: HandlerParts,
  room: KeyCountLimit,
  asked: OperationRequest,
  apiKey: ApiKey,
  change: Changes['update'],
  options: UpdateOptions,
): Promise<ApiKey> {
  await requireQuotaOfRelatives(parts, asked, apiKey, change)
  const act = () => parts.keys.update(apiKey.id, change, options)
  const mayRevive = change.expiresAt !== undefined || change.idleExpiryMs !== undefined
  const isRevived = mayRevive && keyStatus(apiKey, new Date(parts.now())) === 'expired'
  return isRevived ? room.revive(apiKey, change, act) : act()
}

/** Predecessors and successors share a quota: an actor who raises it for one key must be allowed to raise it for all of them. */
async function requireQuotaOfRelatives(
  parts: HandlerParts,
  asked: OperationRequest,
  apiKey: ApiKey,
  { quota }: Changes['update'],
): Promise<void> {
  const { keys, policy, now } = parts
  if (quota === undefined || findLoosening('update', apiKey, { quota }, policy.defaultLimits) === null) return
  for await (const relative of workingRelatives(keys, apiKey, now())) {
    permit(parts, actorOf(asked), 'update', relative, { quota })
  }
}

async function rotate(parts: HandlerParts, room: KeyCountLimit, asked: OperationRequest): Promise<Answered> {
  const actor = actorOf(asked)
  const previousId = asked.params.id
  const successorId = idOfRequest(asked.headers['idempotency-key'], actor.id, 'rotate', previousId)
  const creation = { actor, id: successorId, previousId }
  await refuseDone(parts, creation)
  const rotated = await doOnce(parts, creation, () =>
    decideAndChange(parts, asked, 'rotate', async (apiKey, change, options) => {
      await room.requireForRotation(apiKey)
      const successor = successorId === undefined ? {} : { successorId }
      return parts.keys.rotate(apiKey.id, { ...change, ...options, ...successor })
    }),
  )
  return { status: 201, body: rotated, headers: { ETag: writeETag(rotated.apiKey) } }
}

async function changeKey<A extends 'update' | 'enable' | 'disable' | 'revoke'>(
  parts: HandlerParts,
  asked: OperationRequest,
  action: A,
  act: (apiKey: ApiKey, change: Changes[A], options: UpdateOptions) => Promise<ApiKey>,
): Promise<Answered> {
  const apiKey = await decideAndChange(parts, asked, action, act)
  return { body: apiKey, headers: { ETag: writeETag(apiKey) } }
}

/**
 * Decides about the current version of the key and changes only that version. If the key changes in between, it decides again,
 * unless the request named a version.
 */
async function decideAndChange<A extends Action, Done>(
  parts: HandlerParts,
  asked: OperationRequest,
  action: A,
  act: (apiKey: ApiKey, change: Changes[A], options: UpdateOptions) => Promise<Done>,
): Promise<Done> {
  const actor = actorOf(asked)
  const versions = readIfMatch(asked.headers['if-match'])
  for (let attempt = 1; ; attempt++) {
    const apiKey = await parts.keys.get(asked.params.id)
    const change = permit(parts, actor, action, apiKey, withDates(asked.body ?? {}))
    const { version } = apiKey as ApiKey
    if (!matchesVersion(versions, version)) throw refusal('precondition_failed')
    try {
      return await act(apiKey as ApiKey, change, { by: actor.id, expectedVersion: version })
    } catch (error) {
      if (!hasCode(error, 'precondition_failed')) throw error
      if (versions !== null) throw refusal('precondition_failed')
      if (attempt === MAX_ATTEMPTS) throw refusal('conflict')
    }
  }
}
