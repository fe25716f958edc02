import { messageOf } from '../../internal/any-realm.ts'
import { DatabaseFailure, type FailureKind } from './database-errors.ts'

/** What an error of a PostgreSQL driver means: its server's by SQLSTATE, any other as a failed connection. */
export function toFailure(error: unknown): DatabaseFailure {
  if (isFromServer(error)) return new DatabaseFailure(kindOf(error.code), error.code, error)
  // pg's message if the server is not PostgreSQL.
  const isOther = /^Received unexpected \w+ message/.test(messageOf(error))
  return new DatabaseFailure(
    isOther ? 'not_understood' : 'connection',
    isOther ? 'protocol' : 'connection',
    error,
  )
}

/** Whether the server sent it. An error of the network has a code too, such as ECONNRESET. */
export function isFromServer(error: unknown): error is { code: string } {
  const { code, severity } = (error ?? {}) as { code?: unknown; severity?: unknown }
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && severity !== undefined
}

/** A copy of an error to which the driver has attached the parameters of the statement: a log would show them. */
export function withoutParameters(error: unknown): Error {
  const { code, severity } = (error ?? {}) as { code?: unknown; severity?: unknown }
  return Object.assign(new Error(messageOf(error)), { code, ...(severity !== undefined && { severity }) })
}

/** By SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html */
function kindOf(state: string): FailureKind {
  switch (state) {
    case '23505':
      return 'duplicate'
    case '40001':
    case '40P01':
      return 'rolled_back'
    // The application returned the connection with an open or a failed transaction.
    case '25001':
    case '25P01':
    case '25P02':
      return 'connection'
    case '42P01':
    case '42703':
      return 'no_table'
    case '3F000':
    case '3D000':
      return 'no_schema'
    case '25006':
      return 'read_only'
    case '42601':
    case '42883':
    case '42704':
    case '0A000':
      return 'not_understood'
    case '54000':
    case '22001':
      return 'too_long'
    case '22021':
    case '22P05':
      return 'not_encodable'
    case '42501':
      return 'denied'
  }
  // The server is going down or coming up; it ends the connection itself.
  if (/^(?:57P|08|53)/.test(state)) return 'connection'
  return /^(?:22|23)/.test(state) ? 'refused_value' : 'refused'
}
