import type { Command } from 'commander'
import type { UnusedPermissionsOptions } from '../../core/usage/unused-permissions.ts'
import type { Act } from '../act.ts'
import type { Context } from '../context.ts'
import { warnOfMissingPepper } from '../digest-peppers.ts'
import { EXIT } from '../exit-codes.ts'
import { handOver, refuseLostOutput } from '../hand-over.ts'
import { parseDuration, parseEnd, parseInteger } from '../parse-values.ts'
import { formatMoment, keyCard } from '../show-key.ts'
import { type ChangeOptions, readChange, whenEffective } from './changed-key.ts'

interface Options extends ChangeOptions {
  readonly grace?: string
  readonly expires?: string
  /** The number of days; true for the usual one. */
  readonly onlyUsed?: string | boolean
  readonly quiet?: boolean
}

export function addRotate(program: Command, act: Act): void {
  program
    .command('rotate')
    .description('replace a key, and print the new one: the only time it can be read')
    .argument('<id>', 'the id of the key')
    .option(
      '--grace <duration>',
      'how long the previous key keeps working; 0s if it has leaked (default: 24h)',
    )
    .option(
      '--expires <when>',
      'when the new key expires: 90d, 2027-01-31; never (default: as the previous one)',
    )
    .option(
      '--only-used [days]',
      'leave out permissions that no call needed in so many days (30 if left out)',
    )
    .option('--by <who>', 'who rotates it')
    .option('--expected-version <n>', 'only if the key still has this version')
    .option('--quiet', 'print the key and nothing else')
    .action(act(rotate))
}

async function rotate(context: Context, options: Options, id = ''): Promise<number> {
  const { output } = context
  refuseLostOutput(context)
  const { grace, expires, onlyUsed } = options
  const asked = {
    ...readChange(options),
    ...(grace !== undefined && { graceMs: parseDuration('--grace', grace) }),
    ...(expires !== undefined && { expiresAt: parseEnd('--expires', expires, Date.now()) }),
    ...(onlyUsed !== undefined && { onlyUsed: readDays(onlyUsed) }),
  }
  const session = await context.openSession()
  await warnOfMissingPepper(context, session)
  const rotated = await session.keys.rotate(id, asked)
  const { at, text } = await whenEffective(session)
  const { expiresAt } = rotated.previous
  const write = async () => {
    if (output.isJson) return output.printJson({ ...rotated, effectiveAt: at })
    if (options.quiet) return output.print(rotated.key)
    return output.write(`${rotated.key}\n\n${keyCard(output, rotated.apiKey)}\n`)
  }
  await handOver(session, rotated, write, `; ${id} works until ${formatMoment(expiresAt)}: issue another key`)
  if (options.quiet) return EXIT.ok
  const isOver = expiresAt.getTime() <= Date.now()
  output.remark(`${id} ${isOver ? 'has ended' : `works until ${formatMoment(expiresAt)}`}. ${text}`)
  output.remark('This is the only time that the new key can be read.')
  return EXIT.ok
}

function readDays(days: string | boolean): UnusedPermissionsOptions {
  return typeof days === 'string' ? { days: parseInteger('--only-used', days, 1, 3_650) } : {}
}
