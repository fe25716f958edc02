/** The places of a limit of kind `concurrent`: until when each is taken, by the name of its call. */
export class PlaceBook {
  private readonly taken = new Map<string, number>()

  /** How many are taken. */
  held(now: number): number {
    return [...this.taken.values()].filter((until) => until > now).length
  }

  /** The same with places that nobody has given back, though their time is over. */
  heldOrForgotten(): number {
    return this.taken.size
  }

  take(id: string, until: number): void {
    this.taken.set(id, until)
  }

  release(id: string): void {
    this.taken.delete(id)
  }

  /** Takes a place for longer, or again; whether it was taken until now. */
  renew(id: string, until: number, now: number): boolean {
    const wasTaken = (this.taken.get(id) ?? 0) > now
    this.taken.set(id, until)
    return wasTaken
  }
}
