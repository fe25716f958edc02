import { type ErrorCode, isLatchkeyError } from '../errors.ts'
import { isError, isTypeError, messageOf } from '../internal/any-realm.ts'
import { CliError, InterruptedError, OutputError } from './cli-error.ts'
import { EXIT } from './exit-codes.ts'

/** An error as people and scripts see it. */
export interface DescribedError {
  readonly exitCode: number
  /** The code of a `LatchkeyError`, or a word for what is wrong. */
  readonly code: string
  readonly message: string
}

const EXIT_OF: Partial<Record<ErrorCode, number>> = {
  not_found: EXIT.notFound,
  conflict: EXIT.conflict,
  precondition_failed: EXIT.conflict,
  duplicate_key: EXIT.conflict,
  invalid_cursor: EXIT.usage,
  unavailable: EXIT.unavailable,
  not_migrated: EXIT.unavailable,
  read_only: EXIT.unavailable,
  wrong_dialect: EXIT.unavailable,
  malformed_record: EXIT.unavailable,
  unknown_digest: EXIT.unavailable,
  configuration_drift: EXIT.unavailable,
}

const CODE_OF: Readonly<Record<number, string>> = {
  [EXIT.usage]: 'usage',
  [EXIT.notFound]: 'not_found',
  [EXIT.unavailable]: 'unavailable',
  [EXIT.conflict]: 'conflict',
}

export function describeError(error: unknown): DescribedError {
  if (error instanceof CliError) {
    const { exitCode, message } = error
    return { exitCode, code: CODE_OF[exitCode] ?? 'failed', message }
  }
  if (error instanceof OutputError) return describeOutput(error)
  if (error instanceof InterruptedError) {
    return { exitCode: EXIT.interrupted, code: 'interrupted', message: 'interrupted' }
  }
  if (isLatchkeyError(error)) {
    return {
      exitCode: EXIT_OF[error.code] ?? EXIT.failed,
      code: error.code,
      message: error.code === 'unavailable' ? reasonOf(error) : error.message,
    }
  }
  // A wrong value of an option, which the message names.
  if (isTypeError(error)) return { exitCode: EXIT.usage, code: 'usage', message: firstLine(error) }
  return { exitCode: EXIT.failed, code: 'failed', message: firstLine(error) }
}

function describeOutput({ isClosed, cause }: OutputError): DescribedError {
  const exitCode = isClosed ? EXIT.closedOutput : EXIT.failed
  return {
    exitCode,
    code: 'output',
    message: `standard output cannot be written: ${firstLine(cause)}`,
  }
}

/** Why something is unavailable: what the driver said. */
function reasonOf(error: Error): string {
  const { cause } = error
  if (cause === undefined) return error.message
  return isLatchkeyError(cause) ? cause.message : `the store cannot be used: ${firstLine(cause)}`
}

/** The first line of what an error says. An error of several addresses of one host says nothing itself. */
export function firstLine(error: unknown): string {
  const { errors, code } = (error ?? {}) as { errors?: readonly unknown[]; code?: unknown }
  const text = messageOf(error) || messageOf(errors?.[0]) || (typeof code === 'string' ? code : '')
  if (text !== '') return (text.split('\n')[0] as string).trim()
  return isError(error) ? error.name : 'unknown reason'
}
