import { createHash } from 'node:crypto'
import type { PermissionRequirement } from '../core/permissions.ts'
import { missingPermissions, type Permissions } from '../core/permissions.ts'
import type { ApiKey } from '../core/record.ts'
import type { KeyActor } from './actor.ts'
import { ownMember } from './own-member.ts'
import type { Action, Policy } from './policy.ts'

/** Whether a request that presents a key may do this, and as whom. */
export type KeyActorDecision =
  | { readonly ok: true; readonly actor: KeyActor }
  | { readonly ok: false; readonly code: 'session_required' }
  | { readonly ok: false; readonly code: 'insufficient_permissions'; readonly missing: Permissions }

/**
 * Decides for a verified key, as `verify` has answered it with its permissions of now. An action that the application has not opened to
 * keys takes a session. Elsewhere the key is an actor with its own owner, never an admin, and grants no more than it holds.
 */
export function decideKeyActor(apiKey: ApiKey, action: Action, policy: Policy): KeyActorDecision {
  const required = ownMember(policy.keyActions, action) as PermissionRequirement | undefined
  if (required === undefined) return { ok: false, code: 'session_required' }
  const missing = missingPermissions(apiKey.permissions, required)
  if (missing) return { ok: false, code: 'insufficient_permissions', missing }
  const { type, id } = apiKey.owner
  return {
    ok: true,
    actor: Object.freeze({
      id: keyActorId(apiKey),
      owners: Object.freeze([Object.freeze({ type, id })]),
      admin: false,
      grantable: apiKey.permissions,
      presented: apiKey,
    }),
  }
}

const MAX_ID_LENGTH = 255

/** What a key is called as an actor. Ids of imported keys may be so long that nothing fits before them. */
export function keyActorId(apiKey: ApiKey): string {
  const id = `key:${apiKey.id}`
  return id.length <= MAX_ID_LENGTH
    ? id
    : `key:sha256:${createHash('sha256').update(apiKey.id).digest('hex')}`
}
