import type { ApiKeyEvent } from 'latchkey'

/** What happened, to which key of whose, and who did it: a line for a log. No event holds a key. */
export function auditLine(event: ApiKeyEvent): string {
  const words: string[] = [event.type]
  if (event.type === 'key.refused') words.push(event.reason ?? event.code)
  if ('keyId' in event && event.keyId !== null) words.push(event.keyId)
  if ('owner' in event && event.owner !== null) words.push(`of ${event.owner.type} ${event.owner.id}`)
  if (event.type === 'creator.revoked') words.push(`issued by ${event.createdBy}`)
  if ('by' in event && event.by !== null) words.push(`by ${event.by}`)
  return words.join(' ')
}

/** Writes what happens to keys to the log, and what fails to where faults go. */
export function logEvent(event: ApiKeyEvent): void {
  if (event.type === 'fault') console.error(event.operation, event.error)
  else console.log(auditLine(event))
}
