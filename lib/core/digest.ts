import { createHmac, createSecretKey, hash, type KeyObject, timingSafeEqual } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { LatchkeyError } from '../errors.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import { checkArray, checkInteger, checkObject, describe, fail } from '../internal/options.ts'
import { createGate } from './gate.ts'

/**
 * How digests of new keys are made. Every scheme stays verifiable whatever is chosen here, since a stored
 * digest names its own.
 *
 * - `sha256`: one SHA-256 over the key. Right for keys of 256 random bits: there is nothing to guess.
 * - `hmac-sha256`: the same under a pepper that the database does not hold, so that a stolen table cannot even confirm
 *   a guess. The default where `peppers` are configured.
 * - `bcrypt`: for those whose policy asks for it. Needs the package `bcrypt`. A process runs it once for each
 *   key, not once for each request. `cost` is its work factor, 4 to 15.
 */
export type DigestScheme =
  | 'sha256'
  | 'hmac-sha256'
  | 'bcrypt'
  | { readonly scheme: 'bcrypt'; readonly cost?: number }

/** A named secret that digests are made under. */
export interface Pepper {
  /** Stored with each digest: 1 to 32 letters, digits, `_` and `-`. Never reuse an id for another secret. */
  readonly id: string
  /** At least 32 bytes; a string counts as UTF-8. */
  readonly secret: string | Uint8Array
}

/** A stored digest, read once. */
export interface PreparedDigest {
  /** Whether `key` is the key of this digest, compared in constant time. */
  matches(key: string): Awaitable<boolean>
  /** Whether to ask costs microseconds rather than a share of a core. */
  readonly isCheap: boolean
  /** Whether a new digest of the key would be made the same way. */
  readonly isCurrent: boolean
}

export interface Digester {
  /** The digest string for a key under the current scheme. */
  create(key: string): Awaitable<string>
  /** Reads a stored digest string. @throws LatchkeyError `unknown_digest` */
  prepare(digest: string): PreparedDigest
}

const DEFAULT_BCRYPT_COST = 12
const MAX_PEPPERS = 16
const PEPPER_ID = /^[A-Za-z0-9_-]{1,32}$/
const SHA256 = /^\$sha256\$([A-Za-z0-9_-]{43})$/
const HMAC_SHA256 = /^\$hmac-sha256\$([A-Za-z0-9_-]{1,32})\$([A-Za-z0-9_-]{43})$/
const BCRYPT_SHA256 = /^\$bcrypt-sha256(\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53})$/

/** bcrypt runs on the thread pool that files and name look-ups share: two of its four threads at most. */
const BCRYPT_RUNNING = 2
const BCRYPT_WAITING = 100
const BCRYPT_PROVEN = 10_000
/** Key ids are public: wrong secrets for one key must not keep the others waiting. */
const BCRYPT_WAITING_FOR_ONE = 8

/** @throws TypeError naming the option. */
export function createDigester(options: { digest?: unknown; peppers?: unknown }): Digester {
  const peppers = checkPeppers('peppers', options.peppers ?? [])
  const scheme = checkScheme(
    'digest',
    options.digest ?? (peppers.size > 0 ? 'hmac-sha256' : 'sha256'),
    peppers,
  )
  let made: ReturnType<typeof createBcrypt> | undefined
  // Most never need it, and what it remembers by takes memory from the beginning.
  const bcrypt = () => {
    made ??= createBcrypt()
    return made
  }
  const [currentPepper] = peppers.keys()

  function create(key: string): Awaitable<string> {
    if (scheme.name === 'bcrypt') return bcrypt().create(key, scheme.cost)
    if (scheme.name === 'sha256') return `$sha256$${hash('sha256', key, 'base64url')}`
    const pepper = peppers.get(currentPepper as string) as KeyObject
    return `$hmac-sha256$${currentPepper}$${createHmac('sha256', pepper).update(key).digest('base64url')}`
  }

  function prepare(digest: string): PreparedDigest {
    const sha256 = SHA256.exec(digest)
    if (sha256) {
      const expected = Buffer.from(sha256[1] as string, 'latin1')
      return {
        matches: (key) => isSameText(hash('sha256', key, 'base64url'), expected),
        isCheap: true,
        isCurrent: scheme.name === 'sha256',
      }
    }
    const hmac = HMAC_SHA256.exec(digest)
    if (hmac) return prepareHmac(hmac[1] as string, Buffer.from(hmac[2] as string, 'base64url'))
    const crypted = BCRYPT_SHA256.exec(digest)
    if (crypted) {
      // The package does not know PHP's name for the same thing, and would call every key wrong.
      const crypt = (crypted[1] as string).replace('$2y$', '$2b$')
      return {
        matches: (key) => bcrypt().matches(key, crypt),
        get isCheap() {
          return bcrypt().isProven(crypt)
        },
        isCurrent: scheme.name === 'bcrypt' && Number(crypted[2]) === scheme.cost,
      }
    }
    throw new LatchkeyError('unknown_digest', 'a stored digest has a scheme that this release does not know')
  }

  function prepareHmac(pepperId: string, expected: Buffer): PreparedDigest {
    const pepper = peppers.get(pepperId)
    if (!pepper) {
      const problem = `a stored digest was made under the pepper "${pepperId}", which is not configured`
      throw new LatchkeyError('unknown_digest', problem)
    }
    return {
      matches: (key) => timingSafeEqual(createHmac('sha256', pepper).update(key).digest(), expected),
      isCheap: true,
      isCurrent: scheme.name === 'hmac-sha256' && pepperId === currentPepper,
    }
  }

  return { create, prepare }
}

/** What the digest of a presented key is written into, to be compared: `hash` is three times as quick with a string. */
const presented = Buffer.alloc(43)

/** Whether a text of 43 characters is the expected one, in constant time. */
function isSameText(text: string, expected: Buffer): boolean {
  presented.write(text, 'latin1')
  return timingSafeEqual(presented, expected)
}

/**
 * bcrypt reads 72 bytes at most and stops at a NUL, so it is given the 43 characters of the key's SHA-256. What a
 * digest was once proven with is remembered as that SHA-256: a key is compared by bcrypt once for each process,
 * and a wrong secret for a proven key costs no bcrypt at all.
 */
function createBcrypt() {
  const proven = new LRUCache<string, Buffer>({ max: BCRYPT_PROVEN })
  const comparing = new Map<string, Promise<boolean>>()
  /** How many are under way for each digest. */
  const comparisons = new Map<string, number>()
  const gate = createGate(BCRYPT_RUNNING, BCRYPT_WAITING)

  async function create(key: string, cost: number): Promise<string> {
    const { hash: hashBcrypt } = await loadBcrypt()
    return `$bcrypt-sha256${await gate(() => hashBcrypt(hash('sha256', key, 'base64url'), cost))}`
  }

  function matches(key: string, digest: string): Awaitable<boolean> {
    const proof = hash('sha256', key, 'buffer')
    const known = proven.get(digest)
    if (known) return timingSafeEqual(proof, known)
    const id = `${digest} ${proof.toString('base64url')}`
    const running = comparing.get(id)
    if (running) return running
    const others = comparisons.get(digest) ?? 0
    if (others > BCRYPT_WAITING_FOR_ONE) {
      return Promise.reject(new Error('too many bcrypt comparisons for one key are waiting'))
    }
    comparisons.set(digest, others + 1)
    const comparison = compare(proof, digest).finally(() => {
      comparing.delete(id)
      const left = (comparisons.get(digest) ?? 1) - 1
      if (left > 0) comparisons.set(digest, left)
      else comparisons.delete(digest)
    })
    comparing.set(id, comparison)
    return comparison
  }

  async function compare(proof: Buffer, digest: string): Promise<boolean> {
    const bcrypt = await loadBcrypt()
    const matched = await gate(() => bcrypt.compare(proof.toString('base64url'), digest))
    if (matched) proven.set(digest, proof)
    return matched
  }

  return { create, matches, isProven: (digest: string) => proven.has(digest) }
}

interface Bcrypt {
  hash(data: string, cost: number): Promise<string>
  compare(data: string, digest: string): Promise<boolean>
}

async function loadBcrypt(): Promise<Bcrypt> {
  try {
    // A CommonJS module: its members hang on `default`, or not, by how this file was built.
    const module = (await import('bcrypt')) as unknown as { default?: Bcrypt } & Bcrypt
    return module.default ?? module
  } catch (cause) {
    throw new Error('bcrypt digests need the package "bcrypt": npm install bcrypt', { cause })
  }
}

interface ResolvedScheme {
  readonly name: 'sha256' | 'hmac-sha256' | 'bcrypt'
  readonly cost: number
}

function checkScheme(name: string, value: unknown, peppers: ReadonlyMap<string, KeyObject>): ResolvedScheme {
  if (typeof value === 'object' && value !== null) {
    const given = checkObject(name, value, ['scheme', 'cost'])
    if (given.scheme !== 'bcrypt') fail(`${name}.scheme`, '"bcrypt" where an object is given', given.scheme)
    return { name: 'bcrypt', cost: checkInteger(`${name}.cost`, given.cost ?? DEFAULT_BCRYPT_COST, 4, 15) }
  }
  if (value !== 'sha256' && value !== 'hmac-sha256' && value !== 'bcrypt') {
    fail(name, '"sha256", "hmac-sha256" or "bcrypt"', value)
  }
  if (value === 'hmac-sha256' && peppers.size === 0) {
    throw new TypeError(`"${name}" is "hmac-sha256", which needs at least one entry in "peppers"`)
  }
  return { name: value, cost: DEFAULT_BCRYPT_COST }
}

function checkPeppers(name: string, value: unknown): Map<string, KeyObject> {
  const peppers = new Map<string, KeyObject>()
  for (const [i, entry] of checkArray(name, value, MAX_PEPPERS).entries()) {
    const path = `${name}[${i}]`
    const { id, secret } = checkObject(path, entry, ['id', 'secret'])
    if (typeof id !== 'string' || !PEPPER_ID.test(id)) {
      fail(`${path}.id`, '1 to 32 letters, digits, "_" and "-"', id)
    }
    if (peppers.has(id)) throw new TypeError(`"${path}.id" must be unique among the peppers`)
    if (typeof secret !== 'string' && !(secret instanceof Uint8Array)) {
      throw new TypeError(`"${path}.secret" must be a string or a Uint8Array, received ${describe(secret)}`)
    }
    const bytes = Buffer.from(secret as string)
    if (bytes.length < 32) throw new TypeError(`"${path}.secret" must be at least 32 bytes long`)
    peppers.set(id, createSecretKey(bytes))
  }
  return peppers
}
