import { createHash } from 'node:crypto'
import type { ApiKey } from '../core/keys/record.ts'

const MAX_ID_LENGTH = 255

/** The id of a key as an actor. The id of an imported key may be too long for the prefix. */
export function keyActorId(apiKey: ApiKey): string {
  const id = `key:${apiKey.id}`
  return id.length <= MAX_ID_LENGTH
    ? id
    : `key:sha256:${createHash('sha256').update(apiKey.id).digest('hex')}`
}
