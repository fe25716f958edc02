import { createHash } from 'node:crypto'
import type { ApiKey } from '../core/keys/record.ts'

const MAX_ID_LENGTH = 255

/** What a key is called as an actor. Ids of imported keys may be so long that nothing fits before them. */
export function keyActorId(apiKey: ApiKey): string {
  const id = `key:${apiKey.id}`
  return id.length <= MAX_ID_LENGTH
    ? id
    : `key:sha256:${createHash('sha256').update(apiKey.id).digest('hex')}`
}
