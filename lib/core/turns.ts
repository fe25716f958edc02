/** Does a piece of work in turns, never twice at once. */
export class Turns {
  private running: Promise<boolean> | null = null
  private following: Promise<boolean> | null = null

  /** @param work it never rejects, and resolves to whether all was done */
  constructor(private readonly work: () => Promise<boolean>) {}

  /** A turn that begins after this call. Work under way has taken what it does: the next turn serves all who ask meanwhile. */
  take(): Promise<boolean> {
    if (!this.running) return this.start()
    this.following ??= this.running.then(() => {
      this.following = null
      return this.start()
    })
    return this.following
  }

  private start(): Promise<boolean> {
    this.running = this.work().finally(() => {
      this.running = null
    })
    return this.running
  }
}
