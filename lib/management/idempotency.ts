import { createHash } from 'node:crypto'
import { lastBase62 } from '../internal/base62.ts'
import { holdsKey } from '../internal/key-text.ts'
import { invalidRequest } from './refusal.ts'

/**
 * The id of the key that a request makes. The same request has the same, so that a repetition finds it taken; nobody else can have
 * it, since the actor is part of it. Undefined where the request names no `Idempotency-Key`.
 *
 * @throws LatchkeyError `invalid_request`
 */
export function idOfRequest(
  given: string | string[] | undefined,
  ...parts: readonly string[]
): string | undefined {
  if (given === undefined) return undefined
  if (typeof given !== 'string' || !/^[\x21-\x7e]{1,255}$/.test(given) || holdsKey(given)) {
    throw invalidRequest('Idempotency-Key', '1 to 255 visible characters of ASCII, and no key')
  }
  const digest = createHash('sha256')
    .update(JSON.stringify([...parts, given]))
    .digest('hex')
  return lastBase62(BigInt(`0x${digest}`), ID_LENGTH)
}

const ID_LENGTH = 16
