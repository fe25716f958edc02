import { and, asc, DrizzleQueryError, desc, eq, inArray, lt, notExists, or, type SQL, sql } from 'drizzle-orm'
import type { PgDatabase, PgQueryResultHKT } from 'drizzle-orm/pg-core'
import { type KeyRecord, type KeyStore, LatchkeyError, type QuotaRecord, startQuota } from 'latchkey'
import {
  latchkeyAgreements as agreements,
  latchkeyKeys as keys,
  latchkeyQuotas as quotas,
} from './latchkey-tables.ts'

/** Keeps keys in the tables of `latchkey-tables.ts`, over any of Drizzle's drivers for PostgreSQL that has transactions. */
export function drizzleStore(db: PgDatabase<PgQueryResultHKT>): KeyStore {
  const keysWithQuota = () =>
    db.select({ key: keys, quota: quotas }).from(keys).leftJoin(quotas, eq(quotas.lineageId, keys.lineageId))
  const write = <T>(work: (tx: Transaction) => Promise<T>) =>
    db.transaction(work, { isolationLevel: 'read committed' }).catch(withoutParameters)

  return {
    insert: (records) =>
      write(async (tx) => {
        // All calls lock keys before quotas, and each in the order of their ids, so that no two wait for each other.
        for (const { owner, quota: _, ...record } of sorted(records, 'id'))
          await tx.insert(keys).values({ ...record, ownerType: owner.type, ownerId: owner.id })
        for (const { lineageId, quota } of sorted(records, 'lineageId'))
          if (quota) await insertQuota(tx, { lineageId, ...quota, removed: false })
        // `purge` cannot remove a quota before these keys are there.
        const lineageIds = records.map(({ lineageId }) => lineageId)
        await lockQuotas(tx, lineageIds)
      }),

    async find(by) {
      const isOne = 'id' in by ? eq(keys.id, by.id) : inArray(keys.lookup, [...by.lookups])
      const rows = await keysWithQuota().where(isOne).catch(withoutParameters)
      if ('id' in by) return toRecord(rows[0])
      return toRecord(by.lookups.flatMap((lookup) => rows.filter(({ key }) => key.lookup === lookup))[0])
    },

    update: (id, expectedVersion, { quota, revokedAt, ...change }) =>
      write(async (tx) => {
        const members = { ...change, ...(revokedAt && { revokedAt }) }
        const lineageId = await swapVersion(tx, id, expectedVersion, members)
        if (lineageId === null) return (await isThere(tx, id)) ? 'conflict' : 'missing'
        const quotaOfLineage = eq(quotas.lineageId, lineageId)
        // A removed quota keeps its row, for its epoch.
        if (quota === null) await tx.update(quotas).set({ removed: true }).where(quotaOfLineage)
        else if (quota) {
          // There must be a row to lock. This one is overwritten.
          const first = { ...startQuota(quota, null, change.updatedAt), epoch: 0 }
          await insertQuota(tx, { lineageId, ...first, removed: true })
          const [existing] = await lockQuotas(tx, [lineageId])
          const started = startQuota(quota, existing ?? null, change.updatedAt)
          await tx
            .update(quotas)
            .set({ ...started, removed: false })
            .where(quotaOfLineage)
        }
        return 'updated'
      }),

    replaceDigest: (id, expected, next) =>
      write(async (tx) => {
        const isExpected = and(eq(keys.id, id), eq(keys.digest, expected))
        const replaced = await tx
          .update(keys)
          .set({ digest: next })
          .where(isExpected)
          .returning({ id: keys.id })
        return replaced.length === 1
      }),

    async list({ owners, status, endedBefore, expiresBefore, ...texts }, { limit, after, order }) {
      const isOwned = owners?.map(({ type, id }) => and(eq(keys.ownerType, type), eq(keys.ownerId, id)))
      const place = after && sql`(${after.createdAt.getTime()}, ${after.id})`
      const [toward, compare] = order === 'newest' ? [desc, sql`<`] : [asc, sql`>`]
      const conditions: (SQL | undefined)[] = [
        isOwned && sql`(${or(sql`false`, ...isOwned)})`,
        texts.name === undefined ? undefined : eq(keys.name, texts.name),
        texts.createdBy === undefined ? undefined : eq(keys.createdBy, texts.createdBy),
        texts.lineageId === undefined ? undefined : eq(keys.lineageId, texts.lineageId),
        status && sql`${statusAt(status.at)} = ${status.is}`,
        endedBefore && sql`least(${keys.revokedAt}, ${END}) < ${endedBefore.getTime()}`,
        expiresBefore && lt(keys.expiresAt, expiresBefore),
        place && sql`(${keys.createdAt}, ${keys.id}) ${compare} ${place}`,
      ]
      const query = keysWithQuota()
        .where(and(...conditions))
        .orderBy(toward(keys.createdAt), toward(keys.id))
      return (await query.limit(limit).catch(withoutParameters)).map((row) => toRecord(row) as KeyRecord)
    },

    purge: (ids, at) =>
      write(async (tx) => {
        const hasEnded = sql`${statusAt(at)} in ('revoked', 'expired')`
        const isOne = and(inArray(keys.id, [...ids]), hasEnded)
        const ended = await tx.select().from(keys).where(isOne).orderBy(keys.id).for('update')
        const lineageIds = ended.map(({ lineageId }) => lineageId)
        await tx.delete(keys).where(
          inArray(
            keys.id,
            ended.map(({ id }) => id),
          ),
        )
        // An insert of a key into one of them holds its lock; a statement that begins afterwards sees that key.
        await lockQuotas(tx, lineageIds)
        const living = tx.select().from(keys).where(eq(keys.lineageId, quotas.lineageId))
        await tx.delete(quotas).where(and(inArray(quotas.lineageId, lineageIds), notExists(living)))
        return ended.length
      }),

    forget: (id, expectedVersion, forgetting) =>
      write(async (tx) => {
        if ((await swapVersion(tx, id, expectedVersion, forgetting)) !== null) return 'updated'
        return (await isThere(tx, id)) ? 'conflict' : 'missing'
      }),

    recordUsage: (batch) =>
      write(async (tx) => {
        for (const { id, count, lastUsedAt, lastUsedIp } of sorted(batch, 'id')) {
          const ms = lastUsedAt.getTime()
          const columns = {
            usageCount: sql`${keys.usageCount} + ${count}`,
            lastUsedIp: sql`case when ${keys.lastUsedAt} >= ${ms} then ${keys.lastUsedIp} else ${lastUsedIp} end`,
            lastUsedAt: sql`greatest(${keys.lastUsedAt}, ${ms})`,
          }
          await tx.update(keys).set(columns).where(eq(keys.id, id))
        }
      }),

    swapQuota: (lineageId, { epoch, allotted, remaining }, next) =>
      write(async (tx) => {
        const isCurrent = and(eq(quotas.lineageId, lineageId), eq(quotas.removed, false))
        const isSame = [
          eq(quotas.epoch, epoch),
          eq(quotas.allotted, allotted),
          eq(quotas.remaining, remaining),
        ]
        const isExpected = and(isCurrent, ...isSame)
        const swapped = await tx.update(quotas).set(next).where(isExpected).returning({ epoch: quotas.epoch })
        if (swapped.length > 0) return { swapped: true }
        return { swapped: false, current: toQuota((await tx.select().from(quotas).where(isCurrent))[0]) }
      }),

    agree: (name, proposal) =>
      write(async (tx) => {
        const insert = proposal && tx.insert(agreements).values({ name, value: proposal.value })
        if (proposal?.replace)
          await insert?.onConflictDoUpdate({ target: agreements.name, set: { value: proposal.value } })
        else await insert?.onConflictDoNothing()
        if (proposal?.expected !== undefined) {
          const isExpected = and(eq(agreements.name, name), eq(agreements.value, proposal.expected))
          await tx.update(agreements).set({ value: proposal.value }).where(isExpected)
        }
        return (await tx.select().from(agreements).where(eq(agreements.name, name)))[0]?.value ?? null
      }),
  }
}

type Transaction = Parameters<Parameters<PgDatabase<PgQueryResultHKT>['transaction']>[0]>[0]

/** The lineage of the key, or null if it has another version. */
async function swapVersion(tx: Transaction, id: string, expectedVersion: number, members: object) {
  const isExpected = and(eq(keys.id, id), eq(keys.version, expectedVersion))
  const change = tx.update(keys).set({ ...members, version: expectedVersion + 1 })
  const [row] = await change.where(isExpected).returning({ lineageId: keys.lineageId })
  return row?.lineageId ?? null
}

async function isThere(tx: Transaction, id: string): Promise<boolean> {
  return (await tx.select({ id: keys.id }).from(keys).where(eq(keys.id, id))).length > 0
}

/** Keeps a quota that exists, and locks it: a purge that is about to remove it has then done so, or sees the new key. */
async function insertQuota(tx: Transaction, row: typeof quotas.$inferInsert): Promise<void> {
  const itself = { lineageId: sql`excluded.lineage_id` }
  await tx.insert(quotas).values(row).onConflictDoUpdate({ target: quotas.lineageId, set: itself })
}

function lockQuotas(tx: Transaction, lineageIds: readonly string[]) {
  const some = inArray(quotas.lineageId, [...lineageIds])
  return tx.select().from(quotas).where(some).orderBy(quotas.lineageId).for('update')
}

/** `least` and `greatest` pass over null: a key that never ends has no end. */
const END = sql`least(${keys.expiresAt}, greatest(${keys.createdAt}, ${keys.lastUsedAt}) + ${keys.idleExpiryMs})`

/** The status at a moment, as `keyStatus` decides it. */
function statusAt(at: Date): SQL {
  return sql`(case when ${keys.revokedAt} is not null then 'revoked' when ${END} <= ${at.getTime()} then 'expired'
    when ${keys.enabled} then 'active' else 'disabled' end)`
}

interface Row {
  key: typeof keys.$inferSelect
  quota: typeof quotas.$inferSelect | null
}

function toRecord(row: Row | undefined): KeyRecord | null {
  if (!row) return null
  const { ownerType, ownerId, ...members } = row.key
  const quota = row.quota?.removed ? null : toQuota(row.quota)
  return { ...members, owner: { type: ownerType, id: ownerId }, quota }
}

function toQuota(row: Row['quota'] | undefined): QuotaRecord | null {
  if (!row) return null
  const { lineageId: _, removed: __, ...quota } = row
  return quota
}

/** Drizzle puts the parameters of a query into its error, and a log would show them. */
function withoutParameters(error: unknown): never {
  const cause = error instanceof DrizzleQueryError ? error.cause : error
  throw (cause as { code?: string }).code === '23505' ? new LatchkeyError('duplicate_key') : cause
}

function sorted<T>(values: readonly T[], name: keyof T): T[] {
  return [...values].sort((a, b) => (a[name] < b[name] ? -1 : 1))
}
