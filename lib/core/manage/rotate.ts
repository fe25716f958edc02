import { LatchkeyError } from '../../errors.ts'
import { checkObject } from '../../internal/options.ts'
import { BOUNDS, checkBounded } from '../keys/bounds.ts'
import { isImported } from '../keys/imported-format.ts'
import { checkKeyId } from '../keys/key-format.ts'
import { checkSettings } from '../keys/key-settings.ts'
import type { KeyChange } from '../keys/key-store.ts'
import { type KeyRecord, keyStatus } from '../keys/record.ts'
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

const DEFAULT_GRACE_MS = 86_400_000

export function createRotate(
  parts: ManagementParts,
  { updateSurely, findById, findExisting, view }: KeyChanges,
  newKey: NewKey,
): KeyManagement['rotate'] {
  const { store, cache, publish, clock, emit } = parts

  async function rotate(id: string, options: RotateOptions = {}): Promise<RotatedKey> {
    checkObject('options', options, ['by', 'expectedVersion', 'graceMs', 'expiresAt', 'successorId'])
    const { graceMs = DEFAULT_GRACE_MS } = options
    checkBounded('graceMs', graceMs, BOUNDS.graceMs)
    const by = checkBy(options)
    const expectedVersion = checkExpectedVersion(options)
    const at = new Date(clock.now())
    const { expiresAt: newExpiry } = checkSettings({ expiresAt: options.expiresAt }, at.getTime())
    const successorId =
      options.successorId === undefined ? null : checkKeyId('successorId', options.successorId)
    const old = await findExisting(id)
    // Whoever asks again, not having heard the answer, is to be told that, whatever has become of the key since.
    if (successorId !== null && old.rotatedTo === successorId) throw new LatchkeyError('duplicate_key')
    refuseOtherVersion(old, expectedVersion)
    refuseUnrotatable(old, at, parts.idleSlackMs)
    const { key, record } = await newKey(successorId, at, {
      ...old,
      // What an imported key begins with need not be a prefix of ours.
      prefix: isImported(old) ? parts.prefix : old.prefix,
      lineageId: old.lineageId,
      createdBy: by ?? old.createdBy,
      createdAt: at,
      updatedAt: at,
      expiresAt: newExpiry === undefined ? old.expiresAt : newExpiry,
      rotatedFrom: old.id,
    })
    await insertConfirmed(store, [record])
    const graceEnd = at.getTime() + graceMs
    const expiresAt = new Date(Math.min(old.expiresAt?.getTime() ?? Infinity, graceEnd))
    const ended: KeyChange = { rotatedTo: record.id, expiresAt, updatedAt: at }
    const outcome = await updateSurely(old, ended).catch(async (error) => {
      // One that is made and not confirmed by replicas counts too: its fault was told of, and a key is not left to nobody.
      if (await isLinked(old, record)) return 'updated' as const
      await withdraw(record).catch(() => {})
      throw error
    })
    if (outcome !== 'updated') {
      await withdraw(record)
      if (outcome === 'missing') throw notFound()
      throw expectedVersion === null
        ? conflict('The key was changed while it was being rotated')
        : otherVersion()
    }
    const previous = afterChange(old, ended)
    cache.forgetMissing(record.lookup)
    await publish([previous])
    const apiKey = view(record, at)
    const views = { before: view(old, at), apiKey: view(previous, at) }
    emit({
      type: 'key.rotated',
      at,
      keyId: old.id,
      owner: old.owner,
      by,
      ...views,
      successor: apiKey,
    })
    return { key, apiKey, previous: views.apiKey as RotatedKey['previous'] }
  }

  /**
   * Whether the change that links a key to its successor was made, if the store did not say so in time. It may still be
   * on its way: raising the version makes it come too late, since the key would otherwise end without a successor.
   *
   * @throws LatchkeyError `unavailable`: both keys then stay as they are, and the successor's text is lost.
   */
  async function isLinked(old: KeyRecord, successor: KeyRecord): Promise<boolean> {
    const outcome = await store.update(old.id, old.version, { updatedAt: new Date(clock.now()) })
    if (outcome !== 'conflict') return false
    const now = await findById(old.id)
    return now?.rotatedTo === successor.id
  }

  /** Removes a successor that lost a race. Its text was never returned, so it is only clutter. */
  async function withdraw(record: KeyRecord): Promise<void> {
    const at = new Date(clock.now())
    const revokedReason = 'The rotation that made this key lost a race'
    await store.update(record.id, record.version, { revokedAt: at, revokedReason, updatedAt: at })
    await store.purge([record.id], at)
  }

  return rotate
}

function refuseUnrotatable(record: KeyRecord, at: Date, idleSlackMs: number): void {
  const status = keyStatus(record, at, idleSlackMs)
  if (status === 'revoked' || status === 'expired') throw conflict(`The key is ${status}`)
  if (record.rotatedTo) throw conflict('The key was already rotated')
}
