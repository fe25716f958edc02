import { BOUNDS, checkBounded } from '../core/keys/bounds.ts'
import { checkPrefix } from '../core/keys/key-format.ts'
import { checkSettings, SETTINGS } from '../core/keys/key-settings.ts'
import { checkOwner } from '../core/keys/record.ts'
import { checkUnusedOptions, type UnusedPermissionsOptions } from '../core/usage/unused-permissions.ts'
import { looksLikeName } from '../internal/key-text.ts'
import { acceptedBy, OptionError } from '../internal/option-error.ts'
import { checkShownText, isPlainObject } from '../internal/options.ts'
import { type Refusal, refuse } from './decision.ts'
import { ownMember } from './own-member.ts'

/** The members that a client may name for an action, and those that a key has but no client may set. */
export interface KnownMembers {
  readonly known: readonly string[]
  readonly fixed?: readonly string[]
}

/** The given members of a change, by name, and nothing else. */
export type Given = Readonly<Record<string, unknown>>

/** Reads the members of a change. Refuses unknown ones and those that no client may set. Skips `undefined`. */
export function readMembers(change: unknown, { known, fixed = [] }: KnownMembers): Given | Refusal {
  if (change === null || change === undefined) return {}
  if (!isPlainObject(change)) return refuse('invalid_request', undefined, 'an object')
  const given: Record<string, unknown> = {}
  for (const name of Object.keys(change)) {
    if (fixed.includes(name)) return refuse('field_not_allowed', name, 'nothing: nobody may set it')
    if (!known.includes(name))
      return refuse('invalid_request', looksLikeName(name) ? name : undefined, listOf(known))
    if (change[name] !== undefined) given[name] = change[name]
  }
  return given
}

/** Returns copies of the values, checked like `keys` does, so that the decision and the change use the same values. */
export function checkValues(given: Given, now: number): Given | Refusal {
  const checked: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(given)) {
    try {
      checked[name] = SETTINGS.some((setting) => setting === name)
        ? ownMember(checkSettings({ [name]: value }, now), name)
        : CHECKS[name]?.(value)
    } catch (error) {
      // The checks throw to refuse, and their messages contain no value.
      if (!OptionError.is(error)) throw error
      return refuse('invalid_request', error.field, acceptedBy(error))
    }
  }
  return checked
}

export function isRefusal(value: Given | Refusal): value is Refusal {
  return ownMember(value, 'ok') === false
}

const CHECKS: Readonly<Record<string, (value: unknown) => unknown>> = {
  owner: (value) => checkOwner('owner', value),
  createdBy: (value) => checkShownText('createdBy', value, BOUNDS.createdBy.max),
  prefix: (value) => checkPrefix('prefix', value),
  graceMs: (value) => checkBounded('graceMs', value, BOUNDS.graceMs),
  onlyUsed: (value) => ({ ...checkUnusedOptions('onlyUsed', value as UnusedPermissionsOptions) }),
  knownAs: (value) => (value === null ? null : checkShownText('knownAs', value, BOUNDS.createdBy.max)),
  reason: (value) => checkShownText('reason', value, BOUNDS.reason.max),
}

function listOf(names: readonly string[]): string {
  return names.length === 0 ? 'no fields' : `the fields ${names.join(', ')}`
}
