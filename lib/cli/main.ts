import { usageError } from './cli-error.ts'
import { describeError } from './describe-error.ts'
import { EXIT } from './exit-codes.ts'
import type { CliIo } from './io.ts'
import { secretIn } from './mask-secrets.ts'
import { Output } from './output.ts'
import { createProgram } from './program.ts'

/** Runs the command that the words after its name say, and returns the code to exit with. It never throws. */
export async function main(words: readonly string[], io: CliIo): Promise<number> {
  const output = new Output(io, words.includes('--json'))
  try {
    for (const word of words) refuseSecret(word)
    return await run(words, io, output)
  } catch (error) {
    return report(error, output)
  }
}

/** Other users of the machine see the words of a command, and shells keep them. */
function refuseSecret(word: string): void {
  const secret = secretIn(word)
  if (secret === 'key') {
    throw usageError(
      'a key stands on the command line, where others can see it: give it on standard input, and replace it',
    )
  }
  if (secret === 'password') {
    throw usageError(
      'a password stands on the command line, where others can see it: put the address into an environment variable or the configuration, and change the password',
    )
  }
}

async function run(words: readonly string[], io: CliIo, output: Output): Promise<number> {
  const { program, help, exitCode } = createProgram(io, output)
  try {
    await program.parseAsync([...words], { from: 'user' })
    return exitCode()
  } catch (error) {
    if (!isCommanderError(error)) throw error
    if (error.code === 'commander.help') throw usageError('name a command: latchkey --help lists them')
    if (error.exitCode !== 0) throw usageError(error.message.replace(/^error: /, '').replaceAll('\n', ' '))
    // Asked for: `--help` or `--version`.
    await output.write(help())
    return EXIT.ok
  }
}

function isCommanderError(error: unknown): error is { code: string; exitCode: number; message: string } {
  const { code } = (error ?? {}) as { code?: unknown }
  return typeof code === 'string' && code.startsWith('commander.')
}

function report(error: unknown, output: Output): number {
  const { exitCode, code, message } = describeError(error)
  // A reader that has seen enough, such as `head`, is no failure to speak of.
  if (exitCode !== EXIT.closedOutput) output.fail(code, message)
  return exitCode
}
