import type { Command } from 'commander'
import type { ExplainedStep, Explanation } from '../../core/verify/explanation.ts'
import type { VerifyOptions } from '../../core/verify/key-verifier.ts'
import type { Act } from '../act.ts'
import { readKey } from '../ask.ts'
import type { Context } from '../context.ts'
import { EXIT } from '../exit-codes.ts'
import type { Output, Style } from '../output.ts'
import { collect, parseInteger, parsePermissions } from '../parse-values.ts'
import { formatDuration, styleOf } from '../show-key.ts'
import { renderTable } from '../table.ts'

interface Options {
  readonly permissions?: readonly string[]
  readonly ip?: string
  readonly prefix?: string
  readonly cost?: string
}

export function addExplain(program: Command, act: Act): void {
  program
    .command('explain')
    .description('say step by step what verify would answer, and why; spends nothing')
    .argument('[id]', 'the id of the key; the key on standard input if left out')
    .option('--permissions <resource:actions>', 'what the key must be permitted to do (repeat)', collect)
    .option('--ip <address>', 'the address of the client')
    .option('--prefix <prefix>', 'accept only keys with this prefix')
    .option('--cost <units>', 'what the call costs (default: 1)')
    .action(act(explain))
}

async function explain(context: Context, options: Options, id?: string): Promise<number> {
  const { output } = context
  const asked = readOptions(options)
  const session = await context.openSession()
  const subject = id === undefined ? { key: await readKey(context.io) } : { id }
  const explanation = await session.keys.explain(subject, asked)
  if (session.store && !session.sharedLimiter)
    output.remark('No Redis is named: what servers count is not known here.')
  if (output.isJson) await output.printJson(explanation)
  else await output.print(`${describe(output, explanation)}\n\n${stepsTable(output, explanation.steps)}`)
  return explanation.outcome === 'admitted' ? EXIT.ok : EXIT.refused
}

function readOptions({ permissions, ip, prefix, cost }: Options): VerifyOptions {
  return {
    ...(permissions && { permissions: parsePermissions('--permissions', permissions) }),
    ...(ip !== undefined && { ip }),
    ...(prefix !== undefined && { prefix }),
    ...(cost !== undefined && { cost: parseInteger('--cost', cost, 0, Number.MAX_SAFE_INTEGER) }),
  }
}

function describe(output: Output, { outcome, reason, retryAfterMs }: Explanation): string {
  if (outcome === 'admitted') return output.paint('green', 'The key would be admitted.')
  const why = reason === null ? '' : `, ${reason}`
  const retry = retryAfterMs === null ? '' : `, again in ${formatDuration(retryAfterMs)}`
  return `${output.paint('red', 'The key would be refused:')} ${outcome}${why}${retry}`
}

const STYLES: Readonly<Record<ExplainedStep['outcome'], Style>> = {
  passed: 'green',
  refused: 'red',
  skipped: 'dim',
}

function stepsTable(output: Output, steps: readonly ExplainedStep[]): string {
  const columns = [
    { title: 'STEP' },
    {
      title: 'OUTCOME',
      paint: (outcome: string) => output.paint(STYLES[outcome as ExplainedStep['outcome']] ?? 'dim', outcome),
    },
    { title: 'FOUND' },
  ]
  const rows = steps.map(({ step, outcome, message }) => [step.replaceAll('_', ' '), outcome, message])
  return renderTable(columns, rows, styleOf(output))
}
