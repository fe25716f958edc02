import { messageOf } from '../internal/any-realm.ts'

/** What Redis says of a failed command. Errors of ioredis contain the whole command, whose values must not be logged. */
export function errorWords(error: unknown): string {
  return messageOf(error).split(/,? with args/)[0] as string
}
