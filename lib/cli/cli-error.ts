import { EXIT } from './exit-codes.ts'

/** Ends the command with one line on standard error. The message names no password and no key. */
export class CliError extends Error {
  constructor(
    message: string,
    readonly exitCode: number = EXIT.failed,
  ) {
    super(message)
  }
}

/** What the caller got wrong. Nothing was done. */
export function usageError(message: string): CliError {
  return new CliError(message, EXIT.usage)
}

/** Standard output takes nothing more. */
export class OutputError extends Error {
  constructor(
    /** Whether its reader went away, rather than that the disk is full. */
    readonly isClosed: boolean,
    override readonly cause: unknown,
  ) {
    super('standard output cannot be written')
  }
}

/** Ctrl-C or SIGTERM came while there was something to stop. */
export class InterruptedError extends Error {
  constructor() {
    super('interrupted')
  }
}

/** @throws InterruptedError if the command was told to end. */
export function refuseInterrupted(signal: AbortSignal): void {
  if (signal.aborted) throw new InterruptedError()
}
