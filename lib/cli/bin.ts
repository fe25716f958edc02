#!/usr/bin/env node
import { fstatSync, statSync } from 'node:fs'
import { EXIT } from './exit-codes.ts'
import { main } from './main.ts'

const controller = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // Whoever presses it twice does not want to wait.
    if (controller.signal.aborted) process.exit(EXIT.interrupted)
    controller.abort()
  })
}

// Node's own warnings, such as that node:sqlite is new, are nothing to whoever runs a command.
process.removeAllListeners('warning')

// If nothing is left to wait for before the command is done, Node ends by itself, and would say that all went well.
process.exitCode = EXIT.failed
process.on('beforeExit', () => {
  process.stderr.write(
    'latchkey: the command could not finish: something that it waited for never answered\n',
  )
  process.exit(EXIT.failed)
})

void main(process.argv.slice(2), {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  cwd: process.cwd(),
  signal: controller.signal,
  isOutputLost: isOutputLost(),
}).then((exitCode) => {
  // What the application's configuration has opened may keep the process alive. Everything has been written by now.
  process.exit(controller.signal.aborted ? EXIT.interrupted : exitCode)
})

/** Whether standard output is closed, or the null device: Node opens that in place of a closed one. */
function isOutputLost(): boolean {
  try {
    const output = fstatSync(1)
    // Always ask for a second file: if a pipe was the last, Node does not see symbolic links when it looks for modules, as pnpm
    // installs them (`realpathSync` goes by the last answer).
    const nothing = statSync('/dev/null')
    return output.isCharacterDevice() && output.rdev === nothing.rdev
  } catch {
    return false
  }
}
