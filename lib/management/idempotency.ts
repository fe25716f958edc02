import { createHash } from 'node:crypto'
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
    .digest()
  return base62(BigInt(`0x${digest.toString('hex')}`))
}

const ID_LENGTH = 16
const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** The last digits of a number, as long as an id. */
function base62(value: bigint): string {
  let text = ''
  for (let rest = value; text.length < ID_LENGTH; rest /= 62n) text = DIGITS[Number(rest % 62n)] + text
  return text
}
