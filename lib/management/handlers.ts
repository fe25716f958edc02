import type { ApiKey } from '../core/keys/record.ts'
import { keyStatus } from '../core/keys/record.ts'
import type { ApiKeyPage, IssueOptions, ListOptions, UpdateOptions } from '../core/manage/key-management.ts'
import { isLatchkeyError, type LatchkeyError } from '../errors.ts'
import { type Actor, isOwnerOf } from './actor.ts'
import type { Caller } from './authenticate-caller.ts'
import type { HandlerParts } from './handler-parts.ts'
import { idOfRequest } from './idempotency.ts'
import { keyActorId } from './key-actor-id.ts'
import { createKeyCountLimit, refusalOfTaken } from './key-count-limit.ts'
import { findLoosening } from './loosening.ts'
import type { OperationId } from './operations.ts'
import { type Action, type Changes, decide } from './policy.ts'
import { matchesVersion, readIfMatch, writeETag } from './preconditions.ts'
import { invalidRequest, refusal, refusalOf } from './refusal.ts'
import type { ListQuery, RevokeRequest, VerifyRequest } from './schemas.ts'
import { createKeyVerification } from './verify-for-others.ts'
import { workingRelatives } from './working-relatives.ts'

/** A request with a valid shape, and its caller. */
export interface OperationRequest {
  readonly caller: Caller
  readonly params: { readonly id: string }
  readonly query: unknown
  readonly body: unknown
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
}

export interface Answered {
  readonly status?: 200 | 201
  readonly body: unknown
  readonly headers?: Readonly<Record<string, string>>
}

/** One handler for each operation except the document, which is the same for everybody. */
export type Handlers = Readonly<
  Record<Exclude<OperationId, 'openapi'>, (asked: OperationRequest) => Promise<Answered>>
>

const DEFAULT_PAGE = 20
/** How often to decide again if the key changes between the decision and the change. */
const MAX_ATTEMPTS = 10

/** Creates the handlers. Each asks the policy for a decision, then makes the permitted call on `keys`. */
export function createHandlers(parts: HandlerParts): Handlers {
  const { keys, policy, now } = parts
  const room = createKeyCountLimit(parts)
  const verify = createKeyVerification(parts)

  async function list(asked: OperationRequest): Promise<Answered> {
    const actor = actorOf(asked)
    const { ownerType, ownerId, expiresBefore, limit, ...rest } = asked.query as ListQuery
    if ((ownerType === undefined) !== (ownerId === undefined)) {
      throw invalidRequest(
        ownerType === undefined ? 'ownerType' : 'ownerId',
        '"ownerType" and "ownerId" together',
      )
    }
    const owner = ownerType === undefined ? {} : { owner: { type: ownerType, id: ownerId } }
    const { owners } = permitted(decide(actor, 'list', null, owner, policy, now()))
    const page = await listPage({
      ...rest,
      ...(expiresBefore !== undefined && { expiresBefore: new Date(expiresBefore) }),
      limit: limit ?? DEFAULT_PAGE,
      ...(owners !== null && { owners }),
    } as ListOptions)
    for (const apiKey of page.apiKeys) tellOfReading(actor, apiKey)
    return { body: page }
  }

  async function listPage(options: ListOptions): Promise<ApiKeyPage> {
    try {
      return await keys.list(options)
    } catch (error) {
      if (!hasCode(error, 'invalid_cursor')) throw error
      throw refusal('invalid_cursor', {
        field: 'cursor',
        accepted: 'the nextCursor of an earlier page in the same order',
      })
    }
  }

  async function issue(asked: OperationRequest): Promise<Answered> {
    const actor = actorOf(asked)
    const id = idOfRequest(asked.headers['idempotency-key'], actor.id, 'issue')
    await refuseDone(actor, id)
    const change = permitted(decide(actor, 'issue', null, withDates(asked.body), policy, now()))
    const options: IssueOptions = { ...change, by: actor.id, ...(id !== undefined && { id }) }
    const issued = await doOnce(actor, id, () => room.issue(change.owner, () => keys.issue(options)))
    return { status: 201, body: issued, headers: { ETag: writeETag(issued.apiKey) } }
  }

  async function read(asked: OperationRequest): Promise<Answered> {
    const actor = actorOf(asked)
    const apiKey = await keys.get(asked.params.id)
    permitted(decide(actor, 'read', apiKey, null, policy, now()))
    return show(actor, apiKey as ApiKey)
  }

  async function update(asked: OperationRequest): Promise<Answered> {
    return changeKey(asked, 'update', async (apiKey, change, options) => {
      await requireQuotaOfRelatives(asked, apiKey, change)
      const act = () => keys.update(apiKey.id, change, options)
      const isRevived =
        (change.expiresAt !== undefined || change.idleExpiryMs !== undefined) &&
        statusOf(apiKey) === 'expired'
      return isRevived ? room.revive(apiKey, change, act) : act()
    })
  }

  /** Predecessors and successors share a quota: an actor who raises it for one key must be allowed to raise it for all of them. */
  async function requireQuotaOfRelatives(
    asked: OperationRequest,
    apiKey: ApiKey,
    { quota }: Changes['update'],
  ): Promise<void> {
    if (quota === undefined || findLoosening('update', apiKey, { quota }, policy.defaultLimits) === null)
      return
    for await (const relative of workingRelatives(keys, apiKey, now())) {
      permitted(decide(actorOf(asked), 'update', relative, { quota }, policy, now()))
    }
  }

  async function enable(asked: OperationRequest): Promise<Answered> {
    return changeKey(asked, 'enable', ({ id, owner }, _change, options) =>
      room.enable(owner, () => keys.enable(id, options)),
    )
  }

  async function disable(asked: OperationRequest): Promise<Answered> {
    return changeKey(asked, 'disable', ({ id }, _change, options) => keys.disable(id, options))
  }

  async function revoke(asked: OperationRequest): Promise<Answered> {
    return changeKey(asked, 'revoke', ({ id }, change, options) => keys.revoke(id, { ...change, ...options }))
  }

  async function rotate(asked: OperationRequest): Promise<Answered> {
    const actor = actorOf(asked)
    const successorId = idOfRequest(asked.headers['idempotency-key'], actor.id, 'rotate', asked.params.id)
    const previousId = asked.params.id
    await refuseDone(actor, successorId, previousId)
    const rotated = await doOnce(
      actor,
      successorId,
      () =>
        changeIt(asked, 'rotate', async (apiKey, change, options) => {
          await room.requireForRotation(apiKey)
          const successor = successorId === undefined ? {} : { successorId }
          return keys.rotate(apiKey.id, { ...change, ...options, ...successor })
        }),
      previousId,
    )
    return { status: 201, body: rotated, headers: { ETag: writeETag(rotated.apiKey) } }
  }

  async function revokeAll(asked: OperationRequest): Promise<Answered> {
    const actor = actorOf(asked)
    const change = permitted(decide(actor, 'revoke_all', null, asked.body, policy, now()))
    const { owner, createdBy, reason } = change
    const options = { by: actor.id, ...(reason !== undefined && { reason }) }
    if (owner === undefined) return { body: { revoked: await keys.revokeCreatedBy(createdBy, options) } }
    const revoked =
      createdBy === undefined
        ? await keys.revokeOwner(owner, options)
        : await keys.revokeCreatedBy(createdBy, { ...options, owner })
    return { body: { revoked } }
  }

  async function erase(asked: OperationRequest): Promise<Answered> {
    const actor = actorOf(asked)
    const { owner, ...options } = permitted(decide(actor, 'erase', null, asked.body, policy, now()))
    return { body: await keys.erase(owner, { ...options, by: actor.id }) }
  }

  async function self(asked: OperationRequest): Promise<Answered> {
    return { body: keyOf(asked) }
  }

  async function revokeSelf(asked: OperationRequest): Promise<Answered> {
    const apiKey = keyOf(asked)
    const { reason } = asked.body as RevokeRequest
    const options = { by: keyActorId(apiKey), ...(reason !== undefined && { reason }) }
    return { body: await keys.revoke(apiKey.id, options) }
  }

  async function verifyForOthers(asked: OperationRequest): Promise<Answered> {
    return { body: await verify(keyOf(asked), asked.body as VerifyRequest) }
  }

  async function changeKey<A extends 'update' | 'enable' | 'disable' | 'revoke'>(
    asked: OperationRequest,
    action: A,
    act: (apiKey: ApiKey, change: Changes[A], options: UpdateOptions) => Promise<ApiKey>,
  ): Promise<Answered> {
    const apiKey = await changeIt(asked, action, act)
    return { body: apiKey, headers: { ETag: writeETag(apiKey) } }
  }

  /**
   * Decides about the current version of the key and changes only that version. If the key changes in between, it decides again,
   * unless the request named a version.
   */
  async function changeIt<A extends Action, Done>(
    asked: OperationRequest,
    action: A,
    act: (apiKey: ApiKey, change: Changes[A], options: UpdateOptions) => Promise<Done>,
  ): Promise<Done> {
    const actor = actorOf(asked)
    const versions = readIfMatch(asked.headers['if-match'])
    for (let attempt = 1; ; attempt++) {
      const apiKey = await keys.get(asked.params.id)
      const change = permitted(decide(actor, action, apiKey, withDates(asked.body ?? {}), policy, now()))
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

  /** Acts once, however often the same request arrives. `previousId` is the id of the rotated key. */
  async function doOnce<Done>(
    actor: Actor,
    id: string | undefined,
    act: () => Promise<Done>,
    previousId?: string,
  ): Promise<Done> {
    try {
      return await act()
    } catch (error) {
      if (id === undefined || !hasCode(error, 'duplicate_key')) throw error
      throw await refusalOfRepetition(actor, id, await keys.get(id), previousId)
    }
  }

  async function refuseDone(actor: Actor, id: string | undefined, previousId?: string): Promise<void> {
    const apiKey = id === undefined ? null : await keys.get(id)
    if (apiKey) throw await refusalOfRepetition(actor, apiKey.id, apiKey, previousId)
  }

  /**
   * A request is done only if it succeeded. Nobody got a key that was revoked for lack of room, or a successor that its previous key
   * does not point to.
   */
  async function refusalOfRepetition(
    actor: Actor,
    id: string,
    apiKey: ApiKey | null,
    previousId: string | undefined,
  ): Promise<LatchkeyError> {
    if (previousId !== undefined && (await keys.get(previousId))?.rotatedTo !== id) {
      return refusal('conflict', {
        accepted: 'another Idempotency-Key, unless the first request is still in progress',
      })
    }
    return (apiKey && refusalOfTaken(apiKey)) ?? alreadyDone(actor, apiKey)
  }

  /** Contains the created key if the actor may read it, but never its secret. */
  function alreadyDone(actor: Actor, apiKey: ApiKey | null): LatchkeyError {
    const isReadable = decide(actor, 'read', apiKey, null, policy, now()).ok
    if (!apiKey || !isReadable) return refusal('already_done')
    tellOfReading(actor, apiKey)
    return refusal('already_done', { apiKey })
  }

  function show(actor: Actor, apiKey: ApiKey): Answered {
    tellOfReading(actor, apiKey)
    return { body: apiKey, headers: { ETag: writeETag(apiKey) } }
  }

  function tellOfReading(actor: Actor, apiKey: ApiKey): void {
    if (!isOwnerOf(actor, apiKey.owner)) keys.report({ type: 'read', apiKey, by: actor.id })
  }

  function statusOf(apiKey: ApiKey) {
    return keyStatus(apiKey, new Date(now()))
  }

  return {
    list,
    issue,
    read,
    update,
    enable,
    disable,
    rotate,
    revoke,
    delete: revoke,
    revoke_all: revokeAll,
    erase,
    self,
    self_revoke: revokeSelf,
    verify: verifyForOthers,
  }
}

function permitted<Change>(
  decision: { readonly ok: true; readonly change: Change } | Parameters<typeof refusalOf>[0],
): Change {
  if (!decision.ok) throw refusalOf(decision)
  return decision.change
}

function actorOf({ caller }: OperationRequest): Actor {
  if (caller.kind !== 'actor') throw new TypeError('this operation needs an actor')
  return caller.actor
}

function keyOf({ caller }: OperationRequest): ApiKey {
  if (caller.kind !== 'key') throw new TypeError('this operation needs a key')
  return caller.apiKey
}

/** JSON has dates as strings. */
function withDates(body: unknown): unknown {
  const { expiresAt } = body as { expiresAt?: string | null }
  return typeof expiresAt === 'string' ? { ...(body as object), expiresAt: new Date(expiresAt) } : body
}

function hasCode(error: unknown, code: LatchkeyError['code']): boolean {
  return isLatchkeyError(error) && error.code === code
}
