import type { ApiKey } from '../core/keys/record.ts'
import type { UsageOptions } from '../core/usage/usage-report.ts'
import { acceptedBy, OptionError } from '../internal/option-error.ts'
import type { Answered, Handler, HandlerParts, OperationRequest } from './handler-parts.ts'
import { actorOf, permit, tellOfReading } from './permit.ts'
import { invalidRequest, refusal } from './refusal.ts'
import type { OwnerUsageQuery, UnusedPermissionsQuery, UsageQuery } from './schemas.ts'

/** The handlers that tell of use. Whoever may read a key may see what it did. */
export function createUsageHandlers(
  parts: HandlerParts,
): Readonly<Record<'usage' | 'owner_usage' | 'unused_permissions', Handler>> {
  return {
    usage: (asked) => usage(parts, asked),
    owner_usage: (asked) => ownerUsage(parts, asked),
    unused_permissions: (asked) => unusedPermissions(parts, asked),
  }
}

async function usage(parts: HandlerParts, asked: OperationRequest): Promise<Answered> {
  const apiKey = await readable(parts, asked)
  return report(parts, { key: apiKey.id, ...optionsOf(asked.query as UsageQuery) })
}

async function ownerUsage(parts: HandlerParts, asked: OperationRequest): Promise<Answered> {
  const { ownerType, ownerId, ...query } = asked.query as OwnerUsageQuery
  const owner = { type: ownerType, id: ownerId }
  permit(parts, actorOf(asked), 'list', null, { owner })
  return report(parts, { owner, ...optionsOf(query) })
}

async function unusedPermissions(parts: HandlerParts, asked: OperationRequest): Promise<Answered> {
  const { id } = await readable(parts, asked)
  const { days } = asked.query as UnusedPermissionsQuery
  const found = await parts.keys.unusedPermissions(id, days === undefined ? {} : { days })
  if (!found) throw refusal('not_found')
  return { body: found }
}

async function readable(parts: HandlerParts, asked: OperationRequest): Promise<ApiKey> {
  const actor = actorOf(asked)
  const found = await parts.keys.get(asked.params.id)
  permit(parts, actor, 'read', found, null)
  const apiKey = found as ApiKey
  tellOfReading(parts, actor, apiKey)
  return apiKey
}

function optionsOf({ from, to, ...rest }: UsageQuery): UsageOptions {
  return {
    ...rest,
    ...(from !== undefined && { from: new Date(from) }),
    ...(to !== undefined && { to: new Date(to) }),
  } as UsageOptions
}

/** A schema cannot tell whether a time zone exists, or whether a span is too long. */
async function report({ keys }: HandlerParts, options: UsageOptions): Promise<Answered> {
  try {
    return { body: await keys.usage(options) }
  } catch (error) {
    if (!OptionError.is(error)) throw error
    throw invalidRequest(error.field, acceptedBy(error))
  }
}
