import { hash, timingSafeEqual } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { Awaitable } from '../../internal/awaitable.ts'
import { addressGroup } from '../keys/client-address.ts'
import { createFairQueue, type Turn } from './fair-queue.ts'

/** Who presents a key. It decides the order when many wait for bcrypt. */
export interface Presenter {
  readonly ip: string | undefined
  /** The address that the key was last used from, as far as that is known. */
  readonly usualIp: string | null
}

export interface Bcrypt {
  /** The crypt string of a text. */
  create(text: string, cost: number): Promise<string>
  /** Whether a crypt string is that of the text; at once where this process has compared it before. */
  matches(text: string, crypt: string, presenter?: Presenter): Awaitable<boolean>
  /** Whether some text was compared with it and was right: to ask again costs microseconds. */
  isProven(crypt: string): boolean
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
export function createBcrypt(): Bcrypt {
  const proven = new LRUCache<string, Buffer>({ max: PROVEN })
  const remembered = new LRUCache<string, 'wrong' | 'refused'>({ max: REMEMBERED })
  const failedFrom = new LRUCache<string, true>({ max: REMEMBERED })
  const comparing = new Map<string, Promise<boolean>>()
  const queue = createFairQueue(BOUNDS)
  let created = 0

  async function create(text: string, cost: number): Promise<string> {
    const bcrypt = await loadBcrypt()
    created += 1
    const turn = { subject: `create ${created}`, origin: 'create', rank: RANK.known }
    return queue(turn, () => bcrypt.hash(text, cost))
  }

  function matches(text: string, crypt: string, presenter?: Presenter): Awaitable<boolean> {
    const proof = hash('sha256', text, 'buffer')
    const known = proven.get(crypt)
    if (known) return timingSafeEqual(proof, known)
    const id = `${crypt} ${proof.toString('base64url')}`
    const earlier = remembered.get(id)
    if (earlier === 'wrong') return false
    const running = comparing.get(id)
    if (running) return running
    const turn = turnOf(crypt, presenter, earlier === 'refused')
    const comparison = compareInTurn(text, crypt, turn, id)
      .then((matched) => {
        if (matched) proven.set(crypt, proof)
        else {
          remembered.set(id, 'wrong')
          failedFrom.set(lineOf(turn), true)
        }
        return matched
      })
      .finally(() => comparing.delete(id))
    comparing.set(id, comparison)
    return comparison
  }

  function turnOf(subject: string, presenter: Presenter | undefined, isAgain: boolean): Turn {
    const origin = addressGroup(presenter?.ip) ?? ''
    const isUsual = origin !== '' && origin === addressGroup(presenter?.usualIp ?? undefined)
    if (isUsual || isAgain) return { subject, origin, rank: RANK.known }
    const hasFailed = failedFrom.has(lineOf({ subject, origin }))
    return { subject, origin, rank: hasFailed ? RANK.failed : RANK.fresh }
  }

  async function compareInTurn(text: string, crypt: string, turn: Turn, id: string): Promise<boolean> {
    const bcrypt = await loadBcrypt()
    let hasBegun = false
    try {
      return await queue(turn, () => {
        hasBegun = true
        // The package does not know PHP's name for the same thing, and would call every key wrong.
        return bcrypt.compare(text, crypt.replace('$2y$', '$2b$'))
      })
    } catch (error) {
      if (!hasBegun) remembered.set(id, 'refused')
      throw error
    }
  }

  return { create, matches, isProven: (crypt) => proven.has(crypt) }
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
