import type { KeyRecord } from '../keys/record.ts'

/** The time that reminders are due in: after its beginning, and until its end. */
export interface ReminderPeriod {
  readonly fromMs: number
  readonly untilMs: number
}

/**
 * How long before its end a key is to be reminded of, in this period; null if it is not. Where several reminders are due at once, as after
 * an outage, the last of them stands for all.
 *
 * A key that was made when no more time was left needs no reminder: whoever made it knows. After a rotation, the
 * reminder is about the successor.
 *
 * @param beforeMs the shortest first
 */
export function decideReminder(
  { createdAt, expiresAt, rotatedTo }: Pick<KeyRecord, 'createdAt' | 'expiresAt' | 'rotatedTo'>,
  beforeMs: readonly number[],
  { fromMs, untilMs }: ReminderPeriod,
): number | null {
  if (expiresAt === null || rotatedTo !== null) return null
  const sinceMs = Math.max(fromMs, createdAt.getTime())
  const isDue = (before: number) => {
    const dueMs = expiresAt.getTime() - before
    return dueMs > sinceMs && dueMs <= untilMs
  }
  return beforeMs.find(isDue) ?? null
}
