import { isLatchkeyError, LatchkeyError } from '../../errors.ts'
import { checkFunction, checkInteger, checkObject, checkOneOf, fail } from '../../internal/options.ts'
import type { Digester } from '../digests/digest.ts'
import { readCoverage } from '../digests/digest-coverage.ts'
import type { ImportedKey } from '../keys/imported-key.ts'
import type { KeyStore } from '../keys/key-store.ts'
import type { KeyRecord } from '../keys/record.ts'
import { checkBy } from './change-keys.ts'
import { insertConfirmed } from './insert-confirmed.ts'
import type { ImportAllOptions, ImportProgress } from './key-management.ts'
import { type ImportParts, prepareRow, type Row, toInvalid } from './prepare-import.ts'

const MAX_BATCH = 10_000
/** How often a batch is tried again without what others have stored meanwhile. */
const MAX_TRIES = 5
/** How many stored keys are looked up at once. */
const LOOK_UPS = 50

/** Brings the keys of all rows into the store, in batches. */
export async function importAll<T = ImportedKey>(
  parts: ImportParts,
  rows: Iterable<T> | AsyncIterable<T>,
  options: ImportAllOptions<T> = {},
): Promise<ImportProgress> {
  if (!isIterable(rows)) fail('rows', 'an iterable or an async iterable', rows)
  const { batchSize, by, ...checked } = checkOptions(options)
  const work = new BulkImport(parts, checked)
  let index = 0
  try {
    for await (const given of rows) {
      await work.addRow(given, index++)
      if (work.batch.length >= batchSize) await work.storeBatch()
    }
    if (work.batch.length > 0) await work.storeBatch()
    return { ...work.progress }
  } catch (error) {
    throw withProgress(error, work.progress.imported)
  } finally {
    const at = new Date(parts.clock.now())
    parts.emit({ type: 'keys.imported', at, count: work.progress.imported, by })
  }
}

/** One import on its way: what is stored so far, and the rows that are checked and wait to be stored. */
class BulkImport<T> {
  readonly progress = { imported: 0, duplicates: 0, invalid: 0 }
  batch: Row[] = []

  constructor(
    private readonly parts: ImportParts,
    private readonly options: Omit<ReturnType<typeof checkOptions<T>>, 'batchSize' | 'by'>,
  ) {}

  async addRow(given: T, row: number): Promise<void> {
    const { read } = this.options
    try {
      this.batch.push(await prepareRow(this.parts, read(given), row))
    } catch (error) {
      if (isLatchkeyError(error) && error.code === 'unsupported') throw new RowError(row, error)
      if (isLatchkeyError(error) && error.code !== 'invalid_import') throw error
      await this.refuse(row, toInvalid(error))
    }
  }

  /** Skips a row, or ends the import with its error. */
  private async refuse(row: number, error: LatchkeyError): Promise<void> {
    const { onInvalid } = this.options
    if (!onInvalid) throw new RowError(row, error)
    this.progress.invalid += 1
    await onInvalid({ index: row, error })
  }

  async storeBatch(): Promise<void> {
    const { onInvalid, onProgress } = this.options
    let left: readonly Row[] = this.batch
    this.batch = []
    while (left.length > 0) {
      const { distinct, repeated } = apart(left)
      // Where one refusal ends the import, nothing of the batch is stored before.
      if (!onInvalid) for (const { row, twin } of repeated) await this.meetTwin(row, twin.record)
      const refused = await this.storeDistinct(distinct)
      const again: Row[] = []
      for (const { row, twin } of onInvalid ? repeated : []) {
        // Its twin is no reason to leave it out where that was refused itself.
        if (refused.has(twin)) again.push(row)
        else await this.meetTwin(row, twin.record)
      }
      left = again
    }
    await onProgress?.({ ...this.progress })
  }

  /** Stores what is not there yet, and answers the rows that were refused. */
  private async storeDistinct(rows: readonly Row[]): Promise<ReadonlySet<Row>> {
    const refused = new Set<Row>()
    let left = rows
    for (let tries = 1; left.length > 0; tries++) {
      const taken = await this.insert(left)
      if (!taken) break
      if (taken.code === 'unsupported') return this.storeApart(left, refused, taken)
      if (tries >= MAX_TRIES) throw taken
      left = await this.withoutStored(left, refused)
    }
    return refused
  }

  /** Row by row, if need be: a text that the store cannot keep is the fault of one of them. */
  private async storeApart(
    rows: readonly Row[],
    refused: Set<Row>,
    error: LatchkeyError,
  ): Promise<ReadonlySet<Row>> {
    const [row, ...others] = rows
    // Where one refusal ends the import, nothing of the batch is stored before.
    if (!this.options.onInvalid || !row) throw error
    if (others.length === 0) {
      await this.refuse(row.index, error)
      return refused.add(row)
    }
    const half = Math.ceil(rows.length / 2)
    for (const some of [rows.slice(0, half), rows.slice(half)]) {
      for (const one of await this.storeDistinct(some)) refused.add(one)
    }
    return refused
  }

  /** Null when all of them were stored; the error when one is there already or cannot be kept, and then none was. */
  private async insert(left: readonly Row[]): Promise<LatchkeyError | null> {
    try {
      const records = left.map(({ record }) => record)
      await insertConfirmed(this.parts.store, records)
    } catch (error) {
      if (isLatchkeyError(error) && ['duplicate_key', 'unsupported'].includes(error.code)) return error
      throw error
    }
    for (const { record } of left) this.parts.cache.forgetMissing(record.lookup)
    this.progress.imported += left.length
    return null
  }

  private async withoutStored(all: readonly Row[], refused: Set<Row>): Promise<Row[]> {
    const kept: Row[] = []
    for (let from = 0; from < all.length; from += LOOK_UPS) {
      const some = all.slice(from, from + LOOK_UPS)
      const stored = await Promise.all(some.map(({ record }) => findStored(this.parts.store, record)))
      for (const [i, row] of some.entries()) {
        const twin = stored[i]
        if (!twin) kept.push(row)
        else if (!(await this.meetTwin(row, twin))) refused.add(row)
      }
    }
    return kept
  }

  /** Skips a row that is already stored, or refuses it and returns false. */
  private async meetTwin(row: Row, twin: KeyRecord): Promise<boolean> {
    const same = await isSame(this.parts, row, twin)
    if (same && this.options.isSkipping) {
      this.progress.duplicates += 1
      return true
    }
    const problem = same
      ? 'The key already exists; set onDuplicate to "skip" to skip it'
      : 'Another key has the same lookup or id'
    await this.refuse(row.index, new LatchkeyError('duplicate_key', problem, { stack: false }))
    return false
  }
}

async function findStored(store: KeyStore, { id, lookup }: KeyRecord): Promise<KeyRecord | null> {
  return (await store.find({ lookups: [lookup] })) ?? store.find({ id })
}

/**
 * Whether a stored key is the one of the row. Its digest may have been rewritten since: then its lookup and its owner
 * have to do, unless the text is at hand.
 */
async function isSame(
  { guard, digester }: ImportParts,
  { record, key }: Row,
  stored: KeyRecord,
): Promise<boolean> {
  if (record.lookup !== stored.lookup) return false
  if (record.digest === stored.digest) return true
  if (key !== null) return guard.run('digest', () => isKeyOf(digester, stored, key), ['unavailable'])
  const { owner } = record
  if (owner.type !== stored.owner.type || owner.id !== stored.owner.id) return false
  return schemeOf(record.digest) !== schemeOf(stored.digest)
}

async function isKeyOf(digester: Digester, { digest }: KeyRecord, key: string): Promise<boolean> {
  const prepared = digester.prepare(digest)
  if (await prepared.matches(key)) return true
  await prepared.beforeBlame()
  return false
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
