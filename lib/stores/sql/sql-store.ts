import type {
  Forgetting,
  KeyChange,
  KeyFilter,
  KeyStore,
  ListPage,
  Proposal,
  QuotaSwap,
  QuotaSwapResult,
  UsageDelta,
} from '../../core/keys/key-store.ts'
import type { KeyRecord, Owner } from '../../core/keys/record.ts'
import { type QuotaRecord, startQuota } from '../../core/limits/quota.ts'
import { isLatchkeyError, LatchkeyError } from '../../errors.ts'
import { compareCodePoints } from '../../internal/code-points.ts'
import { OptionError } from '../../internal/option-error.ts'
import { checkInteger, isStorable } from '../../internal/options.ts'
import { copyData } from '../../internal/plain-data.ts'
import type { Database } from './database.ts'
import {
  isRemoved,
  keyColumnNames,
  toChangedColumns,
  toKeyRecord,
  toKeyRow,
  toQuotaRecord,
  toQuotaRow,
  toTextCell,
} from './key-row.ts'
import { migrateDatabase } from './migrate.ts'
import { affectedBy, type Cell, type Plan, type Row, rowsOf, type Statement } from './plan.ts'
import { createStatements, type Statements } from './statements.ts'
import type { TableNames } from './table-names.ts'

/** A store in a SQL database, with every optional method. `migrate` or the published SQL creates its tables. */
export interface SqlStore extends Required<KeyStore> {
  /** Closes the SQLite file that the store opened. A pool or database of the application stays open. */
  close(): Promise<void>
}

/** What `migrate` applied. */
export interface MigrationResult {
  /** The names of the applied migrations, in order; empty if the tables were up to date. */
  readonly applied: readonly string[]
}

/** A registered symbol, since the other copy of the package, ESM or CommonJS, may have created the store. */
const MIGRATE = Symbol.for('latchkey.sql.migrate')

/**
 * Creates the tables of the store, or brings those of an earlier release up to date. It only adds and never removes or changes
 * data. If several processes start at once, one migrates and the others wait.
 *
 * @throws LatchkeyError `read_only`, `wrong_dialect`, or `not_migrated` if the `schema` is missing.
 * @throws TypeError when `store` is not a SQL store.
 * @example
 * const store = postgresStore(new Pool())
 * await migrate(store)
 */
export async function migrate(store: SqlStore): Promise<MigrationResult> {
  const run = (store as { [MIGRATE]?: () => Promise<MigrationResult> } | null)?.[MIGRATE]
  if (!run) throw new OptionError('store', 'be made by postgresStore, mysqlStore or sqliteStore')
  return run()
}

const IDS_PER_STATEMENT = 500

export function createSqlStore(database: Database, names: TableNames): SqlStore {
  const statements = createStatements(database.dialect, names)

  const store: SqlStore = {
    async insert(records: readonly KeyRecord[]) {
      const rows = records.map(toKeyRow)
      for (const row of rows) checkLengths(keyColumnNames, row, database)
      const quotas = records.flatMap(({ lineageId, quota }) =>
        quota ? [{ lineageId, row: toQuotaRow(quota) }] : [],
      )
      const lineageIds = records.map(({ lineageId }) => lineageId)
      if (rows.length > 0) await database.transact(() => insertPlan(rows, lineageIds, quotas))
    },

    async find(by) {
      if ('id' in by) {
        if (!isStorable(by.id)) return null
        const [row] = (await readRows(() => statements.findById(by.id))) ?? []
        return row ? toKeyRecord(row) : null
      }
      const lookups = by.lookups.filter(isStorable)
      if (lookups.length === 0) return null
      const rows = await database.read(() => rowsOf(statements.findByLookups(lookups)))
      if (rows.length < 2) return rows[0] ? toKeyRecord(rows[0]) : null
      const records = rows.map(toKeyRecord)
      for (const lookup of lookups) {
        const record = records.find((candidate) => candidate.lookup === lookup)
        if (record) return record
      }
      return null
    },

    async update(id: string, expectedVersion: number, change: KeyChange) {
      if (!isStorable(id)) return 'missing'
      const row = toChangedColumns(change)
      checkLengths(Object.keys(row), Object.values(row), database)
      const { quota, revokedAt, updatedAt } = change
      const update = statements.updateKey(id, expectedVersion, row, revokedAt?.getTime())
      if (quota === undefined) return writeTo(id, 'missing', () => updatePlan(statements, id, update))
      const setQuota = quota && copyData(quota)
      const at = new Date(updatedAt)
      return writeTo(id, 'missing', function* () {
        const outcome = yield* updatePlan(statements, id, update)
        if (outcome === 'updated') yield* setQuotaPlan(statements, id, setQuota, at)
        return outcome
      })
    },

    async replaceDigest(id: string, expected: string, next: string) {
      if (!isStorable(id) || !isStorable(expected)) return false
      checkLengths(['digest'], [toTextCell(next, 'digest')], database)
      return writeTo(id, false, function* () {
        return (yield* affectedBy(statements.replaceDigest(id, expected, next))) > 0
      })
    },

    async list(filter: KeyFilter, page: ListPage) {
      const limit = checkInteger('limit', page.limit, 0, Number.MAX_SAFE_INTEGER)
      const rows = await readMatching(filter, (storable) => statements.list(storable, page))
      return rows.slice(0, limit).map(toKeyRecord)
    },

    async count(filter: KeyFilter) {
      const [row] = await readMatching(filter, statements.count)
      return Number(row?.count ?? 0)
    },

    async purge(ids: readonly string[], at: Date) {
      const all = [...new Set(ids)].filter(isStorable).sort()
      const until = new Date(at)
      let purged = 0
      for (const some of inChunks(all, IDS_PER_STATEMENT)) {
        purged += await purge(some, until)
      }
      return purged
    },

    async forget(id: string, expectedVersion: number, forgetting: Forgetting) {
      if (!isStorable(id)) return 'missing'
      const update = statements.updateKey(id, expectedVersion, toChangedColumns(forgetting), undefined)
      return database.transact(() => updatePlan(statements, id, update))
    },

    async recordUsage(batch: readonly UsageDelta[]) {
      for (const uses of inChunks(combineUses(batch), IDS_PER_STATEMENT)) {
        await database.write(function* () {
          for (const statement of statements.recordUses(uses)) yield statement
        })
      }
    },

    async swapQuota(lineageId: string, expected: QuotaRecord, next: QuotaRecord) {
      const swap = readSwap({ lineageId, expected, next })
      return database.transact(() => swapPlan(statements, swap))
    },

    async swapQuotas(swaps: readonly QuotaSwap[]) {
      const all = swaps.map(readSwap)
      // In the order in which all other code locks quotas.
      const inOrder = [...all].sort((a, b) => compareCodePoints(a.lineageId, b.lineageId))
      return database.transact(function* () {
        const results = new Map<ReadSwap, QuotaSwapResult>()
        for (const swap of inOrder) results.set(swap, yield* swapPlan(statements, swap))
        return all.map((swap) => results.get(swap) as QuotaSwapResult)
      })
    },

    async agree(name: string, proposal: Proposal | null): Promise<string | null> {
      const row = [toTextCell(name, 'name'), toTextCell(proposal?.value ?? '', 'value')]
      checkLengths(['name', 'value'], row, database)
      // Read first, so that a process without the right to write can agree.
      const kept = await database.read(() => agreedPlan(statements, name))
      if (!proposal || (kept !== null && !proposal.replace)) return kept
      return database.transact(function* () {
        yield statements.writeAgreement(name, proposal)
        return yield* agreedPlan(statements, name)
      })
    },

    close: () => database.close(),
  }
  return Object.defineProperty(store, MIGRATE, { value: () => migrateDatabase(database, names) })

  /** The rows that a statement finds; null if it asks for a text that the database cannot hold. */
  async function readRows(statement: () => Statement): Promise<readonly Row[] | null> {
    try {
      return await database.read(() => rowsOf(statement()))
    } catch (error) {
      if (isUnsupported(error)) return null
      throw error
    }
  }

  /** Reads by a filter. If the filter names texts that the database cannot hold, no key has them. */
  async function readMatching(
    filter: KeyFilter,
    statement: (filter: KeyFilter) => Statement,
  ): Promise<readonly Row[]> {
    const { createdBy, name, lineageId } = filter
    if ([createdBy, name, lineageId].some((text) => text !== undefined && !isStorable(text))) return []
    const owners = filter.owners?.filter(({ type, id }) => isStorable(type) && isStorable(id))
    if (owners?.length === 0) return []
    const read = (some = owners) => readRows(() => statement({ ...filter, ...(some && { owners: some }) }))
    const rows = await read()
    if (rows || !owners) return rows ?? []
    // The database may be unable to hold one of the owners: then read the others.
    const known: Owner[] = []
    for (const owner of owners) if (await read([owner])) known.push(owner)
    return (known.length > 0 && (await read(known))) || []
  }

  /** Writes to one key. Returns `missing` if its id is a text that the database cannot hold. */
  async function writeTo<T>(id: string, missing: T, plan: () => Plan<T>): Promise<T> {
    try {
      return await database.transact(plan)
    } catch (error) {
      if (isUnsupported(error) && !(await store.find({ id }))) return missing
      throw error
    }
  }

  async function purge(ids: readonly string[], at: Date): Promise<number> {
    try {
      return await database.transact(() => purgePlan(statements, ids, at))
    } catch (error) {
      if (!isUnsupported(error)) throw error
    }
    // One of the ids is a text that the database cannot hold.
    if (ids.length === 1) return 0
    const half = Math.ceil(ids.length / 2)
    return (await purge(ids.slice(0, half), at)) + (await purge(ids.slice(half), at))
  }

  /**
   * Keys first, then quotas, as everywhere. It also locks existing quotas: otherwise a purge of the lineage's last key would not see
   * these keys yet and would remove their quota.
   */
  function* insertPlan(
    rows: readonly (readonly Cell[])[],
    lineageIds: readonly string[],
    quotas: readonly { lineageId: string; row: readonly Cell[] }[],
  ): Plan<void> {
    for (let from = 0; from < rows.length; ) {
      const count = largestPowerOfTwo(Math.min(rows.length - from, database.dialect.recordsPerInsert))
      yield statements.insertKeys(rows.slice(from, from + count))
      from += count
    }
    const inOrder = [...quotas].sort((a, b) => compareCodePoints(a.lineageId, b.lineageId))
    for (const { lineageId, row } of inOrder) yield statements.insertQuota(lineageId, row, false)
    if (!database.dialect.locksRows) return
    for (const some of inChunks([...new Set(lineageIds)].sort(compareCodePoints), IDS_PER_STATEMENT))
      yield statements.lockQuotas(some)
  }
}

function isUnsupported(error: unknown): boolean {
  return isLatchkeyError(error) && error.code === 'unsupported'
}

function* updatePlan(
  statements: Statements,
  id: string,
  update: ReturnType<Statements['updateKey']>,
): Plan<'updated' | 'conflict' | 'missing'> {
  if ((yield* affectedBy(update)) > 0) return 'updated'
  return (yield* rowsOf(statements.lineageOf(id))).length > 0 ? 'conflict' : 'missing'
}

function* setQuotaPlan(statements: Statements, id: string, quota: KeyChange['quota'], at: Date): Plan<void> {
  const [key] = yield* rowsOf(statements.lineageOf(id))
  const lineageId = String(key?.lineage_id)
  if (!quota) {
    yield statements.removeQuota(lineageId)
    return
  }
  // There must be a row to lock. A row inserted here is overwritten below.
  yield statements.insertQuota(lineageId, toQuotaRow({ ...startQuota(quota, null, at), epoch: 0 }), true)
  const [existing] = yield* rowsOf(statements.lockQuotas([lineageId]))
  const next = startQuota(quota, existing ? toQuotaRecord(existing) : null, at)
  yield statements.updateQuota(lineageId, toQuotaRow(next))
}

/** A swap that shares nothing with the caller. */
interface ReadSwap extends Pick<QuotaSwap, 'lineageId' | 'expected'> {
  readonly row: readonly Cell[]
}

function readSwap({ lineageId, expected, next }: QuotaSwap): ReadSwap {
  return { lineageId, expected: copyData(expected), row: toQuotaRow(next) }
}

function* swapPlan(statements: Statements, { lineageId, expected, row }: ReadSwap): Plan<QuotaSwapResult> {
  if (!isStorable(lineageId)) return { swapped: false, current: null }
  if ((yield* affectedBy(statements.swapQuota(lineageId, expected, row))) > 0) return { swapped: true }
  const [found] = yield* rowsOf(statements.readQuota(lineageId))
  return { swapped: false, current: found && !isRemoved(found) ? toQuotaRecord(found) : null }
}

/** Locks the quotas before it reads which lineages still have keys: an insert of a successor waits for the same lock. */
function* purgePlan(statements: Statements, ids: readonly string[], at: Date): Plan<number> {
  const ended = yield* rowsOf(statements.lockEnded(ids, at))
  if (ended.length === 0) return 0
  const purged = yield* affectedBy(statements.deleteKeys(ended.map(({ id }) => String(id))))
  const lineageIds = [...new Set(ended.map((row) => String(row.lineage_id)))].sort(compareCodePoints)
  const locked = yield* rowsOf(statements.lockQuotas(lineageIds))
  if (locked.length === 0) return purged
  const withQuota = locked.map((row) => String(row.lineage_id))
  const living = yield* rowsOf(statements.livingLineages(withQuota))
  const dead = withQuota.filter((lineageId) => !living.some((row) => row.lineage_id === lineageId))
  if (dead.length > 0) yield statements.deleteQuotas(dead)
  return purged
}

function* agreedPlan(statements: Statements, name: string): Plan<string | null> {
  const [row] = yield* rowsOf(statements.findAgreement(name))
  return row ? String(row.value) : null
}

/** One use for each key, in the order of the ids: a key that is twice in a statement would count once. */
function combineUses(batch: readonly UsageDelta[]): UsageDelta[] {
  const uses = new Map<string, UsageDelta>()
  for (const use of batch) {
    // No key has an id that cannot be stored, and it would keep the rest of the batch from counting.
    if (!isStorable(use.id)) continue
    const { id, count, lastUsedAt } = use
    const earlier = uses.get(id)
    const latest = earlier && earlier.lastUsedAt >= lastUsedAt ? earlier : use
    const lastUsedIp = latest.lastUsedIp !== null && isStorable(latest.lastUsedIp) ? latest.lastUsedIp : null
    uses.set(id, {
      id,
      count: count + (earlier?.count ?? 0),
      lastUsedAt: new Date(latest.lastUsedAt),
      lastUsedIp,
    })
  }
  return [...uses.values()].sort((a, b) => compareCodePoints(a.id, b.id))
}

/** @throws LatchkeyError `unsupported` for a text that a lenient server would cut off. */
function checkLengths(columns: readonly string[], cells: readonly Cell[], { dialect }: Database): void {
  const { maxLengths, title } = dialect
  if (!maxLengths) return
  for (const [i, column] of columns.entries()) {
    const [cell, maxLength] = [cells[i], maxLengths[column]]
    if (typeof cell !== 'string' || maxLength === undefined) continue
    if (cell.length <= maxLength || [...cell].length <= maxLength) continue
    const problem = `the column "${column}" holds at most ${maxLength} characters in ${title}`
    throw new LatchkeyError('unsupported', problem)
  }
}

function* inChunks<T>(values: readonly T[], size: number): Generator<readonly T[]> {
  for (let from = 0; from < values.length; from += size) yield values.slice(from, from + size)
}

function largestPowerOfTwo(atMost: number): number {
  return 2 ** Math.floor(Math.log2(atMost))
}
