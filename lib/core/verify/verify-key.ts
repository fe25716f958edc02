import { LatchkeyError } from '../../errors.ts'
import { type Awaitable, isPromiseLike } from '../../internal/awaitable.ts'
import { tellCacheResult } from '../diagnostics/channels.ts'
import type { Digester } from '../digests/digest.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { ImportedFormats } from '../keys/imported-format.ts'
import { claimOf, hasRightChecksum, parseKey } from '../keys/key-format.ts'
import type { KeyStore } from '../keys/key-store.ts'
import type { ApiKey } from '../keys/record.ts'
import { toldBy } from '../keys/requirement-of-request.ts'
import type { Cost, KeyCost } from '../limits/cost.ts'
import type { NoteAdmitted } from '../usage/admitted-call.ts'
import type { UsageCounter } from '../usage/usage-counter.ts'
import { Admitted } from './admitted-key.ts'
import { decideKey } from './decide-key.ts'
import type { FailedAttempts } from './failed-attempts.ts'
import { idleAtOf } from './idle-at.ts'
import { isAcceptedPrefix, type VerifyOptions } from './key-verifier.ts'
import { staleStoreError } from './look-at-limits.ts'
import type { OwnerState } from './owner-state.ts'
import type { CachedKey, LoadedKey, Lookup, RecordCache } from './record-cache.ts'
import { createRefuseKey, type RefuseKey } from './refuse-key.ts'
import { Spender, type SpenderParts, type Spending } from './spend.ts'
import { createUpgradeDigest, type UpgradeDigest } from './upgrade-digest.ts'
import type { UsageLog } from './usage-log.ts'
import type { InvalidReason, RefusedKey, VerifyResult } from './verify-result.ts'

export interface VerifierParts extends SpenderParts {
  readonly cache: RecordCache
  readonly store: KeyStore
  readonly digester: Digester
  readonly formats: ImportedFormats
  /** Null if the application has no owner hooks. */
  readonly ownerState: OwnerState | null
  readonly usage: UsageLog | null
  /** Null if nothing is counted by the hour. */
  readonly usageCounter: UsageCounter | null
  readonly noteAdmitted: NoteAdmitted | null
  readonly failedAttempts: FailedAttempts
  readonly idleSlackMs: number
  readonly upgradeDigests: boolean
  emit(event: ApiKeyEvent): void
  /** Runs work in the background; `close()` waits for it. */
  inBackground(work: Promise<unknown>): void
}

export interface Verifier {
  verify(key: string, options: VerifyOptions): Awaitable<VerifyResult>
}

/** How often to read a record again because the limiter knows a newer version, before it counts as a fault. */
const MAX_STALE = 2

/** What is presented. */
interface Presented {
  readonly key: string
  readonly lookup: Lookup
  /** The id that a native key claims; null for an imported one, whose id only its record tells. */
  readonly keyId: string | null
  readonly options: VerifyOptions
}

/**
 * One verification on its way through the steps, which is also the view of the key that is decided upon. It is changed in place: a copy
 * would cost every call, and no two steps of one verification are under way at once.
 */
interface Verification extends Presented {
  readonly cost: Cost
  facts: CachedKey
  /** Whether the record was read after the call came. */
  isFresh: boolean
  idleAtMs: number
  granted: ApiKey | null | undefined
  /** Also the time of the use: asking the clock once more would cost every call. */
  decidedAt: number
  /** How often the record was read again because it was out of date. */
  staleReads: number
}

/**
 * Verification, step by step: find the record, prove the secret, decide, spend, admit. The only I/O is the record, the
 * owner's status and the limiter; a warm call does only the limiter's. It never waits for what is already there: a warm
 * call is answered synchronously.
 */
export function createVerifier(parts: VerifierParts): Verifier {
  return new LocalVerifier(parts)
}

class LocalVerifier implements Verifier {
  private readonly refuse: RefuseKey
  private readonly spender: Spender
  private readonly upgradeDigest: UpgradeDigest
  private readonly parts: VerifierParts

  constructor(parts: VerifierParts) {
    this.parts = parts
    this.refuse = createRefuseKey(parts.clock, parts.emit)
    this.spender = new Spender(parts)
    this.upgradeDigest = createUpgradeDigest(parts)
  }

  verify(key: string, options: VerifyOptions): Awaitable<VerifyResult> {
    if (typeof key !== 'string') return this.refuseInvalid('malformed', null, null, options)
    const claim = claimOf(key)
    // Asked once for all steps of a warm call: reading the clock costs as much as some of them.
    const now = this.parts.clock.now()
    const held = this.parts.cache.peek(claim.keyId, now)
    return held?.isWholeKeyDigest && held.digest.isCheap()
      ? this.verifyHeld(key, held, claim.prefix, options, now)
      : this.verifyNative(key, options)
  }

  /** What matches the digest of a whole key is that key, whose shape nobody has to look at. */
  private verifyHeld(
    key: string,
    held: CachedKey,
    prefix: string,
    options: VerifyOptions,
    now: number,
  ): Awaitable<VerifyResult> {
    const isRight = held.digest.matches(key) === true
    if (!isRight && !parseKey(key)) return this.verifyImported(key, options)
    const keyId = held.lookup
    if (!isAcceptedPrefix(prefix, options.prefix)) {
      if (!isRight && !hasRightChecksum(key)) return this.refuseInvalid('malformed', null, null, options)
      return this.refuseInvalid('prefix_not_accepted', keyId, null, options)
    }
    tellCacheResult('hit')
    const verification = this.verificationOf({ key, lookup: keyId, keyId, options }, held, false)
    return isRight ? this.decide(verification, now) : this.refuseSecret(verification)
  }

  private verifyNative(key: string, options: VerifyOptions): Awaitable<VerifyResult> {
    const parsed = parseKey(key)
    if (!parsed) return this.verifyImported(key, options)
    const { prefix, keyId } = parsed
    if (!hasRightChecksum(key)) return this.refuseInvalid('malformed', null, null, options)
    if (!isAcceptedPrefix(prefix, options.prefix)) {
      return this.refuseInvalid('prefix_not_accepted', keyId, null, options)
    }
    return this.find({ key, lookup: keyId, keyId, options }, this.parts.cache.peek(keyId))
  }

  /** A text without the shape of a native key may be an imported key. */
  private verifyImported(key: string, options: VerifyOptions): Awaitable<VerifyResult> {
    const lookup = this.lookupsOf(key)
    if (lookup.length === 0) return this.refuseInvalid('malformed', null, null, options)
    return this.find({ key, lookup, keyId: null, options }, this.parts.cache.peek(lookup))
  }

  private lookupsOf(key: string): readonly string[] {
    try {
      return this.parts.formats.lookupsOf(key)
    } catch (error) {
      throw this.parts.guard.toError('format', error)
    }
  }

  /** Continues with the held record, or reads it. */
  private find(presented: Presented, held: CachedKey | null | undefined): Awaitable<VerifyResult> {
    const { keyId, lookup, options } = presented
    // Good keys behind a shared address keep working: where a digest is at hand, the key says for itself what it is.
    const blocked = held?.digest.isCheap() ? null : this.findBlock(options)
    if (blocked && !this.parts.cache.proves(lookup, presented.key)) return this.refuse(blocked, options)
    tellCacheResult(held ? 'hit' : held === null ? 'absent' : 'miss')
    if (held === null) return this.refuseInvalid('unknown', keyId, null, options)
    if (held) return this.prove(this.verificationOf(presented, held, false))
    return this.parts.cache.load(lookup).then(({ cached, fresh }) => {
      if (!cached) return this.refuseInvalid('unknown', keyId, null, options)
      return this.prove(this.verificationOf(presented, cached, fresh))
    })
  }

  private findBlock(options: VerifyOptions): RefusedKey | null {
    const retryAfterMs = this.parts.failedAttempts.blockedForMs(options.ip)
    return retryAfterMs === 0 ? null : { ok: false, code: 'too_many_failures', retryAfterMs }
  }

  private verificationOf(presented: Presented, facts: CachedKey, isFresh: boolean): Verification {
    const { key, lookup, keyId, options } = presented
    return {
      key,
      lookup,
      keyId,
      options,
      cost: options.cost ?? 1,
      facts,
      isFresh,
      idleAtMs: idleAtOf(facts, this.parts),
      granted: this.parts.ownerState ? undefined : facts.apiKey,
      decidedAt: 0,
      staleReads: 0,
    }
  }

  /** Lets the digest decide whether this is the key. */
  private prove(verification: Verification): Awaitable<VerifyResult> {
    const { key, options, facts } = verification
    const presenter = { ip: options.ip, usualIp: facts.apiKey.lastUsedIp }
    const matched = facts.digest.matches(key, presenter)
    if (!isPromiseLike(matched)) return matched ? this.decide(verification) : this.refuseSecret(verification)
    const isRight = this.parts.guard.run('digest', () => matched)
    return isRight.then((right) => (right ? this.decide(verification) : this.refuseSecret(verification)))
  }

  private refuseSecret({ key, keyId, options, facts }: Verification): Awaitable<RefusedKey> {
    if (keyId !== null && !hasRightChecksum(key)) return this.refuseInvalid('malformed', null, null, options)
    const blocked = this.findBlock(options)
    if (blocked) return this.refuse(blocked, options)
    const refuseIt = () => this.refuseInvalid('wrong_secret', keyId, facts, options)
    const isWrong = facts.digest.beforeBlame()
    return isPromiseLike(isWrong) ? isWrong.then(refuseIt) : refuseIt()
  }

  private decide(verification: Verification, now = this.parts.clock.now()): Awaitable<VerifyResult> {
    const { keyId, options, facts } = verification
    verification.decidedAt = now
    const decision = decideKey(verification, options, now)
    switch (decision.outcome) {
      case 'owner_unknown':
        return this.askOwner(verification)
      case 'allowed':
        return this.charge(verification)
      case 'requirement_unknown':
        throw this.parts.guard.toError('permissions', decision.error)
      case 'refused': {
        const { refusal } = decision
        this.countRefusal(verification, refusal)
        if (refusal.code !== 'invalid_key') return this.refuse(refusal, options)
        return this.refuseInvalid(refusal.reason, keyId, facts, options)
      }
    }
  }

  private askOwner(verification: Verification): Awaitable<VerifyResult> {
    const proceed = (granted: ApiKey | null) => {
      verification.granted = granted
      return this.decide(verification)
    }
    const granted = this.parts.ownerState?.(verification.facts.apiKey) ?? null
    return isPromiseLike(granted) ? granted.then(proceed) : proceed(granted)
  }

  private charge(verification: Verification): Awaitable<VerifyResult> {
    const spending = this.spender.spend(verification)
    if (!isPromiseLike(spending)) return this.conclude(verification, spending)
    return spending.then((known) => this.conclude(verification, known))
  }

  private conclude(verification: Verification, spending: Spending): Awaitable<VerifyResult> {
    switch (spending.outcome) {
      case 'spent':
        return this.admit(verification, spending)
      case 'stale':
        verification.staleReads += 1
        return this.readAgain(verification)
      case 'unknown':
        return this.readAgain(verification)
      default: {
        const { outcome: code, limits, retryAfterMs } = spending
        const apiKey = verification.granted as ApiKey
        const refusal: RefusedKey = { ok: false, code, apiKey, limits, retryAfterMs }
        this.countRefusal(verification, refusal)
        return this.refuse(refusal, verification.options)
      }
    }
  }

  private async readAgain(verification: Verification): Promise<VerifyResult> {
    if (verification.staleReads > MAX_STALE) throw staleStoreError(this.parts.guard)
    tellCacheResult('outdated')
    const { cached, fresh }: LoadedKey = await this.parts.cache.loadFresh(verification.lookup)
    if (!cached) return this.refuseInvalid('unknown', verification.keyId, null, verification.options)
    verification.facts = cached
    verification.isFresh = fresh
    verification.idleAtMs = idleAtOf(cached, this.parts)
    verification.granted = this.parts.ownerState ? undefined : cached.apiKey
    return this.prove(verification)
  }

  private admit(
    { key, cost, options, facts, granted, decidedAt }: Verification,
    { limits, charge: spent, hold }: Spending & { outcome: 'spent' },
  ): VerifyResult {
    facts.lastActiveAtMs = decidedAt
    const apiKey = granted as ApiKey
    this.parts.usage?.record(facts, cost === 0 ? 0 : 1, decidedAt, options.ip)
    this.countAdmission(facts, apiKey, cost === 0 ? null : spent.cost, options, decidedAt)
    this.upgradeDigest(key, facts)
    return new Admitted(apiKey, limits, this.parts.limiter, spent, hold)
  }

  /** A call that costs nothing is a look, which uses permissions all the same. */
  private countAdmission(
    { apiKey: { id, permissions: own }, quota }: CachedKey,
    apiKey: ApiKey,
    cost: KeyCost | null,
    { permissions, ip }: VerifyOptions,
    at: number,
  ): void {
    const { usageCounter, noteAdmitted } = this.parts
    const told = permissions && toldBy(permissions)
    const required = told && 'requirement' in told ? told.requirement : undefined
    usageCounter?.admitted(id, cost, quota !== null, { own, granted: apiKey.permissions }, required, at)
    if (cost) noteAdmitted?.(apiKey, cost, quota !== null, at, ip)
  }

  /** Only of keys that are proven: whoever knows an id must not be able to add to its counts. */
  private countRefusal({ facts, decidedAt }: Verification, refusal: RefusedKey): void {
    const reason = refusal.code === 'invalid_key' ? refusal.reason : refusal.code
    this.parts.usageCounter?.refused(facts.apiKey.id, reason, decidedAt)
  }

  private refuseInvalid(
    reason: InvalidReason,
    keyId: string | null,
    facts: CachedKey | null,
    options: VerifyOptions,
  ): RefusedKey {
    if (this.parts.failedAttempts.blockedForMs(options.ip) === 0) this.parts.failedAttempts.count(options.ip)
    return this.refuse({ ok: false, code: 'invalid_key', reason }, options, keyId, facts?.apiKey)
  }
}

/** The error of every call after `close()`. */
export function closedError(): LatchkeyError {
  return new LatchkeyError('unavailable', 'close() was called on these API keys', { stack: false })
}
