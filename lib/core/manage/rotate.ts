import { LatchkeyError } from '../../errors.ts'
import { checkObject } from '../../internal/options.ts'
import { BOUNDS, checkBounded } from '../keys/bounds.ts'
import { isImported } from '../keys/imported-format.ts'
import { checkKeyId } from '../keys/key-format.ts'
import { checkSettings } from '../keys/key-settings.ts'
import type { KeyChange, KeyStore } from '../keys/key-store.ts'
import { type Permissions, withoutPermissions } from '../keys/permissions.ts'
import { type KeyRecord, keyStatus } from '../keys/record.ts'
import {
  checkUnusedOptions,
  type createUnusedPermissions,
  DEFAULT_DAYS,
  type UnusedPermissionsOptions,
} from '../usage/unused-permissions.ts'
import { DAY_MS } from '../usage/usage-counts.ts'
import {
  afterChange,
  checkBy,
  checkExpectedVersion,
  conflict,
  type KeyChanges,
  notFound,
  otherVersion,
  refuseOtherVersion,
} from './change-keys.ts'
import { insertConfirmed } from './insert-confirmed.ts'
import type { KeyManagement, RotatedKey, RotateOptions } from './key-management.ts'
import type { ManagementParts } from './management-parts.ts'
import type { NewKey } from './new-key.ts'

type UnusedPermissionsAt = ReturnType<typeof createUnusedPermissions>

const DEFAULT_GRACE_MS = 86_400_000

export function createRotate(
  parts: ManagementParts,
  changes: KeyChanges,
  newKey: NewKey,
  unusedPermissions: UnusedPermissionsAt,
): KeyManagement['rotate'] {
  return async function rotate(id: string, options: RotateOptions = {}): Promise<RotatedKey> {
    const at = new Date(parts.clock.now())
    const asked = checkOptions(options, at)
    const old = await changes.findExisting(id)
    refuseUnfit(old, asked, at, parts.idleSlackMs)
    const permissions = asked.onlyUsed
      ? await usedAmong(old, asked.onlyUsed, unusedPermissions, at)
      : old.permissions
    const settings = { ...settingsOf(old, asked, at, parts.prefix), permissions }
    const { key, record } = await newKey(asked.successorId, at, settings)
    await insertConfirmed(parts.store, [record])
    const previous = await endPrevious(parts, changes, old, record, asked, at)
    parts.cache.forgetMissing(record.lookup)
    await parts.publish([previous])
    const apiKey = changes.view(record, at)
    const views = { before: changes.view(old, at), apiKey: changes.view(previous, at) }
    parts.emit({
      type: 'key.rotated',
      at,
      keyId: old.id,
      owner: old.owner,
      by: asked.by,
      ...views,
      successor: apiKey,
    })
    return { key, apiKey, previous: views.apiKey as RotatedKey['previous'] }
  }
}

/** The options of a rotation, checked. */
interface Asked {
  readonly by: string | null
  readonly expectedVersion: number | null
  readonly graceMs: number
  /** When the successor expires; undefined: when its predecessor would have. */
  readonly expiresAt: Date | null | undefined
  readonly successorId: string | null
  readonly onlyUsed: UnusedPermissionsOptions | null
}

function checkOptions(options: RotateOptions, at: Date): Asked {
  checkObject('options', options, [
    'by',
    'expectedVersion',
    'graceMs',
    'expiresAt',
    'successorId',
    'onlyUsed',
  ])
  const { graceMs = DEFAULT_GRACE_MS } = options
  checkBounded('graceMs', graceMs, BOUNDS.graceMs)
  const by = checkBy(options)
  const expectedVersion = checkExpectedVersion(options)
  const { expiresAt } = checkSettings({ expiresAt: options.expiresAt }, at.getTime())
  const successorId =
    options.successorId === undefined ? null : checkKeyId('successorId', options.successorId)
  const onlyUsed = options.onlyUsed === undefined ? null : checkUnusedOptions('onlyUsed', options.onlyUsed)
  return { by, expectedVersion, graceMs, expiresAt, successorId, onlyUsed }
}

/** What calls needed of a key's permissions. @throws LatchkeyError `conflict` if that is not known for long enough */
async function usedAmong(
  old: KeyRecord,
  options: UnusedPermissionsOptions,
  unusedPermissions: UnusedPermissionsAt,
  at: Date,
): Promise<Permissions> {
  // As of the same moment: a clock that has gone on would seem to know too little.
  const found = await unusedPermissions(old.id, options, at.getTime())
  if (!found) throw notFound()
  const from = at.getTime() - (options.days ?? DEFAULT_DAYS) * DAY_MS
  if (found.since.getTime() > Math.max(from, old.createdAt.getTime())) {
    throw conflict(`Uses are known only since ${found.since.toISOString()}`)
  }
  return withoutPermissions(old.permissions, found.unused)
}

function refuseUnfit(
  old: KeyRecord,
  { successorId, expectedVersion }: Asked,
  at: Date,
  idleSlackMs: number,
): void {
  // Whoever asks again, not having heard the answer, is to be told that, whatever has become of the key since.
  if (successorId !== null && old.rotatedTo === successorId) throw new LatchkeyError('duplicate_key')
  refuseOtherVersion(old, expectedVersion)
  refuseUnrotatable(old, at, idleSlackMs)
}

function refuseUnrotatable(record: KeyRecord, at: Date, idleSlackMs: number): void {
  const status = keyStatus(record, at, idleSlackMs)
  if (status === 'revoked' || status === 'expired') throw conflict(`The key is ${status}`)
  if (record.rotatedTo) throw conflict('The key was already rotated')
}

/** What the successor takes over from its predecessor. */
function settingsOf(
  old: KeyRecord,
  { by, expiresAt }: Asked,
  at: Date,
  prefix: string,
): Parameters<NewKey>[2] {
  return {
    ...old,
    // What an imported key begins with need not be a prefix of ours.
    prefix: isImported(old) ? prefix : old.prefix,
    lineageId: old.lineageId,
    createdBy: by ?? old.createdBy,
    createdAt: at,
    updatedAt: at,
    expiresAt: expiresAt === undefined ? old.expiresAt : expiresAt,
    rotatedFrom: old.id,
  }
}

/** Links the previous key to its successor and lets it end with its grace; removes the successor if that fails. */
async function endPrevious(
  { store, clock }: ManagementParts,
  changes: KeyChanges,
  old: KeyRecord,
  successor: KeyRecord,
  { graceMs, expectedVersion }: Asked,
  at: Date,
): Promise<KeyRecord> {
  const graceEnd = at.getTime() + graceMs
  const expiresAt = new Date(Math.min(old.expiresAt?.getTime() ?? Infinity, graceEnd))
  const ended: KeyChange = { rotatedTo: successor.id, expiresAt, updatedAt: at }
  const outcome = await changes.updateSurely(old, ended).catch(async (error) => {
    // One that is made and not confirmed by replicas counts too: its fault was told of, and a key is not left to nobody.
    if (await isLinked(store, changes, old, successor, new Date(clock.now()))) return 'updated' as const
    await withdraw(store, successor, new Date(clock.now())).catch(() => {})
    throw error
  })
  if (outcome === 'updated') return afterChange(old, ended)
  await withdraw(store, successor, new Date(clock.now()))
  if (outcome === 'missing') throw notFound()
  throw expectedVersion === null ? conflict('The key was changed while it was being rotated') : otherVersion()
}

/**
 * Whether the change that links a key to its successor was made, if the store did not say so in time. It may still be
 * on its way: raising the version makes it come too late, since the key would otherwise end without a successor.
 *
 * @throws LatchkeyError `unavailable`: both keys then stay as they are, and the successor's text is lost.
 */
async function isLinked(
  store: KeyStore,
  changes: KeyChanges,
  old: KeyRecord,
  successor: KeyRecord,
  at: Date,
): Promise<boolean> {
  const outcome = await store.update(old.id, old.version, { updatedAt: at })
  if (outcome !== 'conflict') return false
  const now = await changes.findById(old.id)
  return now?.rotatedTo === successor.id
}

/** Removes a successor that lost a race. Its text was never returned, so it is only clutter. */
async function withdraw(store: KeyStore, record: KeyRecord, at: Date): Promise<void> {
  const revokedReason = 'The rotation that made this key lost a race'
  await store.update(record.id, record.version, { revokedAt: at, revokedReason, updatedAt: at })
  await store.purge([record.id], at)
}
