import type { ExplainedKey } from '../core/verify/explanation.ts'
import type { Answered, HandlerParts, OperationRequest } from './handler-parts.ts'
import { actorOf, permit } from './permit.ts'
import { invalidRequest } from './refusal.ts'
import type { ExplainRequest } from './schemas.ts'
import { refuseUnknownLimit, verifyOptionsOf } from './verify-for-others.ts'

/**
 * Explains a decision to an administrator, and reports that. It is a request like any other, and no failed attempt: an administrator
 * may ask about wrong keys, of which the event tells.
 */
export async function explainToAdministrator(
  parts: HandlerParts,
  asked: OperationRequest,
): Promise<Answered> {
  const { keys } = parts
  const actor = actorOf(asked)
  permit(parts, actor, 'explain', null, null)
  const request = asked.body as ExplainRequest
  const subject = subjectOf(request)
  const explanation = await keys.explain(subject, verifyOptionsOf(request)).catch(refuseUnknownLimit)
  keys.report({ type: 'explained', explanation, by: actor.id })
  return { body: explanation }
}

/** @throws LatchkeyError `invalid_request` unless the request has one of the two */
function subjectOf({ key, id }: ExplainRequest): ExplainedKey {
  if (key !== undefined && id === undefined) return { key }
  if (id !== undefined && key === undefined) return { id }
  throw invalidRequest('key', 'either "key" or "id"')
}
