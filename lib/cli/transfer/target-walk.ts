import { comparePositions, type KeyPosition, type KeyStore } from '../../core/keys/key-store.ts'
import type { KeyRecord } from '../../core/keys/record.ts'

const PAGE = 1_000
/** Sorts after every id of a key. */
const LAST_ID = 'z'.repeat(255)

/** Reads the keys of a store in order, as far as they are asked for. */
export class TargetWalk {
  private after: KeyPosition | undefined
  private buffer: KeyRecord[] = []
  private isAtEnd = false
  private position: KeyPosition | undefined

  constructor(private readonly store: Pick<KeyStore, 'list'>) {}

  /** The next records, up to and including this position; all the rest without one. */
  async upTo(position?: KeyPosition): Promise<KeyRecord[]> {
    while (!this.isAtEnd && !this.reaches(position)) await this.readPage()
    const rest =
      position === undefined ? -1 : this.buffer.findIndex((record) => comparePositions(record, position) > 0)
    this.position = position ?? this.position
    return this.buffer.splice(0, rest < 0 ? this.buffer.length : rest)
  }

  /** Goes back to this position, or begins there. */
  from(first: KeyPosition): void {
    if (this.position && comparePositions(this.position, first) < 0) return
    this.after = { createdAt: new Date(first.createdAt.getTime() - 1), id: LAST_ID }
    this.buffer = []
    this.isAtEnd = false
  }

  private reaches(position: KeyPosition | undefined): boolean {
    const last = this.buffer.at(-1)
    return position !== undefined && last !== undefined && comparePositions(last, position) > 0
  }

  private async readPage(): Promise<void> {
    const page = await this.store.list({}, { limit: PAGE, ...(this.after && { after: this.after }) })
    this.isAtEnd = page.length < PAGE
    this.after = page.at(-1) ?? this.after
    for (const record of page) this.buffer.push(record)
  }
}
