import type { Command } from 'commander'
import type { Act } from '../act.ts'
import { usageError } from '../cli-error.ts'
import type { Context } from '../context.ts'
import { addSettings, readSettings, type SettingOptions } from '../settings.ts'
import { type ChangeOptions, makeChange, readChange } from './changed-key.ts'

export function addUpdate(program: Command, act: Act): void {
  addSettings(
    program
      .command('update')
      .description('change settings of a key; those you leave out stay')
      .argument('<id>', 'the id of the key')
      .option('--name <name>', 'a name for people'),
  )
    .option('--by <who>', 'who changes it')
    .option('--expected-version <n>', 'only if the key still has this version')
    .action(act(update))
}

async function update(context: Context, options: SettingOptions & ChangeOptions, id = ''): Promise<number> {
  const settings = readSettings(options, Date.now())
  if (Object.keys(settings).length === 0)
    throw usageError('what is to change? latchkey update --help lists the settings')
  const change = readChange(options)
  const session = await context.openSession()
  return makeChange(
    context,
    session,
    (apiKey) => `Updated ${apiKey.id} (version ${apiKey.version}).`,
    () => session.keys.update(id, settings, change),
  )
}
