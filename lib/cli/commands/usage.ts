import type { Command } from 'commander'
import { offsetsOf } from '../../core/limits/calendar.ts'
import type { UsageBucket, UsageOptions, UsageReport, UsageTotals } from '../../core/usage/usage-report.ts'
import type { Act } from '../act.ts'
import { usageError } from '../cli-error.ts'
import type { Context } from '../context.ts'
import { EXIT } from '../exit-codes.ts'
import type { Output } from '../output.ts'
import { parseDuration, parseMoment, parseOwner, parseWord } from '../parse-values.ts'
import { formatCount } from '../progress.ts'
import { styleOf } from '../show-key.ts'
import { type Column, renderTable } from '../table.ts'

interface Options {
  readonly owner?: string
  readonly from?: string
  readonly to?: string
  readonly by?: string
  readonly timeZone?: string
}

export function addUsage(program: Command, act: Act): void {
  program
    .command('usage')
    .description('show how often a key was used and refused, or all keys of an owner, by day or hour')
    .argument('[id]', 'the id of the key')
    .option('--owner <type:id>', 'all keys of this owner together')
    .option('--from <when>', 'the beginning: 2027-01-31, 2027-01-31T18:00Z, or 7d for that long ago')
    .option('--to <when>', 'the end, in the same ways (default: now)')
    .option('--by <unit>', 'hour or day (default: day)')
    .option('--time-zone <zone>', 'whose days are meant, such as Europe/Berlin (default: UTC)')
    .action(act(usage))
}

async function usage(context: Context, options: Options, id?: string): Promise<number> {
  const { output } = context
  if ((id === undefined) === (options.owner === undefined))
    throw usageError('name the id of a key, or --owner')
  const asked = { ...readOptions(options), ...subjectOf(options, id) }
  const session = await context.openSession()
  const report = await session.keys.usage(asked)
  if (output.isJson) await output.printJson(report)
  else await output.print(reportTable(output, report))
  return EXIT.ok
}

function subjectOf({ owner }: Options, id: string | undefined): UsageOptions {
  return id === undefined ? { owner: parseOwner('--owner', owner as string) } : { key: id }
}

function readOptions({ from, to, by, timeZone }: Options): UsageOptions {
  const now = Date.now()
  return {
    ...(from !== undefined && { from: parsePast('--from', from, now) }),
    ...(to !== undefined && { to: parsePast('--to', to, now) }),
    ...(by !== undefined && { by: parseWord<'hour' | 'day'>('--by', by, ['hour', 'day']) }),
    ...(timeZone !== undefined && { timeZone }),
  }
}

/** A moment, or a duration ago. @throws CliError */
function parsePast(option: string, text: string, now: number): Date {
  const isDuration = /^\d+[a-z]+$/.test(text)
  return isDuration ? new Date(now - parseDuration(option, text)) : parseMoment(option, text, now)
}

/** Buckets without any use are left out: a report of a year by hour has 8,784. */
function reportTable(output: Output, { buckets, total, by, timeZone }: UsageReport): string {
  const columns: Column[] = [
    { title: by === 'hour' ? `HOUR (${timeZone})` : `DAY (${timeZone})` },
    { title: 'ADMITTED', align: 'right' },
    { title: 'REFUSED', align: 'right' },
    { title: 'REFUSED BY' },
    { title: 'UNITS' },
  ]
  const used = buckets.filter(
    ({ admitted, refused, units }) => admitted + refused > 0 || Object.keys(units).length > 0,
  )
  const rows = used.map((bucket) => [beginningOf(bucket, by, timeZone), ...cellsOf(bucket)])
  return renderTable(columns, [...rows, ['total', ...cellsOf(total)]], styleOf(output))
}

function cellsOf({ admitted, refused, refusedBy, units }: UsageTotals): readonly string[] {
  const listOf = (counts: Readonly<Record<string, number>>) =>
    Object.entries(counts)
      .map(([name, count]) => `${name} ${formatCount(count)}`)
      .join(', ')
  return [formatCount(admitted), formatCount(refused), listOf(refusedBy), listOf(units)]
}

/** When a bucket begins, as clocks of the time zone show it. */
function beginningOf({ startsAt }: UsageBucket, by: 'hour' | 'day', timeZone: string): string {
  const at = startsAt.getTime()
  // Not by Intl, which on Node 20 knows no offsets such as `+01:00`.
  const local = new Date(at + offsetsOf(timeZone)(at)).toISOString()
  return by === 'hour' ? `${local.slice(0, 10)} ${local.slice(11, 16)}` : local.slice(0, 10)
}
