import { hash, timingSafeEqual } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { Awaitable } from '../../internal/awaitable.ts'
import { addressGroup } from '../keys/client-address.ts'
import { FairQueue, type Turn } from './fair-queue.ts'

/** Who presents a key. It decides the order when many wait for bcrypt. */
export interface Presenter {
  readonly ip: string | undefined
  /** The address that the key was last used from, as far as that is known. */
  readonly usualIp: string | null
}

/** bcrypt runs on the thread pool that files and name look-ups share: two of its four threads at most. */
const BOUNDS = { running: 2, waiting: 100, waitingForSubject: 32, waitingForOrigin: 8 }
const PROVEN = 10_000
/** Of texts that were wrong, or found no room; and of the addresses that they came from. */
const REMEMBERED = 10_000
/** What speaks for a text. */
const RANK = { known: 2, fresh: 1, failed: 0 }

/**
 * The package `bcrypt`, with its cost bounded. It remembers a proven text for a crypt string by its SHA-256: each
 * process compares a text with bcrypt once, and a wrong text for a proven string costs no bcrypt at all.
 *
 * Key ids are public, so strangers may guess, and a process that has just started cannot tell the owner's key from a
 * guess. So each address has its own line for each key. First goes the address that last used the key, and a text that
 * comes again, since a wrong guess is not compared twice. Last go addresses that guessed wrong.
 */
export class Bcrypt {
  private readonly proven = new LRUCache<string, Buffer>({ max: PROVEN })
  private readonly remembered = new LRUCache<string, 'wrong' | 'refused'>({ max: REMEMBERED })
  private readonly failedFrom = new LRUCache<string, true>({ max: REMEMBERED })
  private readonly comparing = new Map<string, Promise<boolean>>()
  private readonly queue = new FairQueue(BOUNDS)
  private created = 0

  /** The crypt string of a text. */
  async create(text: string, cost: number): Promise<string> {
    const bcrypt = await loadBcrypt()
    this.created += 1
    const turn = { subject: `create ${this.created}`, origin: 'create', rank: RANK.known }
    return this.queue.enter(turn, () => bcrypt.hash(text, cost))
  }

  /** Whether a crypt string is that of the text; at once where this process has compared it before. */
  matches(text: string, crypt: string, presenter?: Presenter): Awaitable<boolean> {
    const proof = hash('sha256', text, 'buffer')
    const known = this.proven.get(crypt)
    if (known) return timingSafeEqual(proof, known)
    const id = `${crypt} ${proof.toString('base64url')}`
    const earlier = this.remembered.get(id)
    if (earlier === 'wrong') return false
    const running = this.comparing.get(id)
    if (running) return running
    const turn = this.turnOf(crypt, presenter, earlier === 'refused')
    const comparison = this.compareInTurn(text, crypt, turn, id)
      .then((matched) => {
        if (matched) this.proven.set(crypt, proof)
        else {
          this.remembered.set(id, 'wrong')
          this.failedFrom.set(lineOf(turn), true)
        }
        return matched
      })
      .finally(() => this.comparing.delete(id))
    this.comparing.set(id, comparison)
    return comparison
  }

  private turnOf(subject: string, presenter: Presenter | undefined, isAgain: boolean): Turn {
    const origin = addressGroup(presenter?.ip) ?? ''
    const isUsual = origin !== '' && origin === addressGroup(presenter?.usualIp ?? undefined)
    if (isUsual || isAgain) return { subject, origin, rank: RANK.known }
    const hasFailed = this.failedFrom.has(lineOf({ subject, origin }))
    return { subject, origin, rank: hasFailed ? RANK.failed : RANK.fresh }
  }

  private async compareInTurn(text: string, crypt: string, turn: Turn, id: string): Promise<boolean> {
    const bcrypt = await loadBcrypt()
    let hasBegun = false
    try {
      return await this.queue.enter(turn, () => {
        hasBegun = true
        // The package does not know PHP's name for the same thing, and would call every key wrong.
        return bcrypt.compare(text, crypt.replace('$2y$', '$2b$'))
      })
    } catch (error) {
      if (!hasBegun) this.remembered.set(id, 'refused')
      throw error
    }
  }

  /** Whether some text was compared with it and was right: to ask again costs microseconds. */
  isProven(crypt: string): boolean {
    return this.proven.has(crypt)
  }
}

function lineOf({ subject, origin }: Pick<Turn, 'subject' | 'origin'>): string {
  return `${subject} ${origin}`
}

interface Package {
  hash(data: string, cost: number): Promise<string>
  compare(data: string, digest: string): Promise<boolean>
}

async function loadBcrypt(): Promise<Package> {
  try {
    // A CommonJS module: its members hang on `default`, or not, by how this file was built.
    const module = (await import('bcrypt')) as unknown as { default?: Package } & Package
    return module.default ?? module
  } catch (cause) {
    throw new Error('bcrypt digests need the package "bcrypt": npm install bcrypt', { cause })
  }
}
