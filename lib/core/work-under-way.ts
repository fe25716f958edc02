/** Counts the work that is under way, so that `flush()` and `close()` can wait for it. */
export class WorkUnderWay {
  /** Whether `close` was called. */
  get isClosing(): boolean {
    return this.closing !== null
  }

  private closing: Promise<void> | null = null
  private count = 0
  private onIdle = () => {}
  /** Work that no request waits for. */
  private readonly unattended = new Set<Promise<unknown>>()
  /** A field, since most work ends with it: one closure for each would cost every call that waits. */
  private readonly ended = () => {
    this.count -= 1
    if (this.count === 0) this.onIdle()
  }

  /** What is under way when `close` is called is waited for. */
  add(work: PromiseLike<unknown>): void {
    this.count += 1
    work.then(this.ended, this.ended)
  }

  /** Adds work that no request waits for. */
  addUnattended(work: Promise<unknown>): void {
    const forget = () => this.unattended.delete(work)
    this.unattended.add(work)
    work.then(forget, forget)
    this.add(work)
  }

  /** Resolves once the work that no request waits for is over, whether or not it failed. */
  async unattendedEnded(): Promise<void> {
    await Promise.allSettled(this.unattended)
  }

  /** Calls `end` once nothing is under way; only the first call does anything. */
  close(end: () => Promise<void>): Promise<void> {
    this.closing ??= this.endWhenIdle(end)
    return this.closing
  }

  private async endWhenIdle(end: () => Promise<void>): Promise<void> {
    while (this.count > 0) {
      await new Promise<void>((resolve) => {
        this.onIdle = resolve
      })
    }
    await end()
  }
}
