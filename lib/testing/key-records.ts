import type { KeyRecord } from '../core/keys/record.ts'
import { type QuotaRecord, startQuota } from '../core/limits/quota.ts'

/** When the cases begin. */
export const T0 = Date.UTC(2026, 0, 15, 12)

/** So many milliseconds into the cases. */
export const at = (ms: number): Date => new Date(T0 + ms)

/** A quota as it is at first; with `everyMs` it is filled up again so often. */
export function newQuota(remaining: number, everyMs?: number): QuotaRecord {
  return startQuota({ remaining, refill: everyMs ? { amount: remaining, everyMs } : null }, null, at(0))
}

/**
 * Makes a record for tests of a store. The defaults are those of a plain active key, created on 15 January 2026 at noon (UTC), with
 * `id` as its lookup and lineage. Its digest matches no key.
 *
 * @example
 * await store.insert([keyRecord({ id: 'a', owner: { type: 'user', id: 'u_1' } })])
 */
export function keyRecord(given: Partial<KeyRecord> & { readonly id: string }): KeyRecord {
  return {
    lookup: given.id,
    digest: `$sha256$${given.id}`,
    lineageId: given.id,
    name: 'CI',
    prefix: 'acme',
    hint: `acme_${given.id}`,
    owner: { type: 'user', id: 'u_1' },
    createdBy: null,
    permissions: { projects: ['read'] },
    metadata: { team: { name: 'blue' } },
    enabled: true,
    rateLimits: null,
    quota: null,
    allowedIps: ['192.0.2.0/24'],
    createdAt: at(0),
    updatedAt: at(0),
    expiresAt: null,
    idleExpiryMs: null,
    usageCount: 0,
    lastUsedAt: null,
    lastUsedIp: null,
    revokedAt: null,
    revokedBy: null,
    revokedReason: null,
    rotatedFrom: null,
    rotatedTo: null,
    version: 1,
    ...given,
  }
}
