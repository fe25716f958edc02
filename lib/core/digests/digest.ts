import { createHmac, hash, type KeyObject, timingSafeEqual } from 'node:crypto'
import { LatchkeyError } from '../../errors.ts'
import { type Awaitable, isPromiseLike } from '../../internal/awaitable.ts'
import { OptionError } from '../../internal/option-error.ts'
import { Bcrypt, type Presenter } from './bcrypt.ts'
import { coveredPart, readCoverage } from './digest-coverage.ts'
import { checkPeppers, checkScheme, type ResolvedScheme } from './digest-options.ts'
import { type CreatePepperCheck, type PepperCheck, UNCHECKED } from './pepper-check.ts'

/**
 * How to make digests of new keys. Every scheme stays verifiable whatever you choose, since a stored digest names its
 * own.
 *
 * - `sha256`: one SHA-256 over the key. Enough for keys of 256 random bits, which cannot be guessed.
 * - `hmac-sha256`: SHA-256 under a pepper that the database does not hold, so a stolen table cannot even confirm a
 *   guess. The default when `peppers` are configured.
 * - `bcrypt`: for policies that require it. Needs the package `bcrypt`. A process runs it once for each key, not once
 *   for each request. `cost` is its work factor, 4 to 15.
 */
export type DigestScheme =
  | 'sha256'
  | 'hmac-sha256'
  | 'bcrypt'
  | { readonly scheme: 'bcrypt'; readonly cost?: number }

/** A named secret for making digests. */
export interface Pepper {
  /**
   * Stored with each digest: 1 to 32 letters, digits, `_` and `-`. Never reuse an id for another secret. A process
   * whose secret differs from the others' fails with `unavailable`, and its faults name the id; it does not call good
   * keys invalid.
   */
  readonly id: string
  /** At least 32 bytes, identical in every process; a string counts as UTF-8. */
  readonly secret: string | Uint8Array
}

/** A stored digest, read once. */
export interface PreparedDigest {
  /**
   * Resolves if a key that does not match is a wrong key; rejects if this process's configuration may be wrong instead.
   *
   * @throws LatchkeyError `unavailable`
   */
  beforeBlame(): Awaitable<void>
  /** Whether `key` is the key of this digest, compared in constant time. bcrypt takes turns between presenters. */
  matches(key: string, presenter?: Presenter): Awaitable<boolean>
  /** Whether a comparison costs microseconds rather than a share of a core. */
  isCheap(): boolean
  /** Whether a new digest of the key would be made the same way. */
  readonly isCurrent: boolean
  /** How many characters of the key count, at most; later ones may differ the next time. */
  readonly readsAtMost: number
  /** Which part of the key it covers, as its name says it; empty for the whole key. */
  readonly coverage: string
}

export interface Digester {
  /**
   * The digest string for a key under the current scheme. One that takes the place of another covers the same part: what
   * that did not cover may differ the next time the key is presented.
   *
   * @throws LatchkeyError `unavailable` where other processes have another secret under the pepper.
   */
  create(key: string, coverage?: string): Awaitable<string>
  /** Reads a stored digest string. @throws LatchkeyError `unknown_digest` */
  prepare(digest: string): PreparedDigest
  /** Declares this process's secret the right one. @throws TypeError when there is no such pepper */
  acceptPepper(id: string): Promise<void>
}

const SHA256 = /^\$sha256\$([A-Za-z0-9_-]{43})$/
const HMAC_SHA256 = /^\$hmac-sha256\$([A-Za-z0-9_-]{1,32})\$([A-Za-z0-9_-]{43})$/
const SHA512 = /^\$sha512\$([A-Za-z0-9_-]{86})$/
const BCRYPT = /^\$bcrypt(\$2[aby]\$\d\d\$[./A-Za-z0-9]{53})$/
/** bcrypt reads 72 bytes, and keys are ASCII. */
const BCRYPT_READS = 72
const BCRYPT_SHA256 = /^\$bcrypt-sha256(\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53})$/

/** @throws TypeError naming the option. */
export function createDigester(
  options: { digest?: unknown; peppers?: unknown },
  createCheck: CreatePepperCheck = () => UNCHECKED,
): Digester {
  const secrets = checkPeppers('peppers', options.peppers ?? [])
  const peppers = new Map<string, HeldPepper>()
  for (const [id, secret] of secrets) peppers.set(id, { secret, check: createCheck(id, secret) })
  const usual = secrets.size > 0 ? 'hmac-sha256' : 'sha256'
  return new LocalDigester(peppers, checkScheme('digest', options.digest ?? usual, secrets))
}

interface HeldPepper {
  readonly secret: KeyObject
  readonly check: PepperCheck
}

class LocalDigester implements Digester {
  private readonly currentPepper: string | undefined
  private madeBcrypt: Bcrypt | undefined

  constructor(
    private readonly peppers: ReadonlyMap<string, HeldPepper>,
    private readonly scheme: ResolvedScheme,
  ) {
    this.currentPepper = peppers.keys().next().value
  }

  create(key: string, coverage = ''): Awaitable<string> {
    const text = coveredPart(key, coverage)
    if (text === null) throw new Error('the key does not have the part that its digest covers')
    if (this.scheme.name === 'bcrypt') {
      return this.bcrypt()
        .create(sha256Of(text), this.scheme.cost)
        .then((crypt) => `$bcrypt-sha256${coverage}${crypt}`)
    }
    if (this.scheme.name === 'sha256') return `$sha256${coverage}$${sha256Of(text)}`
    const { secret, check } = this.peppers.get(this.currentPepper as string) as HeldPepper
    const make = () => {
      const digest = createHmac('sha256', secret).update(text).digest('base64url')
      return `$hmac-sha256${coverage}$${this.currentPepper}$${digest}`
    }
    const checked = check.beforeUse()
    return isPromiseLike(checked) ? checked.then(make) : make()
  }

  prepare(digest: string): PreparedDigest {
    const { whole, coverage } = readCoverage(digest)
    const prepared = this.prepareWhole(whole)
    if (coverage === '') return prepared
    const matches = (key: string, presenter?: Presenter) => {
      const text = coveredPart(key, coverage)
      return text !== null && prepared.matches(text, presenter)
    }
    const { isCheap, isCurrent, beforeBlame, readsAtMost } = prepared
    return { matches, isCheap, isCurrent, beforeBlame, readsAtMost, coverage }
  }

  private prepareWhole(digest: string): PreparedDigest {
    const sha256 = SHA256.exec(digest)
    if (sha256) return new Sha256Digest(sha256[1] as string, this.scheme.name === 'sha256')
    const hmac = HMAC_SHA256.exec(digest)
    if (hmac) return this.prepareHmac(hmac[1] as string, Buffer.from(hmac[2] as string, 'base64url'))
    const crypted = BCRYPT_SHA256.exec(digest)
    if (crypted) {
      // bcrypt reads 72 bytes at most, so it is given the 43 characters of the key's SHA-256.
      const isCurrent = this.scheme.name === 'bcrypt' && Number(crypted[2]) === this.scheme.cost
      return this.prepareBcrypt(crypted[1] as string, sha256Of, isCurrent)
    }
    const sha512 = SHA512.exec(digest)
    if (sha512) {
      const expected = Buffer.from(sha512[1] as string, 'base64url')
      return {
        ...PLAIN,
        matches: (key) => timingSafeEqual(hash('sha512', key, 'buffer'), expected),
        isCurrent: false,
      }
    }
    const bare = BCRYPT.exec(digest)
    if (bare) {
      const prepared = this.prepareBcrypt(bare[1] as string, (key) => key.slice(0, BCRYPT_READS), false)
      return { ...prepared, readsAtMost: BCRYPT_READS }
    }
    throw new LatchkeyError('unknown_digest', 'a stored digest has a scheme that this release does not know')
  }

  /** `input` is what bcrypt is given of a key. */
  private prepareBcrypt(crypt: string, input: (key: string) => string, isCurrent: boolean): PreparedDigest {
    return {
      ...PLAIN,
      matches: (key, presenter) => this.bcrypt().matches(input(key), crypt, presenter),
      isCheap: () => this.bcrypt().isProven(crypt),
      isCurrent,
    }
  }

  private prepareHmac(pepperId: string, expected: Buffer): PreparedDigest {
    const pepper = this.peppers.get(pepperId)
    if (!pepper) {
      const problem = `a stored digest was made under the pepper "${pepperId}", which is not configured`
      throw new LatchkeyError('unknown_digest', problem)
    }
    const { secret, check } = pepper
    return {
      ...PLAIN,
      matches(key) {
        const isRight = timingSafeEqual(createHmac('sha256', secret).update(key).digest(), expected)
        if (isRight && !check.isSettled) check.proven()
        return isRight
      },
      beforeBlame: () => check.beforeBlame(),
      isCurrent: this.scheme.name === 'hmac-sha256' && pepperId === this.currentPepper,
    }
  }

  async acceptPepper(id: string): Promise<void> {
    const pepper = this.peppers.get(id)
    if (!pepper) throw new OptionError('pepper', 'be the id of a configured pepper')
    await pepper.check.accept()
  }

  /** Most never need it, and what it remembers by takes memory from the beginning. */
  private bcrypt(): Bcrypt {
    this.madeBcrypt ??= new Bcrypt()
    return this.madeBcrypt
  }
}

/** How a stored digest was made: its scheme, and the id of its pepper, null where it has none. */
export function schemeOf(digest: string): { readonly scheme: string; readonly pepper: string | null } {
  const { whole } = readCoverage(digest)
  // Nothing of a text that names no scheme is shown: it may be a key.
  const scheme = /^\$([a-z0-9-]{1,32})\$/.exec(whole)?.[1] ?? 'unknown'
  return { scheme, pepper: HMAC_SHA256.exec(whole)?.[1] ?? null }
}

/** What most digests have in common. Only a pepper can differ from process to process. */
const PLAIN = { isCheap: () => true, beforeBlame: () => {}, readsAtMost: Infinity, coverage: '' } as const

function sha256Of(text: string): string {
  return hash('sha256', text, 'base64url')
}

/** A class, and no buffer of its own: one is kept for each cached key. */
class Sha256Digest implements PreparedDigest {
  readonly isCurrent: boolean
  /** As it is stored: 43 characters. */
  readonly #expected: string

  constructor(expected: string, isCurrent: boolean) {
    // A part of a longer text would keep all of it in memory.
    this.#expected = Buffer.from(expected, 'latin1').toString('latin1')
    this.isCurrent = isCurrent
  }

  matches(key: string): boolean {
    return isSameText(sha256Of(key), this.#expected)
  }

  isCheap(): boolean {
    return true
  }

  beforeBlame(): void {}

  get readsAtMost(): number {
    return Infinity
  }

  get coverage(): string {
    return ''
  }
}

/** What two texts are written into to be compared: `hash` is three times as quick with a string. */
const [one, other] = [Buffer.alloc(43), Buffer.alloc(43)]

/** Whether two texts of 43 characters are the same, in constant time. */
function isSameText(text: string, expected: string): boolean {
  one.write(text, 'latin1')
  other.write(expected, 'latin1')
  return timingSafeEqual(one, other)
}
