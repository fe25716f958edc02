import type { OpenStore } from '../open-store.ts'
import { type Finding, findings } from './finding.ts'

type Command = NonNullable<OpenStore['command']>

/** What INFO says, by its names. */
export type RedisInfo = Readonly<Record<string, string>>

export async function readInfo(command: Command): Promise<RedisInfo> {
  const text = String(await command('INFO'))
  return Object.fromEntries(
    text
      .split(/\r?\n/)
      .filter((line) => /^\w+:/.test(line))
      .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]),
  )
}

/** Judges a server of Redis that keeps keys, or counts. */
export function checkRedisServer(use: 'store' | 'limiter', info: RedisInfo): readonly Finding[] {
  const found = [checkVersion(info), checkEviction(use, info), checkRole(info)]
  return use === 'store' ? [...found, checkPersistence(info)] : found
}

function checkVersion({ redis_version: version = '' }: RedisInfo): Finding {
  const redis = findings('Redis version')
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (version === '') return redis.unknown('the server does not say')
  const isOld = major < 6 || (major === 6 && minor < 2)
  return isOld ? redis.problem(`${version}: 6.2 or later is needed`) : redis.ok(version)
}

function checkEviction(use: 'store' | 'limiter', info: RedisInfo): Finding {
  const eviction = findings('maxmemory-policy')
  const policy = info.maxmemory_policy
  if (policy === undefined) return eviction.unknown('the server does not say')
  if (policy === 'noeviction') return eviction.ok(policy)
  const loss =
    use === 'store'
      ? 'an evicted entry is a key that stops working, or a lost revocation'
      : 'Redis forgets counts and key versions that it evicts'
  const isFull = Number(info.maxmemory ?? 0) > 0
  const advice = `${policy}: ${loss}. Set noeviction`
  return isFull ? eviction.problem(advice) : eviction.warning(`${advice} before you set maxmemory`)
}

function checkRole({ role }: RedisInfo): Finding {
  const redis = findings('Redis role')
  if (role === undefined) return redis.unknown('the server does not say')
  return role === 'master'
    ? redis.ok('primary')
    : redis.problem(`${role}: it takes no writes. Name the primary`)
}

function checkPersistence({ aof_enabled: appendOnly }: RedisInfo): Finding {
  const persistence = findings('appendonly')
  if (appendOnly === undefined) return persistence.unknown('the server does not say')
  if (appendOnly === '1') return persistence.ok('on')
  return persistence.problem('off: a restart of Redis loses keys and revocations. Set appendonly yes')
}
