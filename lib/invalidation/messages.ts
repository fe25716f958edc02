import type { KeyVersion } from '../core/invalidation.ts'
import { checkInteger, checkText } from '../internal/options.ts'

/** Keys in one message. */
const BATCH = 500

export function writeMessages(keys: readonly KeyVersion[]): string[] {
  const messages: string[] = []
  for (let from = 0; from < keys.length; from += BATCH) {
    messages.push(
      JSON.stringify(keys.slice(from, from + BATCH).map(({ keyId, version }) => [keyId, version])),
    )
  }
  return messages
}

/** @throws for anything that is not such a message */
export function readMessage(message: string): KeyVersion[] {
  const list: unknown = JSON.parse(message)
  if (!Array.isArray(list)) throw new TypeError('unexpected message on the invalidation channel')
  return list.map((entry: unknown) => {
    const [keyId, version] = Array.isArray(entry) ? entry : []
    return {
      keyId: checkText('keyId', keyId, 255),
      version: checkInteger('version', version, 1, Number.MAX_SAFE_INTEGER),
    }
  })
}
