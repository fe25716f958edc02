import type { ApiKey } from '../core/keys/record.ts'
import type { ApiKeyPage, IssueOptions, ListOptions } from '../core/manage/key-management.ts'
import { createChangeHandlers } from './change-handlers.ts'
import { doOnce, refuseDone } from './do-once.ts'
import { explainToAdministrator } from './explain-to-administrator.ts'
import type { Answered, Handler, HandlerParts, OperationRequest } from './handler-parts.ts'
import { idOfRequest } from './idempotency.ts'
import { keyActorId } from './key-actor-id.ts'
import { KeyCountLimit } from './key-count-limit.ts'
import type { OperationId } from './operations.ts'
import { actorOf, keyOf, permit, tellOfReading, withDates } from './permit.ts'
import { writeETag } from './preconditions.ts'
import { hasCode, invalidRequest, refusal } from './refusal.ts'
import type { ListQuery, RevokeRequest, VerifyRequest } from './schemas.ts'
import { createUsageHandlers } from './usage-handlers.ts'
import { createKeyVerification } from './verify-for-others.ts'

/** One handler for each operation except the document, which is the same for everybody. */
export type Handlers = Readonly<Record<Exclude<OperationId, 'openapi'>, Handler>>

const DEFAULT_PAGE = 20

/** Creates the handlers. Each asks the policy for a decision, then makes the permitted call on `keys`. */
export function createHandlers(parts: HandlerParts): Handlers {
  const room = new KeyCountLimit(parts)
  const verify = createKeyVerification(parts)
  const changes = createChangeHandlers(parts, room)
  return {
    ...changes,
    ...createUsageHandlers(parts),
    delete: changes.revoke,
    list: (asked) => list(parts, asked),
    issue: (asked) => issue(parts, room, asked),
    read: (asked) => read(parts, asked),
    limits: (asked) => limits(parts, asked),
    revoke_all: (asked) => revokeAll(parts, asked),
    erase: (asked) => erase(parts, asked),
    explain: (asked) => explainToAdministrator(parts, asked),
    self: async (asked) => ({ body: keyOf(asked) }),
    self_revoke: (asked) => revokeSelf(parts, asked),
    verify: async (asked) => ({ body: await verify(keyOf(asked), asked.body as VerifyRequest) }),
  }
}

async function list(parts: HandlerParts, asked: OperationRequest): Promise<Answered> {
  const actor = actorOf(asked)
  const { ownerType, ownerId, expiresBefore, limit, ...rest } = asked.query as ListQuery
  if ((ownerType === undefined) !== (ownerId === undefined)) {
    throw invalidRequest(
      ownerType === undefined ? 'ownerType' : 'ownerId',
      '"ownerType" and "ownerId" together',
    )
  }
  const owner = ownerType === undefined ? {} : { owner: { type: ownerType, id: ownerId } }
  const { owners } = permit(parts, actor, 'list', null, owner)
  const page = await listPage(parts, {
    ...rest,
    ...(expiresBefore !== undefined && { expiresBefore: new Date(expiresBefore) }),
    limit: limit ?? DEFAULT_PAGE,
    ...(owners !== null && { owners }),
  } as ListOptions)
  for (const apiKey of page.apiKeys) tellOfReading(parts, actor, apiKey)
  return { body: page }
}

async function listPage({ keys }: HandlerParts, options: ListOptions): Promise<ApiKeyPage> {
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

async function issue(parts: HandlerParts, room: KeyCountLimit, asked: OperationRequest): Promise<Answered> {
  const { keys } = parts
  const actor = actorOf(asked)
  const id = idOfRequest(asked.headers['idempotency-key'], actor.id, 'issue')
  await refuseDone(parts, { actor, id })
  const change = permit(parts, actor, 'issue', null, withDates(asked.body))
  const options: IssueOptions = { ...change, by: actor.id, ...(id !== undefined && { id }) }
  const act = () => room.issue(change.owner, () => keys.issue(options))
  const issued = await doOnce(parts, { actor, id }, act)
  return { status: 201, body: issued, headers: { ETag: writeETag(issued.apiKey) } }
}

async function read(parts: HandlerParts, asked: OperationRequest): Promise<Answered> {
  const actor = actorOf(asked)
  const found = await parts.keys.get(asked.params.id)
  permit(parts, actor, 'read', found, null)
  const apiKey = found as ApiKey
  tellOfReading(parts, actor, apiKey)
  return { body: apiKey, headers: { ETag: writeETag(apiKey) } }
}

async function limits(parts: HandlerParts, asked: OperationRequest): Promise<Answered> {
  const { keys } = parts
  const actor = actorOf(asked)
  const found = await keys.get(asked.params.id)
  permit(parts, actor, 'read', found, null)
  const states = await keys.limits(asked.params.id)
  if (!states) throw refusal('not_found')
  tellOfReading(parts, actor, found as ApiKey)
  return { body: { limits: states } }
}

async function revokeAll(parts: HandlerParts, asked: OperationRequest): Promise<Answered> {
  const { keys } = parts
  const actor = actorOf(asked)
  const { owner, createdBy, reason } = permit(parts, actor, 'revoke_all', null, asked.body)
  const options = { by: actor.id, ...(reason !== undefined && { reason }) }
  if (owner === undefined) return { body: { revoked: await keys.revokeCreatedBy(createdBy, options) } }
  const revoked =
    createdBy === undefined
      ? await keys.revokeOwner(owner, options)
      : await keys.revokeCreatedBy(createdBy, { ...options, owner })
  return { body: { revoked } }
}

async function erase(parts: HandlerParts, asked: OperationRequest): Promise<Answered> {
  const actor = actorOf(asked)
  const { owner, ...options } = permit(parts, actor, 'erase', null, asked.body)
  return { body: await parts.keys.erase(owner, { ...options, by: actor.id }) }
}

async function revokeSelf({ keys }: HandlerParts, asked: OperationRequest): Promise<Answered> {
  const apiKey = keyOf(asked)
  const { reason } = asked.body as RevokeRequest
  const options = { by: keyActorId(apiKey), ...(reason !== undefined && { reason }) }
  return { body: await keys.revoke(apiKey.id, options) }
}
