import { LatchkeyError } from '../errors.ts'
import { checkDate, checkInteger, checkObject, checkText } from '../internal/options.ts'
import {
  afterChange,
  type ChangeParts,
  checkBy,
  checkExpectedVersion,
  conflict,
  createKeyChanges,
  type DecidedChange,
  notFound,
  refuseOtherVersion,
} from './change-keys.ts'
import { isForeign } from './foreign-format.ts'
import { createKeyImport, type ImportParts } from './import-keys.ts'
import { insertSurely } from './insert-surely.ts'
import { checkKeyId, checkPrefix, generateKey, newKeyId } from './key-format.ts'
import type {
  ChangeOptions,
  IssuedKey,
  IssueOptions,
  KeyManagement,
  PurgeOptions,
  RevokeAllOptions,
  RevokeCreatedByOptions,
  RevokeOptions,
  RotatedKey,
  RotateOptions,
  UpdateOptions,
} from './key-management.ts'
import { checkSettings, DEFAULT_SETTINGS, type KeySettings, SETTINGS } from './key-settings.ts'
import type { KeyChange, KeyFilter } from './key-store.ts'
import { createKeyListing } from './list-keys.ts'
import { startQuota } from './quota.ts'
import { type ApiKey, checkOwner, type KeyRecord, keyStatus, type Owner, toApiKey } from './record.ts'
import { requireCapabilities } from './store-access.ts'

export interface ManagementParts extends ChangeParts, ImportParts {
  readonly prefix: string
  /** How long a use in another process may go unnoticed here. */
  readonly idleSlackMs: number
  /** Writes the uses that are still in memory. */
  flushUsage(): Promise<void>
  /** Whether uses of a key are still in memory. */
  isInUse(keyId: string): boolean
}

const DEFAULT_GRACE_MS = 86_400_000
const MAX_GRACE_MS = 366 * 86_400_000

export function createKeyManagement(parts: ManagementParts): KeyManagement {
  const { store, digester, cache, publish, clock, guard, emit } = parts
  const { change, changeAll, updateSurely, findById, findExisting, pages, view } = createKeyChanges(parts)

  async function issue(options: IssueOptions): Promise<IssuedKey> {
    checkObject('options', options, ['id', 'owner', 'createdBy', 'prefix', ...SETTINGS])
    const at = new Date(clock.now())
    const owner = checkOwner('owner', options.owner)
    const createdBy = options.createdBy == null ? null : checkText('createdBy', options.createdBy, 255)
    const prefix = options.prefix === undefined ? parts.prefix : checkPrefix('prefix', options.prefix)
    checkText('name', options.name, 255)
    const settings = checkSettings(options, at.getTime())
    requireCapabilities(store, settings)
    const id = options.id === undefined ? null : checkKeyId('id', options.id)
    const { quota, ...rest } = settings
    const { key, record } = await newKey(id, at, {
      ...DEFAULT_SETTINGS,
      ...rest,
      name: options.name,
      prefix,
      owner,
      createdBy,
      quota: quota ? startQuota(quota, null, at) : null,
      createdAt: at,
      updatedAt: at,
    })
    await insertSurely(store, [record])
    appeared(record)
    const apiKey = toApiKey(record)
    emit({ type: 'key.issued', at, keyId: record.id, owner, by: createdBy, before: null, apiKey })
    return { key, apiKey }
  }

  async function get(id: string): Promise<ApiKey | null> {
    const record = await findById(id)
    return record && view(record)
  }

  async function update(
    id: string,
    given: Partial<KeySettings>,
    options: UpdateOptions = {},
  ): Promise<ApiKey> {
    checkObject('settings', given, SETTINGS)
    checkObject('options', options, ['by', 'expectedVersion'])
    const settings = checkSettings(given, clock.now())
    requireCapabilities(store, settings)
    const changed = Object.keys(settings)
    if (changed.length === 0) throw new TypeError('"settings" must name at least one setting to change')
    const apiKey = await change(id, options, (record) => {
      refuseRevoked(record)
      refuseProlonging(record, settings.expiresAt)
      return { change: settings, event: { type: 'key.updated', changed } }
    })
    if (settings.quota !== undefined) {
      // The quota is that of the whole lineage: no relative may go on by what it has of the old one.
      await changeAll({ lineageId: apiKey.lineageId }, {}, () => ({ change: {}, event: null }), new Set([id]))
    }
    return apiKey
  }

  async function setEnabled(id: string, enabled: boolean, options: UpdateOptions = {}): Promise<ApiKey> {
    checkObject('options', options, ['by', 'expectedVersion'])
    return change(id, options, (record) => {
      refuseRevoked(record)
      if (record.enabled === enabled) return null
      return { change: { enabled }, event: { type: enabled ? 'key.enabled' : 'key.disabled' } }
    })
  }

  async function revoke(id: string, options: RevokeOptions = {}): Promise<ApiKey> {
    checkObject('options', options, ['by', 'reason', 'expectedVersion'])
    const revokedReason = checkReason(options)
    return change(id, options, (record, at, by) => {
      if (record.revokedAt) return null
      return { change: { revokedAt: at, revokedBy: by, revokedReason }, event: { type: 'key.revoked' } }
    })
  }

  async function rotate(id: string, options: RotateOptions = {}): Promise<RotatedKey> {
    checkObject('options', options, ['by', 'expectedVersion', 'graceMs', 'expiresAt', 'successorId'])
    const { graceMs = DEFAULT_GRACE_MS } = options
    checkInteger('graceMs', graceMs, 0, MAX_GRACE_MS)
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
      prefix: isForeign(old) ? parts.prefix : old.prefix,
      lineageId: old.lineageId,
      createdBy: by ?? old.createdBy,
      createdAt: at,
      updatedAt: at,
      expiresAt: newExpiry === undefined ? old.expiresAt : newExpiry,
      rotatedFrom: old.id,
    })
    await insertSurely(store, [record])
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
      throw outcome === 'missing' ? notFound() : conflict('The key was changed while it was being rotated')
    }
    const previous = afterChange(old, ended)
    appeared(record)
    await publish([previous])
    const apiKey = view(record)
    const views = { before: view(old), apiKey: view(previous) }
    emit({
      type: 'key.rotated',
      at,
      keyId: old.id,
      owner: old.owner,
      by,
      ...views,
      successor: apiKey,
    })
    return { key, apiKey, previous: views.apiKey }
  }

  /**
   * Whether the change was made that links a key to its successor, where the store did not say so in time. It may still
   * be on its way: raising the version sees to it that it comes too late, since the key would end with no successor.
   *
   * @throws LatchkeyError `unavailable`: then both keys stay as they are, and nobody has the successor's text.
   */
  async function isLinked(old: KeyRecord, successor: KeyRecord): Promise<boolean> {
    const outcome = await store.update(old.id, old.version, { updatedAt: new Date(clock.now()) })
    if (outcome !== 'conflict') return false
    const now = await findById(old.id)
    return now?.rotatedTo === successor.id
  }

  /** Takes back a successor that lost a race. Nobody has its text, so it is only clutter. */
  async function withdraw(record: KeyRecord): Promise<void> {
    const at = new Date(clock.now())
    const revokedReason = 'The rotation that made this key lost a race'
    await store.update(record.id, record.version, { revokedAt: at, revokedReason, updatedAt: at })
    await store.purge([record.id], at)
  }

  async function purge(options: PurgeOptions): Promise<number> {
    checkObject('options', options, ['by', 'endedBefore'])
    const by = checkBy(options)
    const endedBefore = checkDate('endedBefore', options.endedBefore)
    const at = new Date(clock.now())
    // A key that is in use here is not idle, however late its uses are written.
    await parts.flushUsage()
    const idleAt = new Date(at.getTime() - parts.idleSlackMs)
    let count = 0
    // Only what ended by now may go, whatever the caller asked for.
    const filter: KeyFilter = { endedBefore: new Date(Math.min(endedBefore.getTime(), at.getTime())) }
    for await (const records of pages(filter)) {
      // What is not written yet, since that failed, is a use all the same.
      const ids = records.map(({ id }) => id).filter((id) => !parts.isInUse(id))
      if (ids.length > 0) count += await store.purge(ids, idleAt)
    }
    emit({ type: 'keys.purged', at, count, by })
    return count
  }

  async function revokeOwner(owner: Owner, options: RevokeAllOptions = {}): Promise<number> {
    const checked = checkOwner('owner', owner)
    const { count, by } = await revokeAll({ owner: checked }, options)
    emit({ type: 'owner.revoked', at: new Date(clock.now()), owner, count, by })
    return count
  }

  async function revokeCreatedBy(createdBy: string, options: RevokeCreatedByOptions = {}): Promise<number> {
    checkText('createdBy', createdBy, 255)
    checkObject('options', options, ['owner', 'by', 'reason'])
    const { owner: given, ...rest } = options
    const owner = given === undefined ? null : checkOwner('owner', given)
    const { count, by } = await revokeAll({ createdBy, ...(owner && { owner }) }, rest)
    emit({ type: 'creator.revoked', at: new Date(clock.now()), createdBy, owner, count, by })
    return count
  }

  async function revokeAll(
    filter: KeyFilter,
    options: RevokeAllOptions,
  ): Promise<{ readonly count: number; readonly by: string | null }> {
    checkObject('options', options, ['by', 'reason'])
    const revokedReason = checkReason(options)
    const by = checkBy(options)
    const decide = (at: Date): DecidedChange => ({
      change: { revokedAt: at, revokedBy: by, revokedReason },
      event: { type: 'key.revoked' },
    })
    const done = new Set<string>()
    let count = 0
    let before: number
    // Again until there is no other key: a rotation under way may have added a successor behind our back.
    do {
      before = done.size
      count += await changeAll(filter, options, decide, done)
    } while (done.size > before)
    return { count, by }
  }

  async function invalidateOwner(owner: Owner, options: ChangeOptions = {}): Promise<number> {
    const checked = checkOwner('owner', owner)
    checkObject('options', options, ['by'])
    const by = checkBy(options)
    const count = await changeAll({ owner: checked }, options, () => ({ change: {}, event: null }))
    emit({ type: 'owner.invalidated', at: new Date(clock.now()), owner, count, by })
    return count
  }

  /** `id` is one that was asked for: a key that was purged may have had it, and nothing of that one is to be inherited. */
  async function newKey(
    id: string | null,
    at: Date,
    settings: Omit<KeyRecord, OwnMember> & { lineageId?: string; rotatedFrom?: string | null },
  ): Promise<{ key: string; record: KeyRecord }> {
    const { key, keyId, prefix } = generateKey(settings.prefix, id ?? newKeyId())
    const record: KeyRecord = {
      ...settings,
      id: keyId,
      lookup: keyId,
      digest: await guard.run('digest', () => digester.create(key)),
      lineageId: settings.lineageId ?? (id === null ? keyId : newKeyId()),
      hint: `${prefix}_${keyId}`,
      usageCount: 0,
      lastUsedAt: null,
      lastUsedIp: null,
      revokedAt: null,
      revokedBy: null,
      revokedReason: null,
      rotatedFrom: settings.rotatedFrom ?? null,
      rotatedTo: null,
      // Higher than any that a key of this id has had.
      version: id === null ? 1 : Math.max(1, at.getTime()),
    }
    return { key, record }
  }

  /** Forgets here that there was no such key, or another one. */
  function appeared({ id, lookup, version }: KeyRecord): void {
    cache.appeared(lookup)
    if (version > 1) cache.changed(id, version)
  }

  return {
    issue,
    ...createKeyImport(parts),
    get,
    list: createKeyListing({ ...parts, view }),
    update,
    enable: (id, options) => setEnabled(id, true, options),
    disable: (id, options) => setEnabled(id, false, options),
    revoke,
    rotate,
    purge,
    revokeOwner,
    revokeCreatedBy,
    invalidateOwner,
  }
}

/** The members of a record that every new key has of its own. */
type OwnMember =
  | 'id'
  | 'lookup'
  | 'digest'
  | 'lineageId'
  | 'hint'
  | 'usageCount'
  | 'lastUsedAt'
  | 'lastUsedIp'
  | 'revokedAt'
  | 'revokedBy'
  | 'revokedReason'
  | 'rotatedFrom'
  | 'rotatedTo'
  | 'version'

function refuseRevoked(record: KeyRecord): void {
  if (record.revokedAt) throw conflict('The key is revoked')
}

/** A key that was replaced ends when its grace does: to cut it over must be final. */
function refuseProlonging({ rotatedTo, expiresAt }: KeyRecord, next: Date | null | undefined): void {
  if (!rotatedTo || next === undefined) return
  if (next === null || (expiresAt && next > expiresAt)) {
    throw conflict('The key was rotated: it cannot be made to last longer')
  }
}

function refuseUnrotatable(record: KeyRecord, at: Date, idleSlackMs: number): void {
  const status = keyStatus(record, at, idleSlackMs)
  if (status === 'revoked' || status === 'expired') throw conflict(`The key is ${status}`)
  if (record.rotatedTo) throw conflict('The key was rotated already')
}

function checkReason(options: RevokeAllOptions): string | null {
  return options.reason === undefined ? null : checkText('reason', options.reason, 1_000)
}
