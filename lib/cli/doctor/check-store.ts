import { isLatchkeyError } from '../../errors.ts'
import { missingMigrations } from '../../stores/sql/sql-store.ts'
import { describeError, firstLine } from '../describe-error.ts'
import type { OpenStore } from '../open-store.ts'
import { clockFinding } from './check-clock.ts'
import { checkRedisServer, readInfo } from './check-redis.ts'
import { type Finding, findings } from './finding.ts'

const reach = findings('store')
const tables = findings('tables')
const writes = findings('writes')

/** Whether the store answers, is complete, takes writes, and agrees on the time. */
export async function checkStore(opened: OpenStore): Promise<readonly Finding[]> {
  const reached = await checkReach(opened)
  // Everything else would only say so again.
  if (reached.result !== 'ok') return [reached]
  return [reached, ...(await checkTables(opened)), ...(await checkServer(opened))]
}

async function checkReach({ store, shown }: OpenStore): Promise<Finding> {
  try {
    await store.find({ id: 'latchkey-doctor' })
    return reach.ok(shown)
  } catch (error) {
    const { cause } = error as { cause?: unknown }
    // What is missing, the next check says.
    if (isLatchkeyError(cause) && cause.code === 'not_migrated') return reach.ok(shown)
    return reach.problem(`${describeError(error).message} (${shown})`)
  }
}

async function checkTables({ raw, kind }: OpenStore): Promise<readonly Finding[]> {
  if (kind === 'redis') return []
  try {
    const missing = await missingMigrations(raw)
    if (missing === undefined) return kind === 'given' ? [] : [tables.unknown('this store has no migrations')]
    if (missing === null)
      return [tables.problem('there are no tables of keys, or this role may not see them: latchkey migrate')]
    if (missing.length > 0)
      return [
        tables.problem(
          `${missing.join(', ')} ${missing.length > 1 ? 'are' : 'is'} missing: latchkey migrate`,
        ),
      ]
    return [tables.ok('up to date')]
  } catch (error) {
    return [tables.problem(firstLine(error))]
  }
}

async function checkServer({ kind, query, command }: OpenStore): Promise<readonly Finding[]> {
  try {
    if (kind === 'postgres' && query) return await checkPostgres(query)
    if (kind === 'mysql' && query) return await checkMysql(query)
    if (kind === 'redis' && command) {
      return [...checkRedisServer('store', await readInfo(command)), ...(await redisClock(command))]
    }
    return []
  } catch (error) {
    return [writes.unknown(`the server does not say: ${firstLine(error)}`)]
  }
}

type Query = NonNullable<OpenStore['query']>

async function checkPostgres(query: Query): Promise<readonly Finding[]> {
  const { replica } = await query('select pg_is_in_recovery() as replica')
  return [
    replica === true ? replicaFinding() : writes.ok('this is a primary'),
    await clockFinding('store', async () =>
      Number((await query('select extract(epoch from clock_timestamp()) * 1000 as now')).now),
    ),
  ]
}

async function checkMysql(query: Query): Promise<readonly Finding[]> {
  const { replica } = await query('select @@global.read_only as replica')
  return [
    Number(replica) === 1 ? replicaFinding() : writes.ok('this server takes writes'),
    await clockFinding('store', async () =>
      Number((await query('select unix_timestamp(now(3)) * 1000 as now')).now),
    ),
  ]
}

async function redisClock(command: NonNullable<OpenStore['command']>): Promise<readonly Finding[]> {
  return [await clockFinding('store', () => redisTime(command))]
}

function replicaFinding(): Finding {
  return writes.problem('this is a replica, or read-only: an old copy brings revoked keys back')
}

/** What Redis thinks the time is, in milliseconds. */
export async function redisTime(command: NonNullable<OpenStore['command']>): Promise<number> {
  const [seconds, micros] = (await command('TIME')) as [unknown, unknown]
  return Number(seconds) * 1_000 + Number(micros) / 1_000
}
