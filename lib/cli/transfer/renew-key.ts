import type { Forgetting, KeyChange, KeyStore, UsageDelta } from '../../core/keys/key-store.ts'
import type { KeyRecord } from '../../core/keys/record.ts'
import { isLaterQuota } from '../../core/limits/quota.ts'
import { isSameData } from '../../internal/plain-data.ts'

/**
 * How a stored key compares with the one to copy.
 *
 * - `same`: nothing to do
 * - `renewed`: the stored key was older, and is now the same
 * - `older`: the stored key is older, and was left alone
 * - `newer`: the stored key was changed since, and was left alone
 * - `different`: another key has its id or its lookup, or both were changed
 */
export type Outcome = 'same' | 'renewed' | 'older' | 'newer' | 'different'

/** What an administrator changes, and what `update` writes. */
const CHANGED = [
  'name',
  'permissions',
  'metadata',
  'enabled',
  'rateLimits',
  'allowedIps',
  'expiresAt',
  'idleExpiryMs',
  'revokedAt',
  'revokedBy',
  'revokedReason',
  'rotatedTo',
] as const
/** What never changes, or only by an erasure. */
const FIXED = ['id', 'lookup', 'lineageId', 'prefix', 'owner', 'createdAt', 'rotatedFrom'] as const

/** Compares by identity and version. It writes nothing. */
export function compareKeys(stored: KeyRecord, wanted: KeyRecord): Exclude<Outcome, 'renewed'> {
  if (FIXED.some((member) => !isSameData(stored[member], wanted[member]))) return 'different'
  if (stored.version > wanted.version) return 'newer'
  if (stored.version < wanted.version) return 'older'
  const isChanged = [...CHANGED, 'createdBy' as const].some(
    (member) => !isSameData(stored[member], wanted[member]),
  )
  // A digest may have been made anew under another scheme or pepper, which is no change of the key.
  return isChanged ? 'different' : 'same'
}

/**
 * Makes a stored key what it is in the store that it is copied from, with the same version: servers that count in one Redis refuse a
 * lower one. Uses that are missing are added to `usage`, to be written together.
 */
export async function renewKey(
  target: KeyStore,
  stored: KeyRecord,
  wanted: KeyRecord,
  usage: UsageDelta[],
): Promise<Outcome> {
  const compared = compareKeys(stored, wanted)
  if (compared !== 'older' && compared !== 'same') return compared
  if (compared === 'older' && !(await raise(target, stored, wanted))) return 'different'
  const missing = missingUses(stored, wanted)
  if (missing) usage.push(missing)
  const isRenewed = (await renewRest(target, stored, wanted)) || missing !== null
  return compared === 'older' || isRenewed ? 'renewed' : 'same'
}

/** Brings the settings and the version up to date; false if they cannot be, or somebody else changes the key. */
async function raise(target: KeyStore, stored: KeyRecord, wanted: KeyRecord): Promise<boolean> {
  if (stored.revokedAt && !wanted.revokedAt) return false
  let { version } = stored
  const forgetting = forgettingOf(stored, wanted)
  if (forgetting) {
    if ((await target.forget?.(stored.id, version, forgetting)) !== 'updated') return false
    version += 1
  } else if (stored.createdBy !== wanted.createdBy) return false
  let change: KeyChange = changeOf(stored, wanted)
  while (version < wanted.version) {
    if ((await target.update(stored.id, version, change)) !== 'updated') return false
    version += 1
    change = { updatedAt: wanted.updatedAt }
  }
  return true
}

/** What an erasure has cleared since; null for nothing. */
function forgettingOf(stored: KeyRecord, wanted: KeyRecord): Forgetting | null {
  const isGone = (member: 'createdBy' | 'revokedBy' | 'lastUsedIp') =>
    stored[member] !== null && wanted[member] === null
  if (!isGone('createdBy') && !isGone('revokedBy')) return null
  return {
    updatedAt: wanted.updatedAt,
    ...(isGone('createdBy') && { createdBy: null }),
    ...(isGone('revokedBy') && { revokedBy: null }),
    ...(isGone('lastUsedIp') && { lastUsedIp: null }),
  }
}

function changeOf(stored: KeyRecord, wanted: KeyRecord): KeyChange {
  const differing = CHANGED.filter((member) => !isSameData(stored[member], wanted[member]))
  const change = Object.fromEntries(differing.map((member) => [member, wanted[member]]))
  return { ...change, ...quotaChange(stored, wanted), updatedAt: wanted.updatedAt }
}

/** A quota that was given or taken away. One that has changed is swapped, with its epoch. */
function quotaChange({ quota: stored }: KeyRecord, { quota: wanted }: KeyRecord): Pick<KeyChange, 'quota'> {
  if ((stored === null) === (wanted === null)) return {}
  return { quota: wanted && { remaining: wanted.remaining, refill: wanted.refill } }
}

function missingUses(
  stored: KeyRecord,
  { id, usageCount, lastUsedAt, lastUsedIp }: KeyRecord,
): UsageDelta | null {
  const count = usageCount - stored.usageCount
  return count > 0 && lastUsedAt ? { id, count, lastUsedAt, lastUsedIp } : null
}

/** What changes without a new version: the quota and the digest. */
async function renewRest(target: KeyStore, stored: KeyRecord, wanted: KeyRecord): Promise<boolean> {
  let isRenewed = false
  const { id, quota } = stored
  if (quota && wanted.quota && isLaterQuota(wanted.quota, quota)) {
    isRenewed = (await target.swapQuota?.(wanted.lineageId, quota, wanted.quota))?.swapped === true
  }
  if (stored.digest !== wanted.digest) {
    isRenewed = (await target.replaceDigest(id, stored.digest, wanted.digest)) || isRenewed
  }
  return isRenewed
}
