import type { Command } from 'commander'
import { LatchkeyError } from '../../errors.ts'
import type { Act } from '../act.ts'
import type { Context } from '../context.ts'
import { EXIT } from '../exit-codes.ts'
import { keyCard, limitsTable } from '../show-key.ts'

export function addShow(program: Command, act: Act): void {
  program
    .command('show')
    .description('show a key, and how its limits stand')
    .argument('<id>', 'the id of the key')
    .action(act(show))
}

async function show(context: Context, _options: object, id = ''): Promise<number> {
  const { output } = context
  const session = await context.openSession()
  const apiKey = await session.keys.get(id)
  if (!apiKey) throw new LatchkeyError('not_found')
  // Without a shared limiter, each server counts, and this process knows nothing of it.
  const limits = session.sharedLimiter || !session.store ? await session.keys.limits(id) : null
  if (output.isJson) await output.printJson({ apiKey, limits })
  else {
    const table = limits && limits.length > 0 ? `\n\n${limitsTable(output, limits)}` : ''
    await output.print(keyCard(output, apiKey) + table)
  }
  return EXIT.ok
}
