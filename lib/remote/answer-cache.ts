import { LRUCache } from 'lru-cache'
import type { Clock } from '../core/clock.ts'
import { compileAllowedIps } from '../core/keys/allowed-ips.ts'
import type { ApiKey } from '../core/keys/record.ts'
import type { KeyFacts } from '../core/verify/decide-key.ts'

/** The service's answer about a key, ready to decide from. */
export interface Answer {
  /** Null if the key is not valid. */
  readonly facts: KeyFacts | null
  /** When the request to the service began. The age of an answer counts from here, so that a slow answer does not count as fresh. */
  readonly askedAt: number
  /** How long this answer may be used, in addition to the limit for all answers. */
  readonly maxAgeMs: number
}

/** The service's answers by digest. The cache never holds the key itself. */
export interface AnswerCache {
  /** The cached answer, unless it is too old. */
  peek(digest: string): Answer | undefined
  /** Whether the last answer said that the key is valid, whatever its age. */
  wasGood(digest: string): boolean
  /** Caches an answer, unless the cache was cleared since `generation`. */
  hold(digest: string, answer: Answer, generation: number): void
  /** The time for the age of answers, in milliseconds. */
  now(): number
  /** Whether an answer requested at this time may still be used. */
  isYoung(askedAt: number): boolean
  /** Rises whenever the cache is cleared. */
  generation(): number
  clear(): void
}

export function createAnswerCache(
  maxAgeMs: number,
  maxEntries: number,
  clock: Pick<Clock, 'now'>,
): AnswerCache {
  // Two caches, so that a flood of invalid keys does not evict valid ones.
  const good = new LRUCache<string, Answer>({ max: maxEntries })
  const bad = new LRUCache<string, Answer>({ max: maxEntries })
  let generation = 0

  function isYoung(askedAt: number, ageLimitMs = maxAgeMs): boolean {
    const age = clock.now() - askedAt
    // If the clock was set back, an answer does not become fresh again.
    return age >= 0 && age < maxAgeMs && age < ageLimitMs
  }

  return {
    now: () => clock.now(),
    isYoung: (askedAt) => isYoung(askedAt),
    generation: () => generation,
    peek(digest) {
      const answer = good.get(digest) ?? bad.get(digest)
      return answer && isYoung(answer.askedAt, answer.maxAgeMs) ? answer : undefined
    },
    wasGood: (digest) => good.peek(digest) !== undefined,
    hold(digest, answer, asked) {
      if (asked !== generation || !isYoung(answer.askedAt)) return
      const [here, there] = answer.facts ? [good, bad] : [bad, good]
      const known = here.peek(digest) ?? there.peek(digest)
      // The answer requested later is newer, unless it dates from before the clock was set back.
      if (known && known.askedAt > answer.askedAt && isYoung(known.askedAt)) return
      there.delete(digest)
      here.set(digest, answer)
    },
    clear() {
      generation += 1
      good.clear()
      bad.clear()
    },
  }
}

/** @throws TypeError if the service lists an invalid address. */
export function toAnswer(apiKey: ApiKey | null, askedAt: number): Answer {
  return {
    facts: apiKey && {
      apiKey,
      isRevoked: apiKey.revokedAt !== null,
      expiresAtMs: apiKey.expiresAt?.getTime() ?? null,
      isAllowedIp: apiKey.allowedIps ? compileAllowedIps(apiKey.allowedIps) : null,
    },
    askedAt,
    // A key in use here must not become idle in the service: only verifying it there counts as use.
    maxAgeMs: (apiKey?.idleExpiryMs ?? Infinity) / 2,
  }
}
