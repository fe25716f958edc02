import { isPromiseLike } from '../../internal/awaitable.ts'
import { checkFunction, checkObject, checkText, fail, isPlainObject } from '../../internal/options.ts'
import type { Clock } from '../clock.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { ImportedFormats } from '../keys/imported-format.ts'
import { mayBeId } from '../keys/key-id.ts'
import { resolveRequirement } from '../keys/permissions.ts'
import type { ApiKey } from '../keys/record.ts'
import { decideKey } from './decide-key.ts'
import { idleAtOf, type KnownUses } from './idle-at.ts'
import type { VerifyOptions } from './key-verifier.ts'
import type { OwnerState } from './owner-state.ts'
import type { CachedKey, RecordCache } from './record-cache.ts'
import type { InvalidReason, RefusedKey } from './verify-result.ts'

/** What a key must still be allowed to do. Addresses are checked only if `ip` is given. */
export interface OnEndOptions extends Pick<VerifyOptions, 'permissions' | 'ip'> {}

/** Why a key may no longer do what it was let in for. */
export type KeyEndReason =
  /** `unknown` says that the key was purged or erased. */
  | Extract<InvalidReason, 'revoked' | 'disabled' | 'expired' | 'idle' | 'owner_inactive' | 'unknown'>
  | 'insufficient_permissions'
  | 'address_not_allowed'

/** The key that is meant: its id, or what `verify` showed of it. */
export type WatchedKey = string | Pick<ApiKey, 'id' | 'lineageId'>

export interface WatchParts extends KnownUses {
  readonly cache: RecordCache
  readonly formats: ImportedFormats
  /** Null if the application has no owner hooks. */
  readonly ownerState: OwnerState | null
  readonly clock: Clock
  /** How long a record may be used; 0 where none is held. */
  readonly maxAgeMs: number
  emit(event: ApiKeyEvent): void
  /** Runs work in the background; `close()` waits for it. */
  inBackground(work: Promise<unknown>): void
}

/** Who wants to know of the end of a key. */
interface Listening {
  readonly listener: (reason: KeyEndReason) => unknown
  readonly options: OnEndOptions
  /** Another key may get the id of one that was purged; undefined until a record tells. */
  lineageId: string | undefined
}

/** One key, whoever wants to know of its end. */
interface Watch {
  readonly id: string
  readonly listenings: Set<Listening>
  /** The record that was decided upon last. */
  facts: CachedKey | null
  /** When to read the record again. */
  readAt: number
  /** When it ends by itself, as far as the record says. */
  endsAt: number
  isLooking: boolean
  /** Whether something has changed during a look. */
  isChanged: boolean
}

/** How many keys are looked at together: each may cost a read of the store. So many more for changes, which then wait for no others. */
const MAX_LOOKS = 10
/** How often to look where no record is held. */
const USUAL_AGE_MS = 5_000
/** What falls due within this share of the interval is done together. */
const TOGETHER = 1 / 20
/** The share of the interval over which looks are spread: sockets that come together do not stay together. */
const SPREAD = 1 / 4
const GOLDEN_RATIO = 0.618_033_988_75

/**
 * Tells when keys end, for connections that outlive their request. A change is looked at when it is heard of, the end of a key when it
 * comes, and each key once before its held record is too old: owners and lost messages tell nothing. It decides as verification
 * does, spends nothing and counts no use. One timer serves all; it keeps no process alive.
 */
export class KeyWatches {
  private readonly watches = new Map<string, Watch>()
  /** To be looked at: those that have changed come first. */
  private readonly changed = new Set<Watch>()
  private readonly due = new Set<Watch>()
  private readonly intervalMs: number
  private lookCount = 0
  private spreadCount = 0
  private wakeAt = Infinity
  private cancelTimer = () => {}

  constructor(private readonly parts: WatchParts) {
    this.intervalMs = parts.maxAgeMs || USUAL_AGE_MS
    parts.cache.onChange = (changed) => this.hear(changed)
  }

  /** Calls `listener` once, when the key ends. Returns a function that ends the listening. @throws TypeError */
  onEnd(
    key: WatchedKey,
    listener: (reason: KeyEndReason) => unknown,
    options: OnEndOptions = {},
  ): () => void {
    const { id, lineageId } = keyOf(key)
    checkFunction('listener', listener)
    const listening: Listening = { listener, options: checkOptions(options), lineageId }
    const watch = this.watchOf(id)
    watch.listenings.add(listening)
    this.lookSoon(watch)
    return () => this.stop(watch, listening)
  }

  /** Forgets every listener. */
  close(): void {
    for (const watch of [...this.watches.values()]) this.drop(watch)
  }

  private watchOf(id: string): Watch {
    let watch = this.watches.get(id)
    if (!watch) {
      watch = {
        id,
        listenings: new Set(),
        facts: null,
        readAt: Infinity,
        endsAt: Infinity,
        isLooking: false,
        isChanged: false,
      }
      this.watches.set(id, watch)
    }
    return watch
  }

  private stop(watch: Watch, listening: Listening): void {
    watch.listenings.delete(listening)
    if (watch.listenings.size === 0) this.drop(watch)
  }

  private drop(watch: Watch): void {
    watch.listenings.clear()
    if (this.watches.get(watch.id) === watch) this.watches.delete(watch.id)
    this.changed.delete(watch)
    this.due.delete(watch)
    if (this.watches.size === 0) this.setTimer(Infinity)
  }

  /** Without a change, changes may have been missed. */
  private hear(change?: { readonly keyId: string; readonly version: number }): void {
    if (!change) {
      for (const watch of this.watches.values()) this.lookSoon(watch)
      return
    }
    const watch = this.watches.get(change.keyId)
    if (watch && (watch.facts?.apiKey.version ?? 0) < change.version) this.lookSoon(watch)
  }

  private lookSoon(watch: Watch): void {
    if (watch.isLooking) watch.isChanged = true
    else {
      this.due.delete(watch)
      this.changed.add(watch)
      this.lookAtNext()
    }
  }

  private lookAtNext(): void {
    for (;;) {
      const isChange = this.changed.size > 0
      const [next] = isChange ? this.changed : this.due
      if (!next || this.lookCount >= (isChange ? 2 * MAX_LOOKS : MAX_LOOKS)) return
      this.changed.delete(next)
      this.due.delete(next)
      this.lookCount += 1
      next.isLooking = true
      this.parts.inBackground(this.lookAt(next).then(() => this.looked(next)))
    }
  }

  private looked(watch: Watch): void {
    this.lookCount -= 1
    watch.isLooking = false
    if (this.watches.get(watch.id) === watch) {
      if (watch.isChanged) this.changed.add(watch)
      else this.wakeBy(Math.min(watch.readAt, watch.endsAt))
    }
    watch.isChanged = false
    if (this.changed.size > 0) this.lookAtNext()
    // A store in memory answers at once, and requests want their turn too.
    else if (this.due.size > 0) setImmediate(() => this.lookAtNext())
  }

  /** Never rejects. */
  private async lookAt(watch: Watch): Promise<void> {
    try {
      const facts = await this.read(watch)
      await this.decide(watch, facts)
    } catch {
      // The fault is reported where it happened. The connections stay, but for those of a key that was to end by now.
      const now = this.parts.clock.now()
      const expiresAt = watch.facts?.expiresAtMs ?? Infinity
      if (expiresAt <= now) this.endAll(watch, 'expired')
      watch.endsAt = expiresAt
      watch.readAt = now + this.intervalMs
    }
  }

  /** The held record, if it is new to this watch or need not be read again yet; otherwise the store's. */
  private async read(watch: Watch): Promise<CachedKey | null> {
    const { cache, clock, formats } = this.parts
    if (!mayBeId(watch.id, formats)) return null
    const lookup = watch.facts?.lookup ?? (await cache.lookupOf(watch.id))
    if (lookup === null) return null
    const now = clock.now()
    const held = cache.peek(lookup, now)
    if (held && (held !== watch.facts || !this.isDue(watch.readAt, now))) {
      if (held !== watch.facts) watch.readAt = held.readAt + this.nextInterval()
      return held
    }
    const { cached } = await cache.load(lookup)
    // However slow the store is, it is left alone for a while.
    const soonest = clock.now() + this.intervalMs / 4
    watch.readAt = Math.max(soonest, (cached?.readAt ?? now) + this.nextInterval())
    return cached
  }

  /** The looks at the keys of one moment are spread. */
  private nextInterval(): number {
    this.spreadCount += 1
    return this.intervalMs * (1 - SPREAD * ((this.spreadCount * GOLDEN_RATIO) % 1))
  }

  private async decide(watch: Watch, facts: CachedKey | null): Promise<void> {
    watch.facts = facts
    if (!facts) {
      this.endAll(watch, 'unknown')
      return
    }
    const { ownerState, clock } = this.parts
    const idleAtMs = idleAtOf(facts, this.parts)
    watch.endsAt = Math.min(facts.expiresAtMs ?? Infinity, idleAtMs)
    let granted: ApiKey | null | undefined = ownerState ? undefined : facts.apiKey
    for (const listening of [...watch.listenings]) {
      listening.lineageId ??= facts.apiKey.lineageId
      if (listening.lineageId !== facts.apiKey.lineageId) {
        this.end(watch, listening, 'unknown')
        continue
      }
      const { options } = listening
      // Without an address, none was asked to be watched.
      const asked = options.ip === undefined ? { ...facts, isAllowedIp: null } : facts
      let decision = decideKey({ facts: asked, idleAtMs, granted }, options, clock.now())
      if (decision.outcome === 'owner_unknown' && ownerState) {
        granted = await ownerState(facts.apiKey)
        decision = decideKey({ facts: asked, idleAtMs, granted }, options, clock.now())
      }
      if (decision.outcome === 'refused') this.end(watch, listening, reasonOf(decision.refusal))
    }
  }

  private endAll(watch: Watch, reason: KeyEndReason): void {
    for (const listening of [...watch.listenings]) this.end(watch, listening, reason)
  }

  private end(watch: Watch, listening: Listening, reason: KeyEndReason): void {
    // It may have been stopped by the listener before it.
    if (!watch.listenings.has(listening)) return
    this.stop(watch, listening)
    try {
      const returned = listening.listener(reason)
      if (isPromiseLike(returned)) returned.then(undefined, (error) => this.reportFault(error))
    } catch (error) {
      this.reportFault(error)
    }
  }

  private reportFault(error: unknown): void {
    const { clock, emit } = this.parts
    emit({ type: 'fault', at: new Date(clock.now()), operation: 'end_listener', error })
  }

  private isDue(readAt: number, now: number): boolean {
    // A clock that was set back makes nothing later.
    return readAt <= now + this.intervalMs * TOGETHER || readAt > now + this.intervalMs
  }

  private wake(): void {
    const now = this.parts.clock.now()
    let next = Infinity
    for (const watch of this.watches.values()) {
      if (watch.isLooking || this.changed.has(watch)) continue
      if (watch.endsAt <= now || this.isDue(watch.readAt, now)) this.due.add(watch)
      else next = Math.min(next, watch.readAt, watch.endsAt)
    }
    this.setTimer(next)
    this.lookAtNext()
  }

  private wakeBy(at: number): void {
    if (at < this.wakeAt) this.setTimer(at)
  }

  /** It is never further away than an interval, which a timer of Node can hold. */
  private setTimer(at: number): void {
    const { clock } = this.parts
    this.cancelTimer()
    this.wakeAt = at
    if (at === Infinity) return
    const delayMs = Math.min(Math.max(0, at - clock.now()), this.intervalMs)
    this.cancelTimer = clock.setTimer(() => this.wake(), delayMs, { background: true })
  }
}

function keyOf(key: WatchedKey): { readonly id: string; readonly lineageId?: string } {
  if (typeof key === 'string') return { id: key }
  if (!isPlainObject(key)) fail('key', 'the id of a key, or a key that "verify" has shown', key)
  return { id: checkText('key.id', key.id, 255), lineageId: checkText('key.lineageId', key.lineageId, 255) }
}

/** A copy, which nobody changes meanwhile. */
function checkOptions(options: OnEndOptions): OnEndOptions {
  checkObject('options', options, ['permissions', 'ip'])
  const { permissions, ip } = options
  return {
    permissions: permissions === undefined ? undefined : resolveRequirement('permissions', permissions),
    ip: ip === undefined ? undefined : checkText('ip', ip, 255),
  }
}

function reasonOf(refusal: RefusedKey): KeyEndReason {
  return (refusal.code === 'invalid_key' ? refusal.reason : refusal.code) as KeyEndReason
}
