import type { Command } from 'commander'
import type { Act } from '../act.ts'
import { usageError } from '../cli-error.ts'
import type { Context } from '../context.ts'
import { warnOfMissingPepper } from '../digest-peppers.ts'
import { EXIT } from '../exit-codes.ts'
import { handOver, refuseLostOutput } from '../hand-over.ts'
import { parseOwner } from '../parse-values.ts'
import { addSettings, readSettings, type SettingOptions } from '../settings.ts'
import { keyCard } from '../show-key.ts'

interface IssueOptions extends SettingOptions {
  readonly owner: string
  readonly name: string
  readonly prefix?: string
  readonly by?: string
  readonly quiet?: boolean
}

export function addIssue(program: Command, act: Act): void {
  addSettings(
    program
      .command('issue')
      .description('issue a key, and print it: the only time it can be read')
      .requiredOption('--owner <type:id>', 'who owns the key, such as user:u_1')
      .requiredOption('--name <name>', 'a name for people'),
  )
    .option('--prefix <prefix>', 'what the key begins with, if not the "prefix" of the configuration')
    .option('--by <who>', 'who issues it')
    .option('--quiet', 'print the key and nothing else')
    .action(act(issue))
}

async function issue(context: Context, options: IssueOptions): Promise<number> {
  const { output } = context
  refuseLostOutput(context)
  const owner = parseOwner('--owner', options.owner)
  const settings = readSettings(options, Date.now())
  const session = await context.openSession()
  if (!session.hasPrefix && options.prefix === undefined) {
    throw usageError(
      'which prefix has the key? Give --prefix, or set "prefix" in the configuration or LATCHKEY_PREFIX',
    )
  }
  await warnOfMissingPepper(context, session)
  const issued = await session.keys.issue({
    ...settings,
    owner,
    name: options.name,
    ...(options.prefix !== undefined && { prefix: options.prefix }),
    ...(options.by !== undefined && { by: options.by }),
  })
  await handOver(session, issued, async () => {
    if (output.isJson) return output.printJson(issued)
    if (options.quiet) return output.print(issued.key)
    return output.write(`${issued.key}\n\n${keyCard(output, issued.apiKey)}\n`)
  })
  if (!options.quiet) output.remark('This is the only time that the key can be read.')
  return EXIT.ok
}
