import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { Command } from 'commander'
import type { ImportFormat, KeyFormat } from '../../core/keys/imported-format.ts'
import type { ImportedKey } from '../../core/keys/imported-key.ts'
import type { KeyStore } from '../../core/keys/key-store.ts'
import type { KeyRecord } from '../../core/keys/record.ts'
import type { Act } from '../act.ts'
import { CliError, refuseInterrupted, usageError } from '../cli-error.ts'
import type { Context } from '../context.ts'
import { firstLine } from '../describe-error.ts'
import { EXIT } from '../exit-codes.ts'
import type { Session } from '../open-session.ts'
import { formatBytes, type Progress, startProgress } from '../progress.ts'
import { KeyCopy } from '../transfer/copy-keys.ts'
import { type Line, readLines } from '../transfer/read-lines.ts'
import { isFooter, isHeader, readRecord, withDates } from '../transfer/record-lines.ts'

interface Options {
  readonly format?: string
  readonly by?: string
}

/** What became of the lines. */
interface Report {
  imported: number
  /** There already, and the same. */
  skipped: number
  /** There already, and not the same; left alone. */
  different: number
  /** Not readable as a key. */
  invalid: number
}

/** So many problems are named one by one. */
const MAX_NAMED = 20

export function addImport(program: Command, act: Act): void {
  program
    .command('import')
    .description('read keys from lines of JSON: an export, or rows of another product')
    .argument('[file]', 'the file to read; standard input if left out')
    .option('--format <name>', 'the format of the rows: its name in "formats" of the configuration')
    .option('--by <who>', 'who imports')
    .action(act(importKeys))
}

async function importKeys(context: Context, options: Options, file?: string): Promise<number> {
  const { io, output } = context
  if (file === undefined && io.stdin.isTTY) throw usageError('name a file, or send one to standard input')
  const source = await openSource(context, file)
  const problems = new Problems(context)
  try {
    const report = await importSource(context, options, source, problems)
    source.progress.end()
    problems.summarise()
    if (output.isJson) await output.printJson(report)
    else await output.say(describe(report))
    return report.different + report.invalid > 0 || problems.isCutOff ? EXIT.failed : EXIT.ok
  } finally {
    source.progress.end()
  }
}

function describe({ imported, skipped, different, invalid }: Report): string {
  const parts = [`Imported ${imported} keys`]
  if (skipped > 0) parts.push(`${skipped} were there already`)
  if (different > 0) parts.push(`${different} are there with other contents and were left alone`)
  if (invalid > 0) parts.push(`${invalid} lines are not keys`)
  return `${parts.join('; ')}.`
}

interface Source {
  readonly lines: AsyncGenerator<readonly Line[]>
  readonly progress: Progress
}

async function openSource({ io, output }: Context, file: string | undefined): Promise<Source> {
  let total: number | null = null
  let stream: AsyncIterable<string | Uint8Array> = io.stdin as never
  if (file !== undefined) {
    const path = resolve(io.cwd, file)
    const stats = await stat(path).catch((error: unknown) => {
      throw usageError(`${file} cannot be read: ${firstLine(error)}`)
    })
    if (stats.isDirectory()) throw usageError(`${file} is a folder`)
    total = stats.size
    stream = createReadStream(path, { highWaterMark: 1_048_576 })
  }
  const progress = startProgress(io, output, 'Importing', total, formatBytes)
  return { lines: readLines(counted(stream, progress.update)), progress }
}

async function* counted(
  chunks: AsyncIterable<string | Uint8Array>,
  onBytes: (done: number) => void,
): AsyncGenerator<string | Uint8Array> {
  let bytes = 0
  for await (const chunk of chunks) {
    yield chunk
    bytes += chunk.length
    onBytes(bytes)
  }
}

/** Names the first problems, and counts the rest. */
class Problems {
  isCutOff = false
  private count = 0

  constructor(private readonly context: Context) {}

  name(problem: string): void {
    this.count += 1
    if (this.count <= MAX_NAMED) this.context.output.note(problem)
  }

  cutOff(): void {
    if (this.isCutOff) return
    this.isCutOff = true
    this.context.output.note(
      'the file has no last line with their number: it was cut off, and keys may be missing',
    )
  }

  summarise(): void {
    if (this.count > MAX_NAMED) this.context.output.note(`and ${this.count - MAX_NAMED} more`)
  }
}

async function importSource(
  context: Context,
  options: Options,
  { lines }: Source,
  problems: Problems,
): Promise<Report> {
  const first = await firstLines(lines)
  if (first.length === 0)
    throw new CliError('the file is empty: it was cut off, or nothing was written to it')
  const all = chain(first, lines)
  const head = first[0] === undefined ? undefined : parse(first[0])
  if (isHeader(head)) {
    if (options.format !== undefined)
      throw usageError('this file is an export of latchkey: leave out --format')
    if (head.version !== 1) throw usageError('this file was written by a later release: update latchkey')
    return importRecords(context, all, problems)
  }
  return importRows(context, options, all, problems)
}

async function firstLines(lines: AsyncGenerator<readonly Line[]>): Promise<readonly Line[]> {
  for (;;) {
    const { value, done } = await lines.next()
    if (done) return []
    if (value.length > 0) return value
  }
}

async function* chain(
  first: readonly Line[],
  rest: AsyncGenerator<readonly Line[]>,
): AsyncGenerator<readonly Line[]> {
  yield first
  yield* rest
}

function parse({ text }: Line): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const BATCH = 5_000

/** Reads the lines of an export. They go into the store as they are. */
async function importRecords(
  context: Context,
  chunks: AsyncIterable<readonly Line[]>,
  problems: Problems,
): Promise<Report> {
  const { store } = await context.openStore()
  const work = new RecordImport(store, problems)
  for await (const lines of chunks) {
    for (const line of lines) {
      work.add(line)
      if (!work.isBatchFull) continue
      refuseInterrupted(context.io.signal)
      await work.storeBatch()
    }
  }
  refuseInterrupted(context.io.signal)
  return work.finish()
}

/** An import of exported records on its way. */
class RecordImport {
  private readonly copy: KeyCopy
  private batch: KeyRecord[] = []
  private invalid = 0
  /** Records since the last header. */
  private read = 0
  private isComplete = false

  constructor(
    store: KeyStore,
    private readonly problems: Problems,
  ) {
    this.copy = new KeyCopy(store, {
      isWholeStore: false,
      onProblem: (id, what) => problems.name(`${id}: ${DIFFERENCES[what]}`),
      onProgress: () => {},
    })
  }

  get isBatchFull(): boolean {
    return this.batch.length >= BATCH
  }

  add(line: Line): void {
    const value = parse(line)
    // Files may have been put one after the other.
    if (isHeader(value)) this.isComplete = false
    else if (isFooter(value)) this.end(value.count)
    else this.addRecord(value, line.number)
  }

  private end(count: number): void {
    this.isComplete = count === this.read
    if (!this.isComplete) this.problems.cutOff()
    this.read = 0
  }

  private addRecord(value: unknown, number: number): void {
    this.read += 1
    this.isComplete = false
    try {
      this.batch.push(readRecord(value))
    } catch (error) {
      this.invalid += 1
      this.problems.name(`line ${number}: ${firstLine(error)}`)
    }
  }

  async storeBatch(): Promise<void> {
    const batch = this.batch
    this.batch = []
    await this.copy.add(batch)
  }

  async finish(): Promise<Report> {
    await this.storeBatch()
    if (!this.isComplete) this.problems.cutOff()
    const { copied, same, older, newer, different } = this.copy.counts
    return { imported: copied, skipped: same, different: older + newer + different, invalid: this.invalid }
  }
}

const DIFFERENCES: Readonly<Record<string, string>> = {
  older: 'there in an older version, which was left alone',
  newer: 'there in a newer version, which was left alone',
  different: 'another key has this id or lookup, or both were changed; it was left alone',
}

/** Reads rows of another product, through a format, or arguments of `keys.import`. */
async function importRows(
  context: Context,
  { format, by }: Options,
  chunks: AsyncIterable<readonly Line[]>,
  problems: Problems,
): Promise<Report> {
  const session = await context.openSession()
  const read = await readerOf(context, session, format)
  const numbers = new LineNumbers()
  const report = { imported: 0, skipped: 0, different: 0, invalid: 0 }
  const { imported, duplicates } = await session.keys.importAll(rowsOf(context, chunks, numbers), {
    read,
    onDuplicate: 'skip',
    ...(by !== undefined && { by }),
    onInvalid({ index, error }) {
      report[error.code === 'duplicate_key' ? 'different' : 'invalid'] += 1
      problems.name(`line ${numbers.at(index)}: ${error.message}`)
    },
    onProgress: ({ imported: count, duplicates: there, invalid }) => numbers.forget(count + there + invalid),
  })
  return { ...report, imported, skipped: duplicates }
}

async function* rowsOf(
  { io }: Context,
  chunks: AsyncIterable<readonly Line[]>,
  numbers: LineNumbers,
): AsyncGenerator<unknown> {
  for await (const lines of chunks) {
    refuseInterrupted(io.signal)
    for (const line of lines) {
      numbers.add(line.number)
      yield parse(line)
    }
  }
}

/** Where rows stand in the file: empty lines are no rows. */
class LineNumbers {
  private numbers: number[] = []
  private forgotten = 0

  add(number: number): void {
    this.numbers.push(number)
  }

  at(index: number): number | string {
    return this.numbers[index - this.forgotten] ?? `of row ${index + 1}`
  }

  /** Rows before this one are done with. */
  forget(before: number): void {
    this.numbers = this.numbers.slice(Math.max(0, before - this.forgotten))
    this.forgotten = Math.max(before, this.forgotten)
  }
}

const IMPORTED_DATES = ['createdAt', 'updatedAt', 'expiresAt', 'lastUsedAt', 'revokedAt']

async function readerOf(
  context: Context,
  { store }: Session,
  name: string | undefined,
): Promise<(row: unknown) => ImportedKey> {
  if (name === undefined) return (row) => withDates(row, IMPORTED_DATES) as ImportedKey
  const { given } = await context.configuration()
  const formats: readonly (KeyFormat & Partial<ImportFormat<unknown>>)[] = given.formats ?? []
  const format = formats.find((one) => one.name === name)
  if (!format) {
    const known = formats.map((one) => one.name).join(', ') || 'none'
    const where = store ? `it has ${known}` : 'it has "keys": give "formats" and "store" instead'
    throw usageError(`"formats" of the configuration has no such format (${where})`)
  }
  const { read } = format
  return read
    ? (row) => read.call(format, row)
    : (row) => ({ ...(withDates(row, IMPORTED_DATES) as ImportedKey), format: name })
}
