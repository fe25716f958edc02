import type { KeyPosition } from '../keys/key-store.ts'
import type { ReminderPeriod } from './due-reminder.ts'

/** How far the processes that share a store have come: what they keep there as one short text. */
export type ReminderProgress =
  /** Everything due until this moment was told. */
  | { readonly state: 'done'; readonly untilMs: number }
  /** A process tells what is due in a period. */
  | ({
      readonly state: 'telling'
      /** Names the process for this period. */
      readonly claimant: string
      /** From then on, another process may go on. */
      readonly heldUntilMs: number
      /** Keys up to this place in the listing are done; null at its start. */
      readonly after: KeyPosition | null
    } & ReminderPeriod)

/** The most characters that a store must keep. */
const MAX_LENGTH = 255

export function writeProgress(progress: ReminderProgress): string {
  if (progress.state === 'done') return `done ${progress.untilMs}`
  const { fromMs, untilMs, claimant, heldUntilMs, after } = progress
  const text = `telling ${fromMs} ${untilMs} ${claimant} ${heldUntilMs}`
  const place = after ? ` ${after.createdAt.getTime()} ${encodeURIComponent(after.id)}` : ''
  // Without its place, a process that goes on begins at the start of the listing. Only ids of other systems are so long.
  return text.length + place.length > MAX_LENGTH ? text : text + place
}

/** Null for a text that no release has written. */
export function readProgress(text: string): ReminderProgress | null {
  const [, until] = /^done (\d+)$/.exec(text) ?? []
  if (until !== undefined) return { state: 'done', untilMs: Number(until) }
  const told = /^telling (\d+) (\d+) ([\w-]+) (\d+)(?: (-?\d+) (\S+))?$/.exec(text)
  if (!told) return null
  const [, from, untilOf, claimant = '', heldUntil, createdAt, id] = told
  return {
    state: 'telling',
    fromMs: Number(from),
    untilMs: Number(untilOf),
    claimant,
    heldUntilMs: Number(heldUntil),
    after: id === undefined ? null : { createdAt: new Date(Number(createdAt)), id: decodeURIComponent(id) },
  }
}
