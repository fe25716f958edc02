import { randomUUID } from 'node:crypto'
import type { Clock } from '../clock.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { DependencyRunner } from '../faults.ts'
import type { KeyPosition, KeyStore } from '../keys/key-store.ts'
import type { KeyRecord } from '../keys/record.ts'
import { decideReminder } from './due-reminder.ts'
import { type ReminderProgress, readProgress, writeProgress } from './reminder-progress.ts'

export interface ReminderOptions {
  /** How long before its end to remind of a key, the shortest first. */
  readonly beforeMs: readonly number[]
  /** How often to look; null if only on request. */
  readonly everyMs: number | null
  /** How long the store may take to answer. */
  readonly timeoutMs: number
}

export interface ReminderParts {
  readonly store: KeyStore
  readonly clock: Clock
  readonly guard: DependencyRunner
  emit(event: ApiKeyEvent): void
  /** `close()` waits for this work. `flush()` does not: it may take longer than a flush. */
  addWork(work: Promise<unknown>): void
}

type Telling = Extract<ReminderProgress, { state: 'telling' }>

/** The name of the agreement that holds the progress. */
const NAME = 'expiry reminders'
/** How many keys a page has. If a process dies at the wrong moment, the reminders of one page come twice. */
const PAGE = 200
/** How long a process may be silent before another one goes on in its place, at least. */
const HELD_MS = 60_000
/** The first look comes within this time of the start, since a process may not live for `everyMs`. */
const FIRST_MS = 60_000
const DAY_MS = 86_400_000

/**
 * Tells of keys that expire soon, each time once, by one of the processes that share a store. They keep their progress there, and change it
 * by compare-and-swap only. A process takes the period since the last one, reads the keys in it page by page, makes sure that it still
 * holds the period, tells, and notes how far it came. If it dies, another process goes on from there.
 */
export class ExpiryReminders {
  private readonly heldMs: number
  /** The period that this process tells, as far as it knows; it is kept where the store could not take note. */
  private mine: Telling | null = null
  private running: Promise<number> | null = null
  private cancelTimer = () => {}
  private isClosed = false
  private isUnable = false

  constructor(
    private readonly parts: ReminderParts,
    private readonly options: ReminderOptions,
  ) {
    this.heldMs = Math.max(HELD_MS, 4 * options.timeoutMs)
    const { everyMs } = options
    if (everyMs !== null) this.lookIn(Math.random() * Math.min(everyMs, FIRST_MS))
  }

  /** Tells what is due now, and returns how many keys this process has told of. @throws LatchkeyError `unavailable` */
  remind(): Promise<number> {
    return this.once(0)
  }

  /** Ends the timer, and hands over what is under way after the page that is being told. */
  close(): void {
    this.isClosed = true
    this.cancelTimer()
  }

  private lookIn(delayMs: number): void {
    if (this.isClosed) return
    this.cancelTimer = this.parts.clock.setTimer(() => this.onTimer(), Math.ceil(delayMs), {
      background: true,
    })
  }

  private onTimer(): void {
    const everyMs = this.options.everyMs ?? DAY_MS
    // Another process may have looked a moment ago. Timers are not exact.
    const looking = this.once(everyMs * 0.9).then(
      () => this.lookIn(everyMs * (0.95 + Math.random() * 0.1)),
      // It was reported where it happened. What this process holds should go on before it lapses.
      () => this.lookIn(Math.min(everyMs, this.heldMs / 4)),
    )
    this.parts.addWork(looking)
  }

  private once(youngMs: number): Promise<number> {
    this.running ??= this.look(youngMs).finally(() => {
      this.running = null
    })
    return this.running
  }

  /** @param youngMs how old the last look must be */
  private async look(youngMs: number): Promise<number> {
    if (this.isClosed || this.isUnable) return 0
    const held = await this.take(youngMs)
    return held ? this.tell(held) : 0
  }

  /** Takes the period that is due, or one that another process has left; null if there is none. */
  private async take(youngMs: number): Promise<Telling | null> {
    const nowMs = this.now()
    const text = await this.agree(null)
    const progress = text === null ? { state: 'done' as const, untilMs: 0 } : readProgress(text)
    // A clock that was far ahead must not silence the reminders until its time, nor have them all told at once.
    if (!progress || progress.untilMs - nowMs > DAY_MS) return this.startAnew(text, nowMs)
    if (progress.state === 'telling') {
      const isMine = progress.claimant === this.mine?.claimant
      if (!isMine && progress.heldUntilMs > nowMs) return null
      // What could not be noted is known here.
      const after = isMine ? (this.mine?.after ?? null) : progress.after
      const claimant = isMine ? progress.claimant : randomUUID()
      return this.swap(text, { ...progress, claimant, heldUntilMs: this.holdUntil(), after })
    }
    if (nowMs - progress.untilMs <= youngMs) return null
    return this.swap(text, {
      state: 'telling',
      fromMs: progress.untilMs,
      untilMs: nowMs,
      claimant: randomUUID(),
      heldUntilMs: this.holdUntil(),
      after: null,
    })
  }

  private async startAnew(text: string | null, nowMs: number): Promise<null> {
    await this.change(text, writeProgress({ state: 'done', untilMs: nowMs }))
    return null
  }

  private holdUntil(): number {
    return this.now() + this.heldMs
  }

  /** In whole milliseconds, as they are kept. */
  private now(): number {
    return Math.floor(this.parts.clock.now())
  }

  /** Tells what is due in the period, page by page. */
  private async tell(period: Telling): Promise<number> {
    let [held, told] = [period, 0]
    for (;;) {
      const records = await this.readPage(held)
      const due = this.dueOf(records, held)
      const last = records.at(-1)
      const after = last ? { createdAt: last.createdAt, id: last.id } : held.after
      if (due.length > 0) {
        const confirmed = await this.renew(held, held.after)
        if (!confirmed) return told
        for (const event of due) this.parts.emit(event)
        told += due.length
        held = confirmed
        this.mine = { ...held, after }
      }
      if (records.length < PAGE) {
        await this.finish(held)
        return told
      }
      const noted = await this.renew(held, after)
      if (!noted) return told
      held = noted
      if (this.isClosed) {
        await this.handOver(held)
        return told
      }
    }
  }

  private readPage({ untilMs, after }: Telling): Promise<readonly KeyRecord[]> {
    const at = new Date(this.parts.clock.now())
    const longest = this.options.beforeMs.at(-1) ?? 0
    const filter = { status: { is: 'active' as const, at }, expiresBefore: new Date(untilMs + longest + 1) }
    return this.parts.store.list(filter, { limit: PAGE, ...(after && { after }) })
  }

  private dueOf(records: readonly KeyRecord[], period: Telling): ApiKeyEvent[] {
    const at = new Date(this.parts.clock.now())
    return records.flatMap((record) => {
      const beforeMs = decideReminder(record, this.options.beforeMs, period)
      if (beforeMs === null) return []
      const { id: keyId, owner, name, createdBy, expiresAt } = record
      return {
        type: 'key.expiring',
        at,
        keyId,
        owner,
        name,
        createdBy,
        expiresAt: expiresAt as Date,
        beforeMs,
      }
    })
  }

  /** Holds the period for longer, and notes the place; null if another process has taken it. */
  private renew(held: Telling, after: KeyPosition | null): Promise<Telling | null> {
    return this.swap(writeProgress(held), { ...held, heldUntilMs: this.holdUntil(), after })
  }

  private async finish(held: Telling): Promise<void> {
    await this.change(writeProgress(held), writeProgress({ state: 'done', untilMs: held.untilMs }))
    this.mine = null
  }

  private async handOver(held: Telling): Promise<void> {
    await this.change(writeProgress(held), writeProgress({ ...held, heldUntilMs: 0 }))
  }

  private async swap(expected: string | null, next: Telling): Promise<Telling | null> {
    // From here on, a late answer may have made it so.
    this.mine = next
    const isChanged = await this.change(expected, writeProgress(next))
    if (isChanged) return next
    this.mine = null
    return null
  }

  /** Whether the progress was what is expected, and is `value` now. */
  private async change(expected: string | null, value: string): Promise<boolean> {
    const kept = await this.agree({ value, expected })
    if (kept === value) return true
    if (kept !== expected) return false
    this.isUnable = true
    const problem = `the store's "agree" ignores "expected": this process reminds of no key that expires`
    throw this.parts.guard.toError('store', new Error(problem))
  }

  private async agree(change: { value: string; expected: string | null } | null): Promise<string | null> {
    const { agree } = this.parts.store
    if (!agree) return null
    if (!change) return agree(NAME, null)
    const { value, expected } = change
    return agree(NAME, { value, replace: false, ...(expected !== null && { expected }) })
  }
}
