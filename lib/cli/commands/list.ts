import type { Command } from 'commander'
import type { ApiKeyPage, ListOptions } from '../../core/manage/key-management.ts'
import type { Act } from '../act.ts'
import { refuseInterrupted } from '../cli-error.ts'
import type { Context } from '../context.ts'
import { toSafeJson } from '../escape-text.ts'
import { EXIT } from '../exit-codes.ts'
import type { Session } from '../open-session.ts'
import { parseInteger, parseWord } from '../parse-values.ts'
import { keysTable } from '../show-key.ts'
import { addSelection, readSelection, type SelectionOptions } from './selection.ts'

interface Options extends SelectionOptions {
  readonly order?: string
  readonly limit?: string
  readonly cursor?: string
  readonly all?: boolean
}

const MAX_PAGE = 1_000

export function addList(program: Command, act: Act): void {
  addSelection(program.command('list').description('list keys in order of creation'))
    .option('--order <order>', 'oldest or newest first (default: oldest)')
    .option('--limit <n>', 'how many keys to show, up to 1000 (default: 50)')
    .option('--cursor <cursor>', 'go on where the previous page ended')
    .option('--all', 'show all keys')
    .action(act(list))
}

async function list(context: Context, options: Options): Promise<number> {
  const limit = options.limit === undefined ? undefined : parseInteger('--limit', options.limit, 1, MAX_PAGE)
  const order =
    options.order === undefined ? undefined : parseWord('--order', options.order, ['oldest', 'newest'])
  const asked: ListOptions = {
    ...readSelection(options, Date.now()),
    ...(order && { order }),
    ...(options.cursor !== undefined && { cursor: options.cursor }),
    limit: options.all ? MAX_PAGE : (limit ?? 50),
  }
  const session = await context.openSession()
  const pages = options.all ? allPages(context, session, asked) : onePage(session, asked)
  await (context.output.isJson ? printJson(context, pages) : printTables(context, pages, options))
  return EXIT.ok
}

async function* onePage({ keys }: Session, asked: ListOptions): AsyncGenerator<ApiKeyPage> {
  yield await keys.list(asked)
}

async function* allPages({ io }: Context, { keys }: Session, asked: ListOptions): AsyncGenerator<ApiKeyPage> {
  let cursor = asked.cursor
  do {
    refuseInterrupted(io.signal)
    const page: ApiKeyPage = await keys.list({ ...asked, ...(cursor !== undefined && { cursor }) })
    cursor = page.nextCursor
    // One document: the last page says that there is no more.
    yield page
  } while (cursor !== undefined)
}

/** One document however many pages, written as they come. */
async function printJson({ output }: Context, pages: AsyncIterable<ApiKeyPage>): Promise<void> {
  let separator = '{"apiKeys":['
  let nextCursor: string | undefined
  for await (const page of pages) {
    nextCursor = page.nextCursor
    for (const apiKey of page.apiKeys) {
      await output.write(`${separator}\n${toSafeJson(apiKey)}`)
      separator = ','
    }
  }
  if (separator !== ',') await output.write(separator)
  await output.write(`\n]${nextCursor === undefined ? '' : `,"nextCursor":${JSON.stringify(nextCursor)}`}}\n`)
}

async function printTables(
  context: Context,
  pages: AsyncIterable<ApiKeyPage>,
  options: Options,
): Promise<void> {
  const { output } = context
  let count = 0
  let nextCursor: string | undefined
  for await (const page of pages) {
    count += page.apiKeys.length
    nextCursor = page.nextCursor
    if (page.apiKeys.length > 0) await output.print(keysTable(output, page.apiKeys))
  }
  if (count === 0) output.note('no keys')
  else if (nextCursor !== undefined && !options.all) {
    output.note(`there are more: --cursor ${nextCursor}, or --all`)
  }
}
