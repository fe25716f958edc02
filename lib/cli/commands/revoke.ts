import type { Command } from 'commander'
import type { Act } from '../act.ts'
import { confirm } from '../ask.ts'
import { CliError, usageError } from '../cli-error.ts'
import type { Context } from '../context.ts'
import { EXIT } from '../exit-codes.ts'
import { parseOwner } from '../parse-values.ts'
import { type ChangeOptions, makeChange, readChange, whenEffective } from './changed-key.ts'

interface Options extends ChangeOptions {
  readonly owner?: string
  readonly createdBy?: string
  readonly reason?: string
  readonly yes?: boolean
}

export function addRevoke(program: Command, act: Act): void {
  program
    .command('revoke')
    .description('stop a key for good, or all keys of an owner or of an issuer')
    .argument('[id]', 'the id of the key')
    .option('--owner <type:id>', 'every key of this owner')
    .option(
      '--created-by <who>',
      'every key that this person or program issued; with --owner, only for that owner',
    )
    .option('--reason <text>', 'stored with the key')
    .option('--by <who>', 'who revokes it')
    .option('--expected-version <n>', 'only if the key still has this version')
    .option('--yes', 'revoke many keys without asking')
    .action(act(revoke))
}

async function revoke(context: Context, options: Options, id?: string): Promise<number> {
  const isOfMany = options.owner !== undefined || options.createdBy !== undefined
  if ((id === undefined) !== isOfMany) throw usageError('name the id of a key, or --owner, or --created-by')
  return id === undefined ? revokeMany(context, options) : revokeOne(context, options, id)
}

async function revokeOne(context: Context, options: Options, id: string): Promise<number> {
  const change = { ...readChange(options), ...reasonOf(options) }
  const session = await context.openSession()
  return makeChange(
    context,
    session,
    (apiKey) => `Revoked ${apiKey.id}.`,
    () => session.keys.revoke(id, change),
  )
}

async function revokeMany(context: Context, options: Options): Promise<number> {
  const { io, output } = context
  if (options.expectedVersion !== undefined) throw usageError('--expected-version is for one key')
  const { createdBy } = options
  const owner = options.owner === undefined ? undefined : parseOwner('--owner', options.owner)
  const session = await context.openSession()
  const { keys } = session
  const selection = { ...(owner && { owner }), ...(createdBy !== undefined && { createdBy }) }
  const [all, revoked] = [await keys.count(selection), await keys.count({ ...selection, status: 'revoked' })]
  const question = `Revoke ${all - revoked} keys${describe(options)} for good?`
  if (!(await confirm(io, question, options.yes === true))) throw new CliError('nothing was revoked')
  const made = { ...(options.by !== undefined && { by: options.by }), ...reasonOf(options) }
  const count =
    createdBy === undefined
      ? await keys.revokeOwner(owner as NonNullable<typeof owner>, made)
      : await keys.revokeCreatedBy(createdBy, { ...made, ...(owner && { owner }) })
  const { at, text } = await whenEffective(session)
  if (output.isJson) await output.printJson({ revoked: count, effectiveAt: at })
  else await output.say(`Revoked ${count} keys. ${text}`)
  return EXIT.ok
}

function describe({ owner, createdBy }: Options): string {
  return (
    (owner === undefined ? '' : ` of ${owner}`) + (createdBy === undefined ? '' : ` issued by ${createdBy}`)
  )
}

function reasonOf({ reason }: Options): { reason?: string } {
  return reason === undefined ? {} : { reason }
}
