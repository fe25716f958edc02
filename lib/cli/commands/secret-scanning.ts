import type { Command } from 'commander'
import { secretScanningPattern } from '../../core/keys/key-format.ts'
import type { Act } from '../act.ts'
import { usageError } from '../cli-error.ts'
import type { Context } from '../context.ts'
import { EXIT } from '../exit-codes.ts'
import { collect, parseWord } from '../parse-values.ts'

interface Options {
  readonly prefix?: readonly string[]
  readonly format?: string
}

export function addSecretScanning(program: Command, act: Act): void {
  program
    .command('secret-scanning')
    .description('print what finds leaked keys in code and logs')
    .option('--prefix <prefix>', 'the prefix of the keys, if not that of the configuration (repeat)', collect)
    .option('--format <format>', 'pattern for GitHub and others, or gitleaks for a rule (default: pattern)')
    .action(act(printPatterns))
}

async function printPatterns(context: Context, options: Options): Promise<number> {
  const { output } = context
  const format = parseWord('--format', options.format ?? 'pattern', ['pattern', 'gitleaks'])
  const prefixes = options.prefix ?? (await configuredPrefix(context))
  const patterns = prefixes.map((prefix) => ({ prefix, pattern: secretScanningPattern(prefix) }))
  if (output.isJson) await output.printJson(patterns)
  else if (format === 'gitleaks') await output.print(patterns.map(toRule).join('\n\n'))
  else await output.print(patterns.map(({ pattern }) => pattern).join('\n'))
  return EXIT.ok
}

async function configuredPrefix(context: Context): Promise<readonly string[]> {
  const { prefix, given } = await context.configuration()
  const found = given.keys?.prefix ?? prefix
  if (found === undefined)
    throw usageError('which prefix have the keys? Give --prefix, or set "prefix" in the configuration')
  return [found]
}

/** A rule of https://github.com/gitleaks/gitleaks. Keywords let it skip files without reading them by the pattern. */
function toRule({ prefix, pattern }: { prefix: string; pattern: string }): string {
  return [
    '[[rules]]',
    `id = "${prefix.replaceAll('_', '-')}-api-key"`,
    `description = "API key ${prefix}_…"`,
    `regex = '''${pattern}'''`,
    `keywords = ["${prefix.toLowerCase()}_"]`,
  ].join('\n')
}
