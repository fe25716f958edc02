import type { Knex } from 'knex'
import { type KeyRecord, type KeyStore, LatchkeyError, startQuota } from 'latchkey'

/** Keeps keys in the PostgreSQL that `knex` is connected to, in the tables of `tables.ts`. */
export function knexStore(knex: Knex): KeyStore {
  const keys = () => knex<Row>('api_keys').select('api_keys.*', 'quota', 'isUnlimited')
  const keysWithQuota = () => keys().join('api_key_lineages', 'lineage', 'lineageId')

  return {
    insert: (records) =>
      knex.transaction(async (trx) => {
        // All calls lock in the same order, so that no two wait for each other. The upsert locks a lineage that exists:
        // `purge` cannot remove it before the new key is there.
        for (const { lineageId, quota } of sorted(records, 'lineageId')) {
          const lineage = { lineage: lineageId, quota: quota && JSON.stringify(quota) }
          const kept = trx.raw('coalesce(api_key_lineages.quota, excluded.quota)')
          await trx('api_key_lineages').insert(lineage).onConflict('lineage').merge({ quota: kept })
        }
        for (const { owner, quota: _, ...record } of sorted(records, 'id')) {
          const row = { ...asColumns(record), ownerType: owner.type, ownerId: owner.id }
          await trx('api_keys').insert(row).catch(asDuplicate)
        }
      }),

    async find(by) {
      if ('id' in by) return toRecord(await keysWithQuota().where({ id: by.id }).first())
      const found = await keysWithQuota().whereIn('lookup', by.lookups)
      return toRecord(by.lookups.flatMap((lookup) => found.filter((row) => row.lookup === lookup))[0])
    },

    update: (id, expectedVersion, { quota, revokedAt, ...change }) =>
      knex.transaction(async (trx) => {
        const columns = {
          ...asColumns(change),
          version: expectedVersion + 1,
          ...(revokedAt && { revokedAt }),
        }
        const key = trx('api_keys').where({ id })
        const [row] = await key.clone().where({ version: expectedVersion }).update(columns, ['lineageId'])
        if (!row) return (await key.first('id')) ? 'conflict' : 'missing'
        const lineage = trx('api_key_lineages').where({ lineage: row.lineageId })
        // A removed quota keeps its row, for its epoch.
        if (quota === null) await lineage.update({ isUnlimited: true })
        else if (quota) {
          const existing = toQuota((await lineage.clone().forUpdate().first('quota')).quota)
          const started = JSON.stringify(startQuota(quota, existing, change.updatedAt))
          await lineage.update({ quota: started, isUnlimited: false })
        }
        return 'updated'
      }),

    replaceDigest: async (id, expected, next) =>
      (await knex('api_keys').where({ id, digest: expected }).update({ digest: next })) === 1,

    async list({ owners, status, endedBefore, expiresBefore, ...texts }, { limit, after, order }) {
      const places = order ? '"createdAt" desc, id desc' : '"createdAt", id'
      const query = keysWithQuota().orderByRaw(places).limit(limit)
      const pairs = owners?.map(({ type, id }) => [type, id])
      if (pairs) query.whereIn(['ownerType', 'ownerId'], pairs)
      for (const [column, text] of Object.entries(texts)) if (text !== undefined) query.where(column, text)
      if (status) query.whereRaw(`${STATUS} = ?`, [status.at, status.is])
      if (endedBefore) query.whereRaw(`least("revokedAt", ${END}) < ?`, [endedBefore])
      if (expiresBefore) query.where('expiresAt', '<', expiresBefore)
      if (after) query.whereRaw(`("createdAt", id) ${order ? '<' : '>'} (?, ?)`, [after.createdAt, after.id])
      return (await query).map((row) => toRecord(row) as KeyRecord)
    },

    purge: (ids, at) =>
      knex.transaction(async (trx) => {
        const ended = trx('api_keys').whereIn('id', ids).whereRaw(`${STATUS} in ('revoked', 'expired')`, [at])
        const rows: Row[] = await ended.orderBy('id').forUpdate().select('id', 'lineageId')
        const [endedIds, lineageIds] = [rows.map((row) => row.id), rows.map((row) => row.lineageId)]
        const lineages = trx('api_key_lineages').whereIn('lineage', lineageIds)
        // An insert of a key into one of them holds its lock; a statement that begins afterwards sees that key.
        await lineages.clone().orderBy('lineage').forUpdate().select('lineage')
        await trx('api_keys').whereIn('id', endedIds).delete()
        await lineages.whereNotExists(trx('api_keys').whereRaw('"lineageId" = lineage')).delete()
        return rows.length
      }),

    async forget(id, expectedVersion, forgetting) {
      const key = knex('api_keys').where({ id })
      const columns = { ...forgetting, version: expectedVersion + 1 }
      if (await key.clone().where({ version: expectedVersion }).update(columns)) return 'updated'
      return (await key.first('id')) ? 'conflict' : 'missing'
    },

    recordUsage: (batch) =>
      knex.transaction(async (trx) => {
        for (const use of sorted(batch, 'id')) await trx.raw(ADD_USE, { ...use })
      }),

    async swapQuota(lineageId, { epoch, allotted, remaining }, next) {
      const lineage = knex('api_key_lineages').where({ lineage: lineageId, isUnlimited: false })
      const asExpected = lineage.clone().whereRaw(IS_QUOTA, [epoch, allotted, remaining])
      if ((await asExpected.update({ quota: JSON.stringify(next) })) > 0) return { swapped: true }
      return { swapped: false, current: toQuota((await lineage.first('quota'))?.quota) }
    },

    async agree(name, proposal) {
      const agreements = knex('api_key_agreements')
      const insert = agreements.clone().insert({ name, value: proposal?.value }).onConflict('name')
      if (proposal?.replace) await insert.merge()
      else if (proposal) {
        await insert.ignore()
        const { value, expected = value } = proposal
        await agreements.clone().where({ name, value: expected }).update({ value })
      }
      return (await agreements.clone().where({ name }).first('value'))?.value ?? null
    },
  }
}

/** `least` and `greatest` pass over null: a key that never ends has no end. */
const END = `least("expiresAt", greatest("createdAt", "lastUsedAt") + "idleExpiryMs" * interval '1 millisecond')`
/** The status at a moment, as `keyStatus` decides it. */
const STATUS = `(case when "revokedAt" is not null then 'revoked' when ${END} <= ? then 'expired'
  when enabled then 'active' else 'disabled' end)`
const ADD_USE = `update api_keys set "usageCount" = "usageCount" + :count,
  "lastUsedIp" = case when "lastUsedAt" >= :lastUsedAt then "lastUsedIp" else :lastUsedIp end,
  "lastUsedAt" = greatest("lastUsedAt", :lastUsedAt) where id = :id`
const IS_QUOTA = `(quota->>'epoch')::bigint = ? and (quota->>'allotted')::bigint = ? and (quota->>'remaining')::bigint = ?`
const JSON_COLUMNS = ['permissions', 'metadata', 'rateLimits', 'allowedIps']

/** A key joined with its lineage. */
interface Row extends Omit<KeyRecord, 'owner'> {
  ownerType: string
  ownerId: string
  isUnlimited: boolean
}

function asColumns(members: object): Record<string, unknown> {
  const write = (name: string, value: unknown) =>
    JSON_COLUMNS.includes(name) ? JSON.stringify(value) : value
  return Object.fromEntries(Object.entries(members).map(([name, value]) => [name, write(name, value)]))
}

function toRecord(row: Row | undefined): KeyRecord | null {
  if (!row) return null
  const { ownerType, ownerId, isUnlimited, ...members } = row
  // The driver returns 64-bit numbers as text.
  const [usageCount, version] = [Number(row.usageCount), Number(row.version)]
  const idleExpiryMs = row.idleExpiryMs === null ? null : Number(row.idleExpiryMs)
  const [owner, quota] = [{ type: ownerType, id: ownerId }, isUnlimited ? null : toQuota(row.quota)]
  return { ...members, owner, quota, usageCount, version, idleExpiryMs }
}

/** JSON has no dates. */
function toQuota(stored: KeyRecord['quota'] | undefined): KeyRecord['quota'] {
  return stored ? { ...stored, nextRefillAt: stored.nextRefillAt && new Date(stored.nextRefillAt) } : null
}

function asDuplicate(error: { code?: string }): never {
  throw error.code === '23505' ? new LatchkeyError('duplicate_key', undefined, { cause: error }) : error
}

function sorted<T>(values: readonly T[], name: keyof T): T[] {
  return [...values].sort((a, b) => (a[name] < b[name] ? -1 : 1))
}
