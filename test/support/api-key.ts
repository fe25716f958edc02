import type { ApiKey } from 'latchkey'

const DAY_MS = 86_400_000

/** A key of user u_1, without permissions, made ten days before `now`, that never expires. What is given replaces that. */
export function apiKeyAt(now: number, members: Partial<ApiKey> = {}): ApiKey {
  const madeAt = new Date(now - 10 * DAY_MS)
  return Object.freeze({
    id: 'K0000000000000001',
    lineageId: 'K0000000000000001',
    name: 'CI',
    prefix: 'acme',
    hint: 'acme_K000',
    owner: { type: 'user', id: 'u_1' },
    createdBy: 'u_1',
    permissions: {},
    metadata: {},
    enabled: true,
    rateLimits: null,
    quota: null,
    allowedIps: null,
    createdAt: madeAt,
    updatedAt: madeAt,
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
    status: 'active',
    ...members,
  })
}
