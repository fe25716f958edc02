import { isLatchkeyError, LatchkeyError } from '../../errors.ts'
import { isTypeError } from '../../internal/any-realm.ts'
import { checkFunction, checkInteger, checkObject, checkOneOf, fail } from '../../internal/options.ts'
import type { Clock } from '../clock.ts'
import type { Digester } from '../digests/digest.ts'
import { readCoverage } from '../digests/digest-coverage.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { DependencyRunner } from '../faults.ts'
import { beginWithGivenId } from '../keys/given-id.ts'
import type { ImportedFormats } from '../keys/imported-format.ts'
import type { ImportedKey } from '../keys/imported-key.ts'
import { newKeyId } from '../keys/key-format.ts'
import { DEFAULT_SETTINGS } from '../keys/key-settings.ts'
import type { KeyStore } from '../keys/key-store.ts'
import { type ApiKey, type KeyRecord, keyStatus, toApiKey } from '../keys/record.ts'
import { startQuota } from '../limits/quota.ts'
import { requireCapabilities } from '../store-access.ts'
import type { RecordCache } from '../verify/record-cache.ts'
import { checkBy } from './change-keys.ts'
import { type CheckedImport, checkImport } from './check-imported-key.ts'
import { insertConfirmed } from './insert-confirmed.ts'
import type { ChangeOptions, ImportAllOptions, ImportProgress, KeyManagement } from './key-management.ts'

export interface ImportParts {
  readonly store: KeyStore
  readonly digester: Digester
  readonly formats: ImportedFormats
  readonly cache: RecordCache
  readonly clock: Clock
  readonly guard: DependencyRunner
  emit(event: ApiKeyEvent): void
}

/** A row on its way into the store. */
interface Row {
  readonly index: number
  readonly record: KeyRecord
  /** The key's text, where it was given: it says more surely than a digest whether a stored key is the same. */
  readonly key: string | null
}

const MAX_BATCH = 10_000
/** How often a batch is tried again without what others have stored meanwhile. */
const MAX_TRIES = 5
/** How many stored keys are looked up at once. */
const LOOK_UPS = 50

/** Brings keys of other products into the store. */
export function createKeyImport(parts: ImportParts): Pick<KeyManagement, 'import' | 'importAll'> {
  const { store, digester, formats, cache, clock, guard, emit } = parts

  async function importOne(imported: ImportedKey, options: ChangeOptions = {}): Promise<ApiKey> {
    checkObject('options', options, ['by'])
    const by = checkBy(options)
    const { record } = await prepare(imported, 0)
    await insertConfirmed(store, [record])
    cache.forgetMissing(record.lookup)
    const at = new Date(clock.now())
    const apiKey = toApiKey(record, keyStatus(record, at))
    emit({ type: 'key.imported', at, keyId: record.id, owner: record.owner, by, before: null, apiKey })
    return apiKey
  }

  async function importAll<T = ImportedKey>(
    rows: Iterable<T> | AsyncIterable<T>,
    options: ImportAllOptions<T> = {},
  ): Promise<ImportProgress> {
    if (!isIterable(rows)) fail('rows', 'an iterable or an async iterable', rows)
    const { read, batchSize, isSkipping, onInvalid, onProgress, by } = checkOptions(options)
    const progress = { imported: 0, duplicates: 0, invalid: 0 }
    let batch: Row[] = []
    let index = 0

    /** Skips a row, or ends the import with its error. */
    async function refuse(row: number, error: LatchkeyError): Promise<void> {
      if (!onInvalid) throw new RowError(row, error)
      progress.invalid += 1
      await onInvalid({ index: row, error })
    }

    async function addRow(given: T, row: number): Promise<void> {
      try {
        batch.push(await prepare(read(given), row))
      } catch (error) {
        if (isLatchkeyError(error) && error.code === 'unsupported') throw new RowError(row, error)
        if (isLatchkeyError(error) && error.code !== 'invalid_import') throw error
        await refuse(row, toInvalid(error))
      }
    }

    async function storeBatch(): Promise<void> {
      let left: readonly Row[] = batch
      batch = []
      while (left.length > 0) {
        const { distinct, repeated } = apart(left)
        // Where one refusal ends the import, nothing of the batch is stored before.
        if (!onInvalid) for (const { row, twin } of repeated) await meetTwin(row, twin.record)
        const refused = await storeDistinct(distinct)
        const again: Row[] = []
        for (const { row, twin } of onInvalid ? repeated : []) {
          // Its twin is no reason to leave it out where that was refused itself.
          if (refused.has(twin)) again.push(row)
          else await meetTwin(row, twin.record)
        }
        left = again
      }
      await onProgress?.({ ...progress })
    }

    /** Stores what is not there yet, and answers the rows that were refused. */
    async function storeDistinct(rows: readonly Row[]): Promise<ReadonlySet<Row>> {
      const refused = new Set<Row>()
      let left = rows
      for (let tries = 1; left.length > 0; tries++) {
        const taken = await insert(left)
        if (!taken) break
        if (taken.code === 'unsupported') return storeApart(left, refused, taken)
        if (tries >= MAX_TRIES) throw taken
        left = await withoutStored(left, refused)
      }
      return refused
    }

    /** Row by row, if need be: a text that the store cannot keep is the fault of one of them. */
    async function storeApart(
      rows: readonly Row[],
      refused: Set<Row>,
      error: LatchkeyError,
    ): Promise<ReadonlySet<Row>> {
      const [row, ...others] = rows
      // Where one refusal ends the import, nothing of the batch is stored before.
      if (!onInvalid || !row) throw error
      if (others.length === 0) {
        await refuse(row.index, error)
        return refused.add(row)
      }
      const half = Math.ceil(rows.length / 2)
      for (const some of [rows.slice(0, half), rows.slice(half)]) {
        for (const one of await storeDistinct(some)) refused.add(one)
      }
      return refused
    }

    /** Null when all of them were stored; the error when one is there already or cannot be kept, and then none was. */
    async function insert(left: readonly Row[]): Promise<LatchkeyError | null> {
      try {
        const records = left.map(({ record }) => record)
        await insertConfirmed(store, records)
      } catch (error) {
        if (isLatchkeyError(error) && ['duplicate_key', 'unsupported'].includes(error.code)) return error
        throw error
      }
      for (const { record } of left) cache.forgetMissing(record.lookup)
      progress.imported += left.length
      return null
    }

    async function withoutStored(all: readonly Row[], refused: Set<Row>): Promise<Row[]> {
      const kept: Row[] = []
      for (let from = 0; from < all.length; from += LOOK_UPS) {
        const some = all.slice(from, from + LOOK_UPS)
        const stored = await Promise.all(some.map(({ record }) => findStored(record)))
        for (const [i, row] of some.entries()) {
          const twin = stored[i]
          if (!twin) kept.push(row)
          else if (!(await meetTwin(row, twin))) refused.add(row)
        }
      }
      return kept
    }

    /** Skips a row that is already stored, or refuses it and returns false. */
    async function meetTwin(row: Row, twin: KeyRecord): Promise<boolean> {
      const same = await isSame(row, twin)
      if (same && isSkipping) {
        progress.duplicates += 1
        return true
      }
      const problem = same
        ? 'The key already exists; set onDuplicate to "skip" to skip it'
        : 'Another key has the same lookup or id'
      await refuse(row.index, new LatchkeyError('duplicate_key', problem, { stack: false }))
      return false
    }

    try {
      for await (const given of rows) {
        await addRow(given, index++)
        if (batch.length >= batchSize) await storeBatch()
      }
      if (batch.length > 0) await storeBatch()
      return { ...progress }
    } catch (error) {
      throw withProgress(error, progress.imported)
    } finally {
      emit({ type: 'keys.imported', at: new Date(clock.now()), count: progress.imported, by })
    }
  }

  async function prepare(imported: unknown, index: number): Promise<Row> {
    const now = new Date(clock.now())
    const checked = check(imported, now)
    requireCapabilities(store, checked.settings)
    const { proof } = checked
    if ('digest' in proof) return { index, record: toRecord(checked, proof.digest, now, cache), key: null }
    const digest = await guard.run('digest', () => digester.create(proof.key), ['unavailable'])
    return { index, record: toRecord(checked, digest, now, cache), key: proof.key }
  }

  function check(imported: unknown, now: Date): CheckedImport {
    try {
      return checkImport(imported, formats, now)
    } catch (error) {
      throw toInvalid(error)
    }
  }

  async function findStored({ id, lookup }: KeyRecord): Promise<KeyRecord | null> {
    return (await store.find({ lookups: [lookup] })) ?? store.find({ id })
  }

  /**
   * Whether a stored key is the one of the row. Its digest may have been rewritten since: then its lookup and its owner
   * have to do, unless the text is at hand.
   */
  async function isSame({ record, key }: Row, stored: KeyRecord): Promise<boolean> {
    if (record.lookup !== stored.lookup) return false
    if (record.digest === stored.digest) return true
    if (key !== null) return guard.run('digest', () => isKeyOf(stored, key), ['unavailable'])
    const { owner } = record
    if (owner.type !== stored.owner.type || owner.id !== stored.owner.id) return false
    return schemeOf(record.digest) !== schemeOf(stored.digest)
  }

  async function isKeyOf({ digest }: KeyRecord, key: string): Promise<boolean> {
    const prepared = digester.prepare(digest)
    if (await prepared.matches(key)) return true
    await prepared.beforeBlame()
    return false
  }

  return { import: importOne, importAll }
}

/** The first row of each lookup and id, and those that come again. */
function apart(rows: readonly Row[]): { distinct: Row[]; repeated: { row: Row; twin: Row }[] } {
  const byLookup = new Map<string, Row>()
  const byId = new Map<string, Row>()
  const distinct: Row[] = []
  const repeated: { row: Row; twin: Row }[] = []
  for (const row of rows) {
    const { id, lookup } = row.record
    const twin = byLookup.get(lookup) ?? byId.get(id)
    if (twin) repeated.push({ row, twin })
    else {
      distinct.push(row)
      byLookup.set(lookup, row)
      byId.set(id, row)
    }
  }
  return { distinct, repeated }
}

/** The end of an import by one of its rows. */
class RowError extends Error {
  constructor(
    readonly index: number,
    override readonly cause: LatchkeyError,
  ) {
    super()
  }
}

function withProgress(error: unknown, imported: number): unknown {
  if (error instanceof RowError) return described(error.cause, { index: error.index, imported })
  return isLatchkeyError(error) ? described(error, { imported }) : error
}

function described(error: LatchkeyError, details: { index?: number; imported: number }): LatchkeyError {
  const where = details.index === undefined ? '' : ` (row ${details.index})`
  return new LatchkeyError(error.code, `${error.message}${where}`, { cause: error.cause ?? error, details })
}

/** What is wrong with a row is no mistake of the program: its message is kept, and the code is that of a bad row. */
function toInvalid(error: unknown): LatchkeyError {
  if (isLatchkeyError(error)) return error
  const message = isTypeError(error) ? error.message : undefined
  return new LatchkeyError('invalid_import', message, { cause: error, stack: false })
}

/** Member by member: to spread objects of this size costs more than to check and hash a key. */
function toRecord(checked: CheckedImport, digest: string, now: Date, cache: RecordCache): KeyRecord {
  const { settings } = checked
  const id = checked.id ?? newKeyId()
  const { lineageId, version } =
    checked.id === null ? { lineageId: id, version: 1 } : beginWithGivenId(id, now, cache)
  return {
    id,
    lookup: checked.lookup,
    digest,
    lineageId,
    name: settings.name,
    prefix: checked.prefix,
    hint: checked.hint,
    owner: checked.owner,
    createdBy: checked.createdBy,
    permissions: settings.permissions ?? DEFAULT_SETTINGS.permissions,
    metadata: settings.metadata ?? DEFAULT_SETTINGS.metadata,
    enabled: checked.enabled,
    rateLimits: settings.rateLimits ?? null,
    quota: settings.quota ? startQuota(settings.quota, null, now) : null,
    allowedIps: settings.allowedIps ?? null,
    createdAt: checked.createdAt,
    updatedAt: checked.updatedAt,
    expiresAt: settings.expiresAt ?? null,
    idleExpiryMs: settings.idleExpiryMs ?? null,
    usageCount: checked.usageCount,
    lastUsedAt: checked.lastUsedAt,
    lastUsedIp: null,
    revokedAt: checked.revokedAt,
    revokedBy: null,
    revokedReason: null,
    rotatedFrom: null,
    rotatedTo: null,
    version,
  }
}

function isIterable(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  return Symbol.iterator in value || Symbol.asyncIterator in value
}

function schemeOf(digest: string): string | undefined {
  return readCoverage(digest).whole.split('$')[1]
}

function checkOptions<T>(options: ImportAllOptions<T>) {
  checkObject('options', options, ['by', 'read', 'batchSize', 'onDuplicate', 'onInvalid', 'onProgress'])
  const {
    // Without `read` the rows are imported keys, as its type says; each is checked like any other.
    read = (row: T) => row as unknown as ImportedKey,
    batchSize = 5_000,
    onDuplicate = 'fail',
  } = options
  checkFunction('read', read)
  checkOneOf('onDuplicate', onDuplicate, ['fail', 'skip'])
  for (const name of ['onInvalid', 'onProgress'] as const) {
    if (options[name] !== undefined) checkFunction(name, options[name])
  }
  return {
    read,
    batchSize: checkInteger('batchSize', batchSize, 1, MAX_BATCH),
    isSkipping: onDuplicate === 'skip',
    onInvalid: options.onInvalid,
    onProgress: options.onProgress,
    by: checkBy(options),
  }
}
