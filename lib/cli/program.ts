import { createRequire } from 'node:module'
import { Command } from 'commander'
import type { Act } from './act.ts'
import { addDoctor } from './commands/doctor.ts'
import { addDisable, addEnable } from './commands/enable.ts'
import { addErase } from './commands/erase.ts'
import { addExplain } from './commands/explain.ts'
import { addExport } from './commands/export.ts'
import { addImport } from './commands/import.ts'
import { addIssue } from './commands/issue.ts'
import { addList } from './commands/list.ts'
import { addMigrate } from './commands/migrate.ts'
import { addMove } from './commands/move.ts'
import { addRevoke } from './commands/revoke.ts'
import { addRotate } from './commands/rotate.ts'
import { addSecretScanning } from './commands/secret-scanning.ts'
import { addShow } from './commands/show.ts'
import { addUpdate } from './commands/update.ts'
import { addUsage } from './commands/usage.ts'
import { addVerify } from './commands/verify.ts'
import { Context } from './context.ts'
import { EXIT } from './exit-codes.ts'
import type { CliIo } from './io.ts'
import type { Output } from './output.ts'

/** All commands, in the order of the help. */
const COMMANDS: readonly ((program: Command, act: Act) => void)[] = [
  addIssue,
  addList,
  addShow,
  addExplain,
  addUsage,
  addUpdate,
  addEnable,
  addDisable,
  addRevoke,
  addRotate,
  addVerify,
  addImport,
  addExport,
  addMove,
  addMigrate,
  addErase,
  addSecretScanning,
  addDoctor,
]

export interface Program {
  readonly program: Command
  /** The help or version that was asked for. */
  help(): string
  /** The code of the command that has run. */
  exitCode(): number
}

export function createProgram(io: CliIo, output: Output): Program {
  let help = ''
  let exitCode: number = EXIT.ok
  const act: Act =
    (work) =>
    async (...given) => {
      // Commander hands over the arguments, the options of the command, and the command.
      const command = given.pop() as Command
      const words = given.slice(0, -1) as string[]
      const options = command.optsWithGlobals()
      const context = new Context(io, output, options)
      try {
        exitCode = await work(context, options as never, ...words)
      } finally {
        await context.close()
      }
    }
  const program = new Command('latchkey')
    .description('Issues, shows, changes, checks and moves API keys.')
    .version(readVersion())
    .exitOverride()
    .configureOutput({
      writeOut: (text) => {
        help += text
      },
      writeErr: () => {},
      outputError: () => {},
      getOutHelpWidth: () => (io.stdout.isTTY && io.stdout.columns) || 100,
      getOutHasColors: () => false,
    })
    .option('--json', 'print JSON')
    .option('--config <file>', 'the configuration, if it is not latchkey.config.* in this folder')
    .option('--store <name>', 'another store: its name in "stores", or env:NAME')
    .addHelpText('after', '\nGuide: docs/command-line.md of the package')
  for (const add of COMMANDS) add(program, act)
  return { program, help: () => help, exitCode: () => exitCode }
}

function readVersion(): string {
  const load = createRequire(import.meta.url)
  return (load('latchkey/package.json') as { version: string }).version
}
