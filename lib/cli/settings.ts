import type { Command } from 'commander'
import type { KeySettings } from '../core/keys/key-settings.ts'
import {
  collect,
  parseAllowedIps,
  parseDuration,
  parseEnd,
  parseJson,
  parsePermissions,
  parseQuota,
  parseRateLimits,
} from './parse-values.ts'

/** The options that set something on a key, as they are written. */
export interface SettingOptions {
  readonly name?: string
  readonly permissions?: readonly string[]
  readonly rateLimit?: readonly string[]
  readonly quota?: string
  readonly allowIp?: readonly string[]
  readonly expires?: string
  readonly idleExpiry?: string
  readonly metadata?: string
}

export function addSettings(command: Command): Command {
  return command
    .option(
      '--permissions <resource:actions>',
      'what the key may do, such as projects:read,write; none (repeat)',
      collect,
    )
    .option('--rate-limit <limit>', 'minute=100/1m, daily=1000/day, or JSON; none; default (repeat)', collect)
    .option('--quota <units>', '1000, 1000/month, or JSON; unlimited')
    .option('--allow-ip <cidr>', 'an address or block the key may be used from; any (repeat)', collect)
    .option('--expires <when>', '90d, 2027-01-31, 2027-01-31T18:00Z; never')
    .option('--idle-expiry <duration>', 'expire after this long without use, such as 30d; never')
    .option('--metadata <json>', 'your data, as JSON')
}

/** The settings that are given. @throws CliError */
export function readSettings(options: SettingOptions, now: number): Partial<KeySettings> {
  const { name, permissions, rateLimit, quota, allowIp, expires, idleExpiry, metadata } = options
  return {
    ...(name !== undefined && { name }),
    ...(permissions && { permissions: parsePermissions('--permissions', permissions) }),
    ...(rateLimit && { rateLimits: parseRateLimits('--rate-limit', rateLimit) }),
    ...(quota !== undefined && { quota: parseQuota('--quota', quota) }),
    ...(allowIp && { allowedIps: parseAllowedIps(allowIp) }),
    ...(expires !== undefined && { expiresAt: parseEnd('--expires', expires, now) }),
    ...(idleExpiry !== undefined && {
      idleExpiryMs: idleExpiry === 'never' ? null : parseDuration('--idle-expiry', idleExpiry),
    }),
    ...(metadata !== undefined && { metadata: parseJson('--metadata', metadata) as KeySettings['metadata'] }),
  }
}
