import { resolve } from 'node:path'
import type { Command } from 'commander'
import type { KeyFilter, KeyStore } from '../../core/keys/key-store.ts'
import type { Act } from '../act.ts'
import { refuseInterrupted, usageError } from '../cli-error.ts'
import type { Context } from '../context.ts'
import { EXIT } from '../exit-codes.ts'
import { collect, parseOwner } from '../parse-values.ts'
import { startProgress } from '../progress.ts'
import { pagesOf } from '../transfer/pages.ts'
import { HEADER, writeRecord } from '../transfer/record-lines.ts'
import { createFileSink, type Sink } from '../transfer/write-file.ts'

interface Options {
  readonly owner?: readonly string[]
  readonly force?: boolean
}

export function addExport(program: Command, act: Act): void {
  program
    .command('export')
    .description('write every key as a line of JSON, with its digest: for a backup, or for import elsewhere')
    .argument('[file]', 'the file to write; standard output if left out')
    .option('--owner <type:id>', 'only keys of this owner (repeat)', collect)
    .option('--force', 'replace the file if it exists')
    .action(act(exportKeys))
}

async function exportKeys(context: Context, options: Options, file?: string): Promise<number> {
  const { io, output } = context
  const owners = options.owner?.map((owner) => parseOwner('--owner', owner))
  const filter: KeyFilter = owners ? { owners } : {}
  if (file === undefined && output.isTerminal) {
    throw usageError('an export holds digests of keys: name a file, or send standard output to one')
  }
  const { store } = await context.openStore()
  const total = (await store.count?.(filter)) ?? null
  const sink =
    file === undefined
      ? outputSink(context)
      : await createFileSink(resolve(io.cwd, file), options.force === true)
  const progress = startProgress(io, output, 'Exporting', total)
  try {
    const count = await writeKeys(context, store, filter, sink, progress.update)
    await sink.finish()
    progress.end()
    if (file !== undefined) await tell(context, count, file)
    return EXIT.ok
  } catch (error) {
    progress.end()
    await sink.discard()
    throw error
  }
}

function outputSink({ output }: Context): Sink {
  return { write: (text) => output.write(text), async finish() {}, async discard() {} }
}

async function tell({ output }: Context, count: number, file: string): Promise<void> {
  if (output.isJson) await output.printJson({ exported: count })
  else
    await output.say(`Exported ${count} keys to ${file}. It holds digests: keep it as safe as the database.`)
}

async function writeKeys(
  { io }: Context,
  store: KeyStore,
  filter: KeyFilter,
  sink: Sink,
  onProgress: (done: number) => void,
): Promise<number> {
  let count = 0
  await sink.write(`${JSON.stringify({ ...HEADER, exportedAt: new Date() })}\n`)
  for await (const page of pagesOf(store, filter)) {
    refuseInterrupted(io.signal)
    await sink.write(page.map((record) => `${writeRecord(record)}\n`).join(''))
    count += page.length
    onProgress(count)
  }
  await sink.write(`${JSON.stringify({ end: true, count })}\n`)
  return count
}
