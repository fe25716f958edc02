import type { Command } from 'commander'
import type { Act } from '../act.ts'
import { confirm } from '../ask.ts'
import { CliError } from '../cli-error.ts'
import type { Context } from '../context.ts'
import { EXIT } from '../exit-codes.ts'
import { parseOwner } from '../parse-values.ts'
import { whenEffective } from './changed-key.ts'

interface Options {
  readonly owner: string
  /** `--no-known-as` makes it false. */
  readonly knownAs?: string | boolean
  readonly by?: string
  readonly yes?: boolean
}

export function addErase(program: Command, act: Act): void {
  program
    .command('erase')
    .description("revoke and remove every key of an owner, and clear the owner's name from other keys")
    .requiredOption('--owner <type:id>', 'whom to erase, such as user:u_1')
    .option('--known-as <who>', 'the identifier in createdBy and by, if it is not the id of the owner')
    .option('--no-known-as', 'clear nothing from keys of other owners')
    .option('--by <who>', 'who erases')
    .option('--yes', 'erase without asking')
    .action(act(erase))
}

async function erase(context: Context, options: Options): Promise<number> {
  const { io, output } = context
  const owner = parseOwner('--owner', options.owner)
  const session = await context.openSession()
  const count = await session.keys.count({ owner })
  const question = `Erase ${options.owner}: revoke and remove ${count} keys? Nothing brings them back.`
  if (!(await confirm(io, question, options.yes === true))) throw new CliError('nothing was erased')
  const erased = await session.keys.erase(owner, {
    ...(options.by !== undefined && { by: options.by }),
    ...(options.knownAs === false && { knownAs: null }),
    ...(typeof options.knownAs === 'string' && { knownAs: options.knownAs }),
  })
  const { at, text } = await whenEffective(session)
  if (output.isJson) await output.printJson({ ...erased, effectiveAt: at })
  else {
    await output.say(
      `Removed ${erased.removed} keys, and cleared ${options.owner} from ${erased.forgotten} others. ${text}`,
    )
  }
  return EXIT.ok
}
