import type { ApiKey } from '../core/keys/record.ts'
import type { LimitState, RateLimit } from '../core/limits/rate-limit.ts'
import type { Output, Style } from './output.ts'
import { type Column, renderCard, renderTable } from './table.ts'

/** A key with everything that people may see of it. */
export function keyCard(output: Output, apiKey: ApiKey): string {
  return renderCard(
    membersOf(apiKey).filter((member): member is [string, string] => member[1] !== null),
    (name) => output.paint('bold', name),
  )
}

function membersOf(apiKey: ApiKey): (readonly [string, string | null])[] {
  const { owner, quota, revokedAt, metadata } = apiKey
  return [
    ['id', apiKey.id],
    ['name', apiKey.name],
    ['owner', `${owner.type}:${owner.id}`],
    ['status', apiKey.status],
    ['begins with', apiKey.hint || null],
    ['permissions', describePermissions(apiKey)],
    ['rate limits', apiKey.rateLimits && (apiKey.rateLimits.map(describeLimit).join('; ') || 'none')],
    ['quota', quota && describeQuota(quota.remaining, quota.nextRefillAt)],
    ['allowed from', apiKey.allowedIps && (apiKey.allowedIps.join(', ') || 'nowhere')],
    ['expires', apiKey.expiresAt && formatMoment(apiKey.expiresAt)],
    [
      'idle expiry',
      apiKey.idleExpiryMs === null ? null : `after ${formatDuration(apiKey.idleExpiryMs)} without use`,
    ],
    ['created', formatMoment(apiKey.createdAt) + by(apiKey.createdBy)],
    ['last used', apiKey.lastUsedAt && describeUse(apiKey)],
    ['revoked', revokedAt && formatMoment(revokedAt) + by(apiKey.revokedBy)],
    ['reason', apiKey.revokedReason],
    ['replaces', apiKey.rotatedFrom],
    ['replaced by', apiKey.rotatedTo],
    ['metadata', Object.keys(metadata).length > 0 ? JSON.stringify(metadata) : null],
    ['version', String(apiKey.version)],
  ]
}

const by = (who: string | null) => (who === null ? '' : ` by ${who}`)

function describeUse({ lastUsedAt, lastUsedIp, usageCount }: ApiKey): string {
  const times = `${usageCount} ${usageCount === 1 ? 'use' : 'uses'}`
  return `${formatMoment(lastUsedAt as Date)}${lastUsedIp === null ? '' : ` from ${lastUsedIp}`}, ${times}`
}

function describePermissions({ permissions }: ApiKey): string {
  const resources = Object.entries(permissions).map(
    ([resource, actions]) => `${resource}: ${actions.join(', ')}`,
  )
  return resources.join('; ') || 'none'
}

function describeLimit(limit: RateLimit): string {
  if (limit.concurrent !== undefined) return `${limit.name}: ${limit.concurrent} at once`
  const span =
    limit.per === undefined ? formatDuration(limit.windowMs) : `${limit.per} (${limit.timeZone ?? 'UTC'})`
  return `${limit.name}: ${limit.limit} per ${span}`
}

function describeQuota(remaining: number, nextRefillAt: Date | null): string {
  return `${remaining} left${nextRefillAt ? `, refilled ${formatMoment(nextRefillAt)}` : ''}`
}

/** How limits stand. */
export function limitsTable(output: Output, limits: readonly LimitState[]): string {
  const columns: Column[] = [
    { title: 'LIMIT' },
    { title: 'LEFT', align: 'right' },
    { title: 'OF', align: 'right' },
    { title: 'MORE IN', align: 'right' },
  ]
  const rows = limits.map(({ name, remaining, limit, resetMs }) => [
    name,
    String(remaining),
    limit === null ? '' : String(limit),
    resetMs === null ? '' : formatDuration(resetMs),
  ])
  return renderTable(columns, rows, styleOf(output))
}

const STATUS_STYLES: Readonly<Record<string, Style>> = {
  active: 'green',
  disabled: 'yellow',
  expired: 'dim',
  revoked: 'red',
}

/** Keys, one a line. */
export function keysTable(output: Output, apiKeys: readonly ApiKey[]): string {
  const columns: Column[] = [
    { title: 'ID' },
    { title: 'NAME', mayShrink: true },
    { title: 'OWNER', mayShrink: true },
    { title: 'STATUS', paint: (status) => output.paint(STATUS_STYLES[status] ?? 'dim', status) },
    { title: 'CREATED' },
    { title: 'EXPIRES' },
    { title: 'LAST USED' },
  ]
  const rows = apiKeys.map(({ id, name, owner, status, createdAt, expiresAt, lastUsedAt }) => [
    id,
    name,
    `${owner.type}:${owner.id}`,
    status,
    formatMoment(createdAt),
    expiresAt ? formatMoment(expiresAt) : 'never',
    lastUsedAt ? formatMoment(lastUsedAt) : 'never',
  ])
  return renderTable(columns, rows, styleOf(output))
}

export function styleOf(output: Output) {
  return { width: output.width, paintTitle: (title: string) => output.paint('bold', title) }
}

/** `2026-11-30 18:30Z`: the minute, in UTC. */
export function formatMoment(date: Date): string {
  return `${date.toISOString().slice(0, 16).replace('T', ' ')}Z`
}

const SPANS: readonly (readonly [string, number])[] = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['min', 60_000],
  ['s', 1_000],
]

/** `90 d`, `24 h`, `1.5 min`: in the largest unit that it reaches. */
export function formatDuration(ms: number): string {
  const [unit, size] = SPANS.find(([, least]) => ms >= least) ?? ['ms', 1]
  return `${Math.round((ms / size) * 10) / 10} ${unit}`
}
