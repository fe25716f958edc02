import { LatchkeyError } from '../../errors.ts'
import { OptionError } from '../../internal/option-error.ts'
import { checkArray, checkDate, checkObject, checkShownText, fail } from '../../internal/options.ts'
import { BOUNDS, checkBounded } from '../keys/bounds.ts'
import { beginWithGivenId } from '../keys/given-id.ts'
import { isImported } from '../keys/imported-format.ts'
import { checkKeyId, checkPrefix, generateKey, newKeyId } from '../keys/key-format.ts'
import { checkSettings, DEFAULT_SETTINGS, type KeySettings, SETTINGS } from '../keys/key-settings.ts'
import type { KeyChange, KeyFilter } from '../keys/key-store.ts'
import {
  type ApiKey,
  checkOwner,
  endedAt,
  type KeyRecord,
  keyStatus,
  type Owner,
  toApiKey,
} from '../keys/record.ts'
import { startQuota } from '../limits/quota.ts'
import { requireCapabilities } from '../store-access.ts'
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
import { createOwnerErasure } from './erase.ts'
import { createKeyImport, type ImportParts } from './import-keys.ts'
import { insertConfirmed } from './insert-confirmed.ts'
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
import { createKeyListing } from './list.ts'

export interface ManagementParts extends ChangeParts, ImportParts {
  readonly prefix: string
  /** How long a use in another process may go unnoticed here. */
  readonly idleSlackMs: number
  /** Writes the uses that are still in memory; false where some could not be written. */
  flushUsage(): Promise<boolean>
  /** Whether uses of a key are still in memory. */
  isInUse(keyId: string): boolean
}

const DEFAULT_GRACE_MS = 86_400_000
const MAX_PURGED_IDS = 10_000
/** How many keys are looked up at once. */
const LOOK_UPS = 50

/** What of the keys that have ended is to be purged. */
type EndedFilter = Pick<KeyFilter, 'owner'> & { readonly endedBefore: Date }

export function createKeyManagement(parts: ManagementParts): Omit<KeyManagement, 'acceptConfiguration'> {
  const { store, digester, cache, publish, clock, guard, emit } = parts
  const { change, changeAll, updateSurely, findById, findExisting, pages, view } = createKeyChanges(parts)

  async function issue(options: IssueOptions): Promise<IssuedKey> {
    checkObject('options', options, ['id', 'owner', 'createdBy', 'prefix', ...SETTINGS])
    const at = new Date(clock.now())
    const owner = checkOwner('owner', options.owner)
    const createdBy =
      options.createdBy == null ? null : checkShownText('createdBy', options.createdBy, BOUNDS.createdBy.max)
    const prefix = options.prefix === undefined ? parts.prefix : checkPrefix('prefix', options.prefix)
    checkShownText('name', options.name, BOUNDS.name.max)
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
    await insertConfirmed(store, [record])
    cache.forgetMissing(record.lookup)
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
    if (changed.length === 0) throw new OptionError('settings', 'name at least one setting to change')
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
      throw outcome === 'missing' ? notFound() : conflict('The key was changed while it was being rotated')
    }
    const previous = afterChange(old, ended)
    cache.forgetMissing(record.lookup)
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
    checkObject('options', options, ['by', 'endedBefore', 'owner', 'ids'])
    const by = checkBy(options)
    const at = new Date(clock.now())
    const { ids, filter } = checkPurge(options, at)
    // A key that is in use here is not idle, however late its uses are written.
    await parts.flushUsage()
    const idleAt = new Date(at.getTime() - parts.idleSlackMs)
    let count = 0
    for await (const records of ids === null ? pages(filter) : endedAmong(ids, filter)) {
      // What is not written yet, since that failed, is a use all the same.
      const ended = records.filter(({ id, revokedAt }) => revokedAt !== null || !parts.isInUse(id))
      const endedIds = ended.map(({ id }) => id)
      if (endedIds.length > 0) count += await store.purge(endedIds, idleAt)
    }
    emit({ type: 'keys.purged', at, count, by })
    return count
  }

  /** The records with these ids, some at a time, for which the filter holds. */
  async function* endedAmong(
    ids: readonly string[],
    { owner, endedBefore }: EndedFilter,
  ): AsyncGenerator<KeyRecord[]> {
    for (let from = 0; from < ids.length; from += LOOK_UPS) {
      const found = await Promise.all(ids.slice(from, from + LOOK_UPS).map((id) => findById(id)))
      yield found.filter((record) => {
        if (!record || endedAt(record) >= endedBefore.getTime()) return false
        return !owner || (record.owner.type === owner.type && record.owner.id === owner.id)
      }) as KeyRecord[]
    }
  }

  async function revokeOwner(owner: Owner, options: RevokeAllOptions = {}): Promise<number> {
    const checked = checkOwner('owner', owner)
    const { count, by } = await revokeAll({ owner: checked }, options)
    emit({ type: 'owner.revoked', at: new Date(clock.now()), owner, count, by })
    return count
  }

  async function revokeCreatedBy(createdBy: string, options: RevokeCreatedByOptions = {}): Promise<number> {
    checkShownText('createdBy', createdBy, BOUNDS.createdBy.max)
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
    event: DecidedChange['event'] = { type: 'key.revoked' },
  ): Promise<{ readonly count: number; readonly by: string | null }> {
    checkObject('options', options, ['by', 'reason'])
    const revokedReason = checkReason(options)
    const by = checkBy(options)
    const decide = (at: Date): DecidedChange => ({
      change: { revokedAt: at, revokedBy: by, revokedReason },
      event,
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

  async function revokeSilently(owner: Owner, by: string | null): Promise<void> {
    await revokeAll({ owner }, by === null ? {} : { by }, null)
  }

  async function invalidateOwner(owner: Owner, options: ChangeOptions = {}): Promise<number> {
    const checked = checkOwner('owner', owner)
    checkObject('options', options, ['by'])
    const by = checkBy(options)
    const count = await changeAll({ owner: checked }, options, () => ({ change: {}, event: null }))
    emit({ type: 'owner.invalidated', at: new Date(clock.now()), owner, count, by })
    return count
  }

  /** `id` is one that was asked for. A successor stays in its lineage. */
  async function newKey(
    id: string | null,
    at: Date,
    settings: Omit<KeyRecord, OwnMember> & { lineageId?: string; rotatedFrom?: string | null },
  ): Promise<{ key: string; record: KeyRecord }> {
    const { key, keyId, prefix } = generateKey(settings.prefix, id ?? newKeyId())
    const begin = id === null ? { lineageId: keyId, version: 1 } : beginWithGivenId(id, at, cache)
    const record: KeyRecord = {
      ...settings,
      id: keyId,
      lookup: keyId,
      digest: await guard.run('digest', () => digester.create(key), ['unavailable']),
      lineageId: settings.lineageId ?? begin.lineageId,
      hint: `${prefix}_${keyId}`,
      usageCount: 0,
      lastUsedAt: null,
      lastUsedIp: null,
      revokedAt: null,
      revokedBy: null,
      revokedReason: null,
      rotatedFrom: settings.rotatedFrom ?? null,
      rotatedTo: null,
      version: begin.version,
    }
    return { key, record }
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
    erase: createOwnerErasure({ ...parts, revokeSilently }, { findById, pages }),
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

/** Only what has ended by now may go, whatever is asked for. */
function checkPurge(
  { endedBefore, owner, ids }: PurgeOptions,
  at: Date,
): { readonly ids: readonly string[] | null; readonly filter: EndedFilter } {
  if (endedBefore === undefined && owner === undefined && ids === undefined) {
    throw new OptionError('options', 'have "endedBefore", "owner" or "ids"')
  }
  const asked = endedBefore === undefined ? Infinity : checkDate('endedBefore', endedBefore).getTime()
  return {
    ids: ids === undefined ? null : [...new Set(checkArray('ids', ids, MAX_PURGED_IDS).map(checkId))],
    filter: {
      endedBefore: new Date(Math.min(asked, at.getTime() + 1)),
      ...(owner !== undefined && { owner: checkOwner('owner', owner) }),
    },
  }
}

function checkId(value: unknown): string {
  return typeof value === 'string' ? value : fail('ids', 'an array of strings', value)
}

function checkReason(options: RevokeAllOptions): string | null {
  return options.reason === undefined ? null : checkShownText('reason', options.reason, BOUNDS.reason.max)
}
