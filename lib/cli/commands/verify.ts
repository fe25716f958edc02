import type { Command } from 'commander'
import type { VerifyOptions } from '../../core/verify/key-verifier.ts'
import type { VerifyResult } from '../../core/verify/verify-result.ts'
import type { Act } from '../act.ts'
import { readKey } from '../ask.ts'
import type { Context } from '../context.ts'
import { escapeText } from '../escape-text.ts'
import { EXIT } from '../exit-codes.ts'
import { collect, parseInteger, parsePermissions } from '../parse-values.ts'
import { formatDuration, keyCard, limitsTable } from '../show-key.ts'

interface Options {
  readonly permissions?: readonly string[]
  readonly ip?: string
  readonly prefix?: string
  readonly charge?: boolean | string
}

export function addVerify(program: Command, act: Act): void {
  program
    .command('verify')
    .description('check the key on standard input; spends nothing unless you say so')
    .option('--permissions <resource:actions>', 'what the key must be permitted to do (repeat)', collect)
    .option('--ip <address>', 'the address of the client')
    .option('--prefix <prefix>', 'accept only keys with this prefix')
    .option('--charge [units]', 'spend units of its limits and quota, one by default')
    .action(act(verify))
}

async function verify(context: Context, options: Options): Promise<number> {
  const { output } = context
  const asked = readOptions(options)
  const session = await context.openSession(asked.cost === 0)
  const key = await readKey(context.io)
  const result = await session.keys.verify(key, asked)
  if (output.isJson) await output.printJson(result)
  else if (result.ok) {
    const isKnown = session.sharedLimiter !== null || session.store === null
    const limits = isKnown && result.limits.length > 0 ? `\n\n${limitsTable(output, result.limits)}` : ''
    await output.print(
      `${output.paint('green', 'The key is valid.')}\n\n${keyCard(output, result.apiKey)}${limits}`,
    )
  } else await output.print(`${output.paint('red', 'Refused:')} ${escapeText(describeRefusal(result))}`)
  return result.ok ? EXIT.ok : EXIT.refused
}

function readOptions({ permissions, ip, prefix, charge }: Options): VerifyOptions {
  return {
    cost: readCharge(charge),
    ...(permissions && { permissions: parsePermissions('--permissions', permissions) }),
    ...(ip !== undefined && { ip }),
    ...(prefix !== undefined && { prefix }),
  }
}

function readCharge(charge: boolean | string | undefined): number {
  if (charge === undefined) return 0
  return charge === true ? 1 : parseInteger('--charge', String(charge), 0, Number.MAX_SAFE_INTEGER)
}

/** Why a key was refused. Nothing in it comes from the key. */
function describeRefusal(result: Extract<VerifyResult, { ok: false }>): string {
  switch (result.code) {
    case 'invalid_key':
      return `${result.code}, ${result.reason}`
    case 'insufficient_permissions': {
      const missing = Object.entries(result.missing).map(
        ([resource, actions]) => `${resource}:${actions.join(',')}`,
      )
      return `${result.code}, missing ${missing.join(' ')} (key ${result.apiKey.id})`
    }
    case 'address_not_allowed':
      return `${result.code} (key ${result.apiKey.id})`
    default:
      return `${result.code}${retry(result.retryAfterMs)}`
  }
}

function retry(retryAfterMs: number | null): string {
  return retryAfterMs === null ? ', and waiting will not help' : `, again in ${formatDuration(retryAfterMs)}`
}
