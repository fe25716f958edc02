import { hash, timingSafeEqual } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { Awaitable } from '../internal/awaitable.ts'
import { createGate } from './gate.ts'

export interface Bcrypt {
  /** The crypt string of a text. */
  create(text: string, cost: number): Promise<string>
  /** Whether a crypt string is that of the text; at once where this process has compared it before. */
  matches(text: string, crypt: string): Awaitable<boolean>
  /** Whether some text was compared with it and was right: to ask again costs microseconds. */
  isProven(crypt: string): boolean
}

/** bcrypt runs on the thread pool that files and name look-ups share: two of its four threads at most. */
const RUNNING = 2
const WAITING = 100
const PROVEN = 10_000
/** Key ids are public: wrong secrets for one key must not keep the others waiting. */
const WAITING_FOR_ONE = 8

/**
 * The package `bcrypt`, with its cost bounded. What a crypt string was once proven with is remembered as its SHA-256: a
 * text is compared by bcrypt once for each process, and a wrong one for a proven string costs no bcrypt at all.
 */
export function createBcrypt(): Bcrypt {
  const proven = new LRUCache<string, Buffer>({ max: PROVEN })
  const comparing = new Map<string, Promise<boolean>>()
  /** How many are under way for each crypt string. */
  const comparisons = new Map<string, number>()
  const gate = createGate(RUNNING, WAITING)

  async function create(text: string, cost: number): Promise<string> {
    const bcrypt = await loadBcrypt()
    return gate(() => bcrypt.hash(text, cost))
  }

  function matches(text: string, crypt: string): Awaitable<boolean> {
    const proof = hash('sha256', text, 'buffer')
    const known = proven.get(crypt)
    if (known) return timingSafeEqual(proof, known)
    const id = `${crypt} ${proof.toString('base64url')}`
    const running = comparing.get(id)
    if (running) return running
    const others = comparisons.get(crypt) ?? 0
    if (others > WAITING_FOR_ONE) {
      return Promise.reject(new Error('too many bcrypt comparisons for one key are waiting'))
    }
    comparisons.set(crypt, others + 1)
    const comparison = compare(text, proof, crypt).finally(() => {
      comparing.delete(id)
      const left = (comparisons.get(crypt) ?? 1) - 1
      if (left > 0) comparisons.set(crypt, left)
      else comparisons.delete(crypt)
    })
    comparing.set(id, comparison)
    return comparison
  }

  async function compare(text: string, proof: Buffer, crypt: string): Promise<boolean> {
    const bcrypt = await loadBcrypt()
    // The package does not know PHP's name for the same thing, and would call every key wrong.
    const matched = await gate(() => bcrypt.compare(text, crypt.replace('$2y$', '$2b$')))
    if (matched) proven.set(crypt, proof)
    return matched
  }

  return { create, matches, isProven: (crypt) => proven.has(crypt) }
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
