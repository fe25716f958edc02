/** The key that a task belongs to, and the caller who asked for it. */
export interface Turn {
  /** What the task is about: no subject waits for the whole of another's line. */
  readonly subject: string
  /** Where it was asked for; empty where that is not known. No origin waits for the whole of another's line. */
  readonly origin: string
  /** Its rank within its subject: higher ranks go first. */
  readonly rank: number
}

export interface FairQueueBounds {
  /** How many tasks run at a time. */
  readonly running: number
  /** How many wait at most. */
  readonly waiting: number
  /** How many of them for one subject. */
  readonly waitingForSubject: number
  /** How many of those from one origin. */
  readonly waitingForOrigin: number
}

interface Waiting extends Turn {
  readonly start: () => void
  readonly refuse: () => void
  /** Its place among subjects, and among origins: the lower, the sooner. */
  bySubject: number
  readonly byOrigin: number
}

/**
 * A bounded queue in which a flood delays only itself. Places alternate between the subject and the origin that has
 * waited most: neither many origins with one subject nor one origin with many subjects delays the others. If the queue
 * is full, the subject or origin with the most places makes room.
 */
export class FairQueue {
  private waiting: Waiting[] = []
  private active = 0
  private isSubjectsTurn = true
  /** The place that was served last in each order: who comes to an empty line begins there. */
  private readonly served = { bySubject: 0, byOrigin: 0 }

  constructor(private readonly bounds: FairQueueBounds) {}

  /** Runs a task when it is its turn. @throws Error at once where there is no room, or later where others need the place more */
  async enter<T>(turn: Turn, task: () => Promise<T>): Promise<T> {
    if (this.active >= this.bounds.running) await this.wait(turn)
    else this.active += 1
    try {
      return await task()
    } finally {
      // The place is handed on as it is: a newcomer cannot slip in between.
      const next = this.takeNext()
      if (next) next.start()
      else this.active -= 1
    }
  }

  private wait(turn: Turn): Promise<void> {
    this.makeRoom(turn)
    return new Promise<void>((resolve, reject) => {
      const bySubject = this.placeBehind('bySubject', ({ subject }) => subject === turn.subject)
      const byOrigin = this.placeBehind('byOrigin', ({ origin }) => origin === turn.origin)
      this.waiting.push({ ...turn, bySubject, byOrigin, start: resolve, refuse: () => reject(tooMany()) })
    })
  }

  private placeBehind(order: 'bySubject' | 'byOrigin', isMine: (one: Waiting) => boolean): number {
    return Math.max(this.served[order], ...this.waiting.filter(isMine).map((one) => one[order])) + 1
  }

  private takeNext(): Waiting | undefined {
    const order = this.isSubjectsTurn ? 'bySubject' : 'byOrigin'
    this.isSubjectsTurn = !this.isSubjectsTurn
    const first = lowest(this.waiting, order)
    if (!first) return undefined
    this.served[order] = first[order]
    const next = order === 'bySubject' ? this.highestRanked(first) : first
    this.remove(next)
    return next
  }

  /** Who takes the place of the first of a subject's line. */
  private highestRanked(first: Waiting): Waiting {
    const line = this.waiting.filter(({ subject }) => subject === first.subject)
    const highest = Math.max(...line.map(({ rank }) => rank))
    const best = line.filter(({ rank }) => rank === highest)
    const next = lowest(best, 'byOrigin') ?? first
    // They change places, or the line would come before its turn the next time.
    const place = first.bySubject
    first.bySubject = next.bySubject
    next.bySubject = place
    return next
  }

  private remove(one: Waiting): void {
    this.waiting = this.waiting.filter((other) => other !== one)
  }

  /** Finds room for a newcomer, or refuses it. */
  private makeRoom(turn: Turn): void {
    const line = this.waiting.filter(({ subject }) => subject === turn.subject)
    const own = line.filter(({ origin }) => origin === turn.origin)
    let victim: Waiting | undefined
    if (own.length >= this.bounds.waitingForOrigin) victim = newestOfLowest(own, turn)
    else if (line.length >= this.bounds.waitingForSubject) {
      victim = newestOfMost(line, turn, 'origin') ?? newestOfLowest(line, turn)
    } else if (this.waiting.length >= this.bounds.waiting) {
      victim = newestOfMost(this.waiting, turn, 'origin') ?? newestOfMost(this.waiting, turn, 'subject')
    } else return
    if (!victim) throw tooMany()
    this.remove(victim)
    victim.refuse()
  }
}

function lowest(among: readonly Waiting[], order: 'bySubject' | 'byOrigin'): Waiting | undefined {
  return among.reduce<Waiting | undefined>(
    (best, one) => (best && best[order] <= one[order] ? best : one),
    undefined,
  )
}

/** The last of those that least speaks for, where more speaks for the newcomer. */
function newestOfLowest(among: readonly Waiting[], turn: Turn): Waiting | undefined {
  const lowestRank = Math.min(...among.map(({ rank }) => rank))
  return lowestRank < turn.rank ? among.findLast(({ rank }) => rank === lowestRank) : undefined
}

/** The last of the subject or origin that takes up most, where that is more than the newcomer's would. */
function newestOfMost(among: readonly Waiting[], turn: Turn, by: 'subject' | 'origin'): Waiting | undefined {
  const counts = new Map<string, number>()
  for (const one of among) counts.set(one[by], (counts.get(one[by]) ?? 0) + 1)
  const most = Math.max(...counts.values())
  if (most <= (counts.get(turn[by]) ?? 0) + 1) return undefined
  return among.findLast((one) => counts.get(one[by]) === most)
}

function tooMany(): Error {
  return new Error('too many bcrypt comparisons are waiting')
}
