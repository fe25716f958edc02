import { createHash } from 'node:crypto'
import { lastBase62 } from '../internal/base62.ts'
import { holdsKey } from '../internal/key-text.ts'
import { invalidRequest } from './refusal.ts'

/**
 * The id of the key that a request creates. The same request always has the same id, so a repetition finds it taken. Requests of
 * other actors have other ids. Undefined if the request has no `Idempotency-Key`.
 *
 * @throws LatchkeyError `invalid_request`
 */
export function idOfRequest(
  given: string | string[] | undefined,
  ...parts: readonly string[]
): string | undefined {
  if (given === undefined) return undefined
  if (typeof given !== 'string' || !/^[\x21-\x7e]{1,255}$/.test(given) || holdsKey(given)) {
    throw invalidRequest('Idempotency-Key', '1 to 255 visible ASCII characters, without a key in them')
  }
  const digest = createHash('sha256')
    .update(JSON.stringify([...parts, given]))
    .digest('hex')
  return lastBase62(BigInt(`0x${digest}`), ID_LENGTH)
}

const ID_LENGTH = 16
