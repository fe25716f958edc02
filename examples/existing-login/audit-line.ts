import type { ApiKeyEvent } from 'latchkey'

/** A log line: what happened, to whose key, and who did it. No event holds a key. */
export function auditLine(event: ApiKeyEvent): string {
  const words: string[] = [event.type]
  if (event.type === 'key.refused') words.push(event.reason ?? event.code)
  if ('keyId' in event && event.keyId !== null) words.push(event.keyId)
  if ('owner' in event && event.owner !== null) words.push(`of ${event.owner.type} ${event.owner.id}`)
  if (event.type === 'creator.revoked') words.push(`issued by ${event.createdBy}`)
  if ('by' in event && event.by !== null) words.push(`by ${event.by}`)
  return words.join(' ')
}

/** Logs what happens to keys to stdout, and faults to stderr. */
export function logEvent(event: ApiKeyEvent): void {
  if (event.type === 'fault') console.error(event.operation, event.error)
  else console.log(auditLine(event))
}
