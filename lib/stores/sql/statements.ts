import { type Expression, type ExpressionBuilder, type SqlBool, sql } from 'kysely'
import type { KeyFilter, ListPage, Proposal, UsageDelta } from '../../core/keys/key-store.ts'
import type { Owner } from '../../core/keys/record.ts'
import type { QuotaRecord } from '../../core/limits/quota.ts'
import type { Dialect, Schema } from './dialect.ts'
import { keyColumnNames, QUOTA_PREFIX, quotaColumnNames } from './key-row.ts'
import type { Cell, Statement } from './plan.ts'
import type { TableNames } from './table-names.ts'

/** The statements of a store, written for its dialect and its tables. */
export type Statements = ReturnType<typeof createStatements>

/** The condition of each partial index, word for word: only then does a planner see that the index will do. */
export const MAY_END = 'revoked_at_ms is not null or expires_at_ms is not null or idle_expiry_ms is not null'

type Keys = ExpressionBuilder<{ k: Schema['keys'] }, 'k'>

export function createStatements({ name, builder, locksRows }: Dialect, names: TableNames) {
  // The compiler of types knows the tables by their roles; the names are what is written.
  const keys = names.keys as 'keys'
  const quotas = names.quotas as 'quotas'
  const agreements = names.agreements as 'agreements'
  const db = names.schema === undefined ? builder : builder.withSchema(names.schema)

  const selectKeys = db
    .selectFrom(`${keys} as k`)
    .leftJoin(`${quotas} as q`, 'q.lineage_id', 'k.lineage_id')
    .select(keyColumnNames.map((column) => `k.${column}` as const))
    .select(
      [...quotaColumnNames, 'removed'].map((column) => `q.${column} as ${QUOTA_PREFIX}${column}` as const),
    )

  const selectQuotas = db.selectFrom(quotas).select(['lineage_id', ...quotaColumnNames, 'removed'])

  // What every request may ask is written once, and then only given its value.
  const findById = prepare(selectKeys.where('k.id', '=', '').compile())
  const findByLookup = prepare(selectKeys.where('k.lookup', '=', '').compile())
  const insertOne = writeInserts(1)
  const insertQuotaRow = prepare(writeInsertQuota())
  const updateQuotaRow = prepare(writeUpdateQuota())
  const swapQuotaRow = prepare(writeSwapQuota())
  const readQuotaRow = prepare(selectQuotas.where('lineage_id', '=', '').compile())
  const useKey = prepare(writeUse())

  /** Each count of rows has a text of its own. */
  function writeInserts(count: number): string {
    const row = toKeyColumns(keyColumnNames.map(() => ''))
    return db.insertInto(keys).columns(keyColumnNames).values(Array(count).fill(row)).compile().sql
  }

  /** What is there is not changed but locked: left unlocked, it could be purged before this transaction ends. */
  function writeInsertQuota(): Statement {
    const ownId = sql.ref<Cell>(`${names.quotas}.lineage_id`)
    const columns = ['lineage_id', ...quotaColumnNames, 'removed']
    const insert = db.insertInto(quotas).values(Object.fromEntries(columns.map((column) => [column, ''])))
    // `insert ignore` of MySQL would pass over every other mistake as well.
    if (name === 'mysql') return insert.onDuplicateKeyUpdate({ lineage_id: ownId }).compile()
    return insert
      .onConflict((conflict) => conflict.column('lineage_id').doUpdateSet({ lineage_id: ownId }))
      .compile()
  }

  function writeUpdateQuota(): Statement {
    const columns = [...quotaColumnNames, 'removed']
    return db
      .updateTable(quotas)
      .set(Object.fromEntries(columns.map((column) => [column, ''])))
      .where('lineage_id', '=', '')
      .compile()
  }

  /** The time of the next refill is compared too: processes of 0.2 may move it alone. */
  function writeSwapQuota(): Statement {
    return db
      .updateTable(quotas)
      .set(Object.fromEntries(quotaColumnNames.map((column) => [column, ''])))
      .where('lineage_id', '=', '')
      .where('removed', '=', sql.lit(false))
      .where('epoch', '=', '')
      .where('allotted', '=', '')
      .where('remaining', '=', '')
      .where((q) => q(sql`coalesce(next_refill_at_ms, -1)`, '=', ''))
      .compile()
  }

  /** MySQL assigns from left to right, so that the address comes before the time that it is decided by. */
  function writeUse(): Statement {
    return db
      .updateTable(keys)
      .set('usage_count', sql`usage_count + ${0}`)
      .set('last_used_ip', sql`case when last_used_at_ms >= ${0} then last_used_ip else ${''} end`)
      .set('last_used_at_ms', sql`case when last_used_at_ms >= ${0} then last_used_at_ms else ${0} end`)
      .where('id', '=', '')
      .compile()
  }

  /** MySQL keeps what it has prepared, so much for all its clients: few texts, of which more is asked than is wanted. */
  function padded<T>(values: readonly T[], filler = values.at(-1)): readonly T[] {
    return [...values, ...Array<T>(rounded(values.length) - values.length).fill(filler as T)]
  }

  /**
   * A pair is looked for in the index itself, however many keys were made in the same millisecond, as those of one import may
   * be. MySQL would read the whole index for a pair: there the time alone is looked for.
   */
  function isBehind(k: Keys, { after, order }: ListPage): Expression<SqlBool> | undefined {
    if (!after) return undefined
    const { id } = after
    const at = after.createdAt.getTime()
    const behind = order === 'newest' ? '<' : '>'
    if (name !== 'mysql') {
      return sql<SqlBool>`(k.created_at_ms, k.id) ${sql.raw(behind)} (${at}, ${id})`
    }
    const isFurther = k.or([k('k.created_at_ms', behind, at), k('k.id', behind, id)])
    return k.and([k('k.created_at_ms', `${behind}=`, at), isFurther])
  }

  function rounded(count: number): number {
    return name === 'mysql' ? nextPowerOfTwo(count) : count
  }

  /**
   * The places of the keys on a page of several owners. The index yields the keys of each owner in order, and no more of them are
   * read than the page may need. SQLite takes an order and a limit in a union only where they are nested.
   */
  function placesOf(owners: readonly Owner[], filter: KeyFilter, page: ListPage) {
    const direction = directionOf(page)
    const limit = sql.lit(rounded(page.limit))
    const selects = padded<Owner | typeof NOBODY>(owners, NOBODY).map((owner) => {
      const own = db
        .selectFrom(`${keys} as k`)
        .select(['k.created_at_ms', 'k.id'])
        .where((k) => k.and(listed(k, filter, [owner], isBehind(k, page))))
        .orderBy('k.created_at_ms', direction)
        .orderBy('k.id', direction)
        .limit(limit)
      return db.selectFrom(own.as('own')).selectAll()
    })
    return selects
      .reduce((all, one) => all.unionAll(one))
      .orderBy('created_at_ms', direction)
      .orderBy('id', direction)
      .limit(limit)
  }

  return {
    findById: (id: string) => findById([id]),
    findByLookups(lookups: readonly string[]): Statement {
      if (lookups.length === 1) return findByLookup(lookups)
      return selectKeys.where('k.lookup', 'in', padded(lookups)).compile()
    },

    list(filter: KeyFilter, page: ListPage): Statement {
      const { owners = [] } = filter
      const direction = directionOf(page)
      const select =
        owners.length > 1
          ? selectKeys.innerJoin(placesOf(owners, filter, page).as('place'), 'place.id', 'k.id')
          : selectKeys.where((given) => {
              const k = given as unknown as Keys
              return k.and(listed(k, filter, owners, isBehind(k, page)))
            })
      return select
        .orderBy('k.created_at_ms', direction)
        .orderBy('k.id', direction)
        .limit(sql.lit(rounded(page.limit)))
        .compile()
    },

    count(filter: KeyFilter): Statement {
      const owners = padded<Owner | typeof NOBODY>(filter.owners ?? [], NOBODY)
      return db
        .selectFrom(`${keys} as k`)
        .select(sql`count(*)`.as('count'))
        .where((k) => k.and(listed(k, filter, owners, undefined)))
        .compile()
    },

    insertKeys(rows: readonly (readonly Cell[])[]): Statement {
      const sql = rows.length === 1 ? insertOne : writeInserts(rows.length)
      return { sql, parameters: rows.flat() }
    },

    /** Keeps, and locks, the one that the lineage has. */
    insertQuota: (lineageId: string, row: readonly Cell[], removed: boolean) =>
      insertQuotaRow([lineageId, ...row, removed]),

    lockQuotas(lineageIds: readonly string[]): Statement {
      const select = selectQuotas.where('lineage_id', 'in', padded(lineageIds)).orderBy('lineage_id')
      return (locksRows ? select.forUpdate() : select).compile()
    },

    updateQuota: (lineageId: string, row: readonly Cell[]) => updateQuotaRow([...row, false, lineageId]),

    swapQuota: (
      lineageId: string,
      { epoch, allotted, remaining, nextRefillAt }: QuotaRecord,
      row: readonly Cell[],
    ) => swapQuotaRow([...row, lineageId, epoch, allotted, remaining, nextRefillAt?.getTime() ?? -1]),

    readQuota: (lineageId: string) => readQuotaRow([lineageId]),

    removeQuota: (lineageId: string) =>
      db.updateTable(quotas).set({ removed: true }).where('lineage_id', '=', lineageId).compile(),

    findAgreement: (agreement: string): Statement =>
      db.selectFrom(agreements).select('value').where('name', '=', agreement).compile(),

    /** Keeps what is there, unless it is to be replaced. */
    writeAgreement(agreement: string, { value, replace }: Proposal): Statement {
      const insert = db.insertInto(agreements).values({ name: agreement, value })
      // What is there is written as it is, rather than passed over with every other mistake.
      if (name === 'mysql')
        return insert.onDuplicateKeyUpdate(replace ? { value } : { name: agreement }).compile()
      return insert
        .onConflict((conflict) => {
          const same = conflict.column('name')
          return replace ? same.doUpdateSet({ value }) : same.doNothing()
        })
        .compile()
    },

    deleteQuotas: (lineageIds: readonly string[]) =>
      db.deleteFrom(quotas).where('lineage_id', 'in', padded(lineageIds)).compile(),

    updateKey(id: string, expectedVersion: number, row: Record<string, Cell>, revokedAtMs: Cell | undefined) {
      const update = db
        .updateTable(keys)
        .set({ ...row, version: expectedVersion + 1 })
        .where('id', '=', id)
        .where('version', '=', expectedVersion)
      if (revokedAtMs === undefined || revokedAtMs === null) return update.compile()
      return update.set('revoked_at_ms', sql`coalesce(revoked_at_ms, ${revokedAtMs})`).compile()
    },

    migrationNames: db
      .selectFrom(names.migrations as 'migrations')
      .select('name')
      .compile() as Statement,

    lineageOf: (id: string) => db.selectFrom(keys).select('lineage_id').where('id', '=', id).compile(),

    replaceDigest: (id: string, expected: string, next: string) =>
      db
        .updateTable(keys)
        .set({ digest: next })
        .where('id', '=', id)
        .where('digest', '=', expected)
        .compile(),

    lockEnded(ids: readonly string[], at: Date): Statement {
      const select = db
        .selectFrom(`${keys} as k`)
        .select(['k.id', 'k.lineage_id'])
        .where('k.id', 'in', padded(ids))
        .where((k) => k.or([k('k.revoked_at_ms', 'is not', null), hasExpired(k, at)]))
        .orderBy('k.id')
      return (locksRows ? select.forUpdate() : select).compile()
    },

    deleteKeys: (ids: readonly string[]) => db.deleteFrom(keys).where('id', 'in', padded(ids)).compile(),

    livingLineages: (lineageIds: readonly string[]) =>
      db
        .selectFrom(keys)
        .select('lineage_id')
        .distinct()
        .where('lineage_id', 'in', padded(lineageIds))
        .compile(),

    /** Adds the uses of several keys, whose ids are in order, so that two batches never wait for each other. */
    recordUses(uses: readonly UsageDelta[]): readonly Statement[] {
      if (name === 'postgres') return [usesAtOnce(uses)]
      if (name === 'mysql') return [usesByCase(uses)]
      return uses.map(({ id, count, lastUsedAt, lastUsedIp }) => {
        const at = lastUsedAt.getTime()
        return useKey([count, at, lastUsedIp, at, at, id])
      })
    },
  }

  function usesAtOnce(uses: readonly UsageDelta[]): Statement {
    const list = JSON.stringify(
      uses.map(({ id, count, lastUsedAt, lastUsedIp }) => ({
        id,
        uses: count,
        used_at: lastUsedAt.getTime(),
        ip: lastUsedIp,
      })),
    )
    const table = sql.table(names.schema === undefined ? names.keys : `${names.schema}.${names.keys}`)
    return sql`
      with used as (
        select * from json_to_recordset(${list}::json) as u (id text, uses bigint, used_at bigint, ip text)
      ), locked as (
        select k.id from ${table} as k where k.id in (select id from used) order by k.id for no key update
      )
      update ${table} as k
      set usage_count = k.usage_count + used.uses,
        last_used_ip = case when k.last_used_at_ms >= used.used_at then k.last_used_ip else used.ip end,
        last_used_at_ms = greatest(k.last_used_at_ms, used.used_at)
      from used
      where k.id = used.id and k.id in (select id from locked)`.compile(db)
  }

  /** One text for each power of two: MySQL keeps what it has prepared. What fills up is the last one again. */
  function usesByCase(uses: readonly UsageDelta[]): Statement {
    const count = nextPowerOfTwo(uses.length)
    const filled = [...uses, ...Array(count - uses.length).fill(uses.at(-1))] as UsageDelta[]
    const byId = (value: (use: UsageDelta) => Cell) =>
      sql`case id ${sql.join(
        filled.map((use) => sql`when ${use.id} then ${value(use)}`),
        sql` `,
      )} end`
    const usedAt = byId((use) => use.lastUsedAt.getTime())
    return db
      .updateTable(keys)
      .set('usage_count', sql`usage_count + ${byId((use) => use.count)}`)
      .set(
        'last_used_ip',
        sql`case when last_used_at_ms >= ${usedAt} then last_used_ip else ${byId((use) => use.lastUsedIp)} end`,
      )
      .set('last_used_at_ms', sql`greatest(coalesce(last_used_at_ms, ${usedAt}), ${usedAt})`)
      .where(
        'id',
        'in',
        filled.map(({ id }) => id),
      )
      .orderBy('id')
      .compile()
  }
}

/** Owns nothing: null equals nothing. */
const NOBODY = { type: null, id: null }

function toKeyColumns(row: readonly Cell[]): Record<string, Cell> {
  return Object.fromEntries(keyColumnNames.map((column, i) => [column, row[i] ?? null]))
}

function nextPowerOfTwo(atLeast: number): number {
  return atLeast === 0 ? 0 : 2 ** Math.ceil(Math.log2(atLeast))
}

/** The statement with other values. */
function prepare({ sql: text }: Statement): (parameters: readonly unknown[]) => Statement {
  return (parameters) => ({ sql: text, parameters })
}

function directionOf({ order }: ListPage): 'asc' | 'desc' {
  return order === 'newest' ? 'desc' : 'asc'
}

function listed(
  k: Keys,
  { createdBy, name, lineageId, status, endedBefore, expiresBefore }: KeyFilter,
  owners: readonly (Owner | typeof NOBODY)[],
  place: Expression<SqlBool> | undefined,
): Expression<SqlBool>[] {
  const conditions: Expression<SqlBool>[] = []
  if (owners.length > 0) conditions.push(k.or(owners.map((owner) => isOwnedBy(k, owner))))
  if (createdBy !== undefined) conditions.push(k('k.created_by', '=', createdBy))
  if (name !== undefined) conditions.push(k('k.name', '=', name))
  if (lineageId !== undefined) conditions.push(k('k.lineage_id', '=', lineageId))
  if (status) conditions.push(...hasStatus(k, status))
  if (endedBefore) conditions.push(...hasEnded(k, endedBefore))
  if (expiresBefore) conditions.push(mayEnd(k), k('k.expires_at_ms', '<', expiresBefore.getTime()))
  if (place) conditions.push(place)
  return conditions
}

function isOwnedBy(k: Keys, { type, id }: Owner | typeof NOBODY): Expression<SqlBool> {
  return k.and([k('k.owner_type', '=', type), k('k.owner_id', '=', id)])
}

/** `keyStatus` of the core, in SQL. */
function hasStatus(k: Keys, { is, at }: NonNullable<KeyFilter['status']>): Expression<SqlBool>[] {
  if (is === 'revoked') return [k('k.revoked_at_ms', 'is not', null)]
  const isNotRevoked = k('k.revoked_at_ms', 'is', null)
  if (is === 'expired') return [mayEnd(k), isNotRevoked, hasExpired(k, at)]
  return [k('k.enabled', '=', sql.lit(is === 'active')), isNotRevoked, lives(k, at)]
}

/** `endOf` of the core is at `at` or before; `'<'` means before. */
function hasExpired(k: Keys, at: Date, compare: '<=' | '<' = '<='): Expression<SqlBool> {
  const ms = at.getTime()
  return k.or([
    k('k.expires_at_ms', compare, ms),
    k.and([
      k(sql`k.created_at_ms + k.idle_expiry_ms`, compare, ms),
      k(sql`coalesce(k.last_used_at_ms, 0) + k.idle_expiry_ms`, compare, ms),
    ]),
  ])
}

/** The opposite, for columns that may be null. */
function lives(k: Keys, at: Date): Expression<SqlBool> {
  const ms = at.getTime()
  return k.and([
    k.or([k('k.expires_at_ms', 'is', null), k('k.expires_at_ms', '>', ms)]),
    k.or([
      k('k.idle_expiry_ms', 'is', null),
      k(sql`k.created_at_ms + k.idle_expiry_ms`, '>', ms),
      k(sql`coalesce(k.last_used_at_ms, 0) + k.idle_expiry_ms`, '>', ms),
    ]),
  ])
}

function hasEnded(k: Keys, before: Date): Expression<SqlBool>[] {
  return [mayEnd(k), k.or([k('k.revoked_at_ms', '<', before.getTime()), hasExpired(k, before, '<')])]
}

function mayEnd(k: Keys): Expression<SqlBool> {
  return k.or([
    k('k.revoked_at_ms', 'is not', null),
    k('k.expires_at_ms', 'is not', null),
    k('k.idle_expiry_ms', 'is not', null),
  ])
}
