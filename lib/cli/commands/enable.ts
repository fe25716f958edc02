import type { Command } from 'commander'
import type { Act } from '../act.ts'
import type { Context } from '../context.ts'
import { type ChangeOptions, makeChange, readChange } from './changed-key.ts'

export function addEnable(program: Command, act: Act): void {
  addSwitch(program, act, 'enable', 'let a disabled key work again', 'Enabled')
}

export function addDisable(program: Command, act: Act): void {
  addSwitch(program, act, 'disable', 'stop a key until it is enabled again', 'Disabled')
}

function addSwitch(
  program: Command,
  act: Act,
  verb: 'enable' | 'disable',
  summary: string,
  done: string,
): void {
  program
    .command(verb)
    .description(summary)
    .argument('<id>', 'the id of the key')
    .option('--by <who>', 'who changes it')
    .option('--expected-version <n>', 'only if the key still has this version')
    .action(
      act(async (context: Context, options: ChangeOptions, id = '') => {
        const change = readChange(options)
        const session = await context.openSession()
        return makeChange(
          context,
          session,
          (apiKey) => `${done} ${apiKey.id}.`,
          () => session.keys[verb](id, change),
        )
      }),
    )
}
