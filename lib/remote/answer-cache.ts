import { LRUCache } from 'lru-cache'
import type { Clock } from '../core/clock.ts'
import { compileAllowedIps } from '../core/keys/allowed-ips.ts'
import type { ApiKey } from '../core/keys/record.ts'
import type { KeyFacts } from '../core/verify/decide-key.ts'

/** What the service said of a key, ready to decide by. */
export interface Answer {
  /** Null where the key is not valid. */
  readonly facts: KeyFacts | null
  /** When the service was asked. The age of an answer counts from here, so that a slow one is not a young one. */
  readonly askedAt: number
  /** How long it may be used, besides what holds for all. */
  readonly maxAgeMs: number
}

/** Answers of the service by the digest of the key: the text of a key is not kept. */
export interface AnswerCache {
  /** The answer, if it is held and young enough. */
  peek(digest: string): Answer | undefined
  /** Whether the last answer was that the key is good, whatever its age. */
  wasGood(digest: string): boolean
  /** Holds an answer, unless all were forgotten since `generation`. */
  hold(digest: string, answer: Answer, generation: number): void
  /** The time by which answers age, in milliseconds. */
  now(): number
  /** Whether an answer that was asked for at this moment may still be used. */
  isYoung(askedAt: number): boolean
  /** Rises whenever all answers are forgotten. */
  generation(): number
  clear(): void
}

export function createAnswerCache(
  maxAgeMs: number,
  maxEntries: number,
  clock: Pick<Clock, 'now'>,
): AnswerCache {
  // Two, so that no flood of bad keys drives out good ones.
  const good = new LRUCache<string, Answer>({ max: maxEntries })
  const bad = new LRUCache<string, Answer>({ max: maxEntries })
  let generation = 0

  function isYoung(askedAt: number, ageLimitMs = maxAgeMs): boolean {
    const age = clock.now() - askedAt
    // A clock that was set back makes nothing younger.
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
      // The one that was asked for later knows more, unless it is from before the clock was set back.
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

/** @throws TypeError where the service lists what is no address. */
export function toAnswer(apiKey: ApiKey | null, askedAt: number): Answer {
  return {
    facts: apiKey && {
      apiKey,
      isRevoked: apiKey.revokedAt !== null,
      expiresAtMs: apiKey.expiresAt?.getTime() ?? null,
      isAllowedIp: apiKey.allowedIps ? compileAllowedIps(apiKey.allowedIps) : null,
    },
    askedAt,
    // A key that is used here must not become idle there: to be asked about is a use.
    maxAgeMs: (apiKey?.idleExpiryMs ?? Infinity) / 2,
  }
}
