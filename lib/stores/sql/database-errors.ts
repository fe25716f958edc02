import { LatchkeyError } from '../../errors.ts'
import { isError } from '../../internal/any-realm.ts'

/** What a driver's error means for the store. */
export type FailureKind =
  | 'duplicate'
  /** The database rolled the transaction back, and it can run again. */
  | 'rolled_back'
  | 'no_table'
  | 'no_schema'
  | 'read_only'
  | 'not_understood'
  | 'too_long'
  /** The encoding of the database, or of a column, lacks a character of the text. */
  | 'not_encodable'
  /** The role of the connection lacks a right. */
  | 'denied'
  /** The database refused. Its message repeats names of the schema, but no values. */
  | 'refused'
  /** The database refused. Its message may repeat a value. */
  | 'refused_value'
  /** The connection failed: the database may or may not have run the statement. */
  | 'connection'

/** What a driver threw. Only the store sees it: `toStoreError` turns it into the application's error. */
export class DatabaseFailure extends Error {
  constructor(
    readonly kind: FailureKind,
    /** The database's code for it, such as an SQLSTATE. */
    readonly code: string,
    readonly driverError: unknown,
  ) {
    super(kind)
  }
}

/**
 * The role of the connection lacks a right, for example on a table that a later release added. The database's message repeats names of
 * the schema, but no values.
 */
export class DeniedError extends LatchkeyError {
  constructor(
    message: string,
    /** The database's code for it, such as an SQLSTATE. */
    readonly state: string,
  ) {
    super('not_migrated', message)
  }
}

/**
 * The error that the application sees. Drivers put values into messages and details ("Duplicate entry …"), and a log of an error with
 * its cause would show them. So the store passes on a driver's error only if the connection failed.
 */
export function toStoreError({ kind, code, driverError }: DatabaseFailure, title: string): Error {
  switch (kind) {
    case 'duplicate':
      return new LatchkeyError('duplicate_key')
    case 'no_table':
      return new LatchkeyError(
        'not_migrated',
        `${title} lacks tables or columns of this release (${code}): run migrate(store), or apply the published SQL`,
      )
    case 'no_schema':
      return new LatchkeyError(
        'not_migrated',
        `${title} has no such schema or database (${code}): create it, then run migrate(store)`,
      )
    case 'read_only':
      return new LatchkeyError('read_only', `${title} takes no writes (${code})`)
    case 'not_understood':
      return new LatchkeyError(
        'wrong_dialect',
        `the database does not understand statements for ${title} (${code}): it is another database, or too old`,
      )
    case 'too_long':
      return new LatchkeyError('unsupported', `a text is too long for its column in ${title} (${code})`)
    case 'not_encodable':
      return new LatchkeyError(
        'unsupported',
        `a text has characters that the encoding of this ${title} database does not have (${code})`,
      )
    case 'denied':
      return new DeniedError(
        `${title} refused: ${(driverError as Error).message} (${code}): grant this role what the store needs`,
        code,
      )
    case 'connection':
      return isError(driverError) ? driverError : new Error(`${title} cannot be reached`)
    case 'refused':
      return withCode(`${title} refused: ${(driverError as Error).message}`, code)
    default:
      return withCode(`${title} refused a statement`, code)
  }
}

function withCode(message: string, code: string): Error {
  return Object.assign(new Error(`${message} (${code})`), { code })
}
