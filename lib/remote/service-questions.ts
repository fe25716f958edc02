import type { Verification, VerificationRefusal, VerifyKeyRequest } from '../client/verification.ts'
import type { DependencyRunner } from '../core/faults.ts'
import { readAddress } from '../core/keys/client-address.ts'
import type { LimitState } from '../core/limits/rate-limit.ts'
import type { VerifyOptions } from '../core/verify/key-verifier.ts'
import { type Answer, type AnswerCache, toAnswer } from './answer-cache.ts'

/** What is needed of a client: that of `createApiKeysClient`. Every call must come to an end, and so has a deadline there. */
export interface VerifyingClient {
  verify(request: VerifyKeyRequest): Promise<Verification>
}

/** What the service said, checked. */
export interface Told {
  readonly answer: Answer
  readonly limits: readonly LimitState[]
  readonly refused: VerificationRefusal | undefined
  /** Where it looked at no key that comes from this address. */
  readonly retryAfterMs: number | undefined
}

/** The key that is asked about. */
export interface QuestionedKey {
  /** What its answer is remembered by. */
  readonly digest: string
  readonly key: string
  /** The id that a native key claims; null for an imported one. */
  readonly keyId: string | null
}

/** Questions to the service. Every one of them rejects with `unavailable` where there is no good answer. */
export interface ServiceQuestions {
  /** Asks once for all who wait, and charges nothing. */
  askOnce(asked: QuestionedKey, ip: string | undefined): Promise<Told>
  /** Asks for this call alone, which counts. */
  askCharged(asked: QuestionedKey, options: VerifyOptions): Promise<Told>
  /** Lets nobody join a question that is under way. */
  clear(): void
}

/** A question that is under way. */
interface Question {
  readonly askedAt: number
  /** The address that was told to the service. */
  readonly address: string | undefined
  readonly work: Promise<Told>
}

export const NO_LIMITS: readonly LimitState[] = Object.freeze([])

/** Asks the service, at most `maxPending` times at once, and has what it says remembered. */
export function createServiceQuestions(
  client: VerifyingClient,
  answers: AnswerCache,
  maxPending: number,
  guard: DependencyRunner,
): ServiceQuestions {
  const joinable = new Map<string, Question>()
  let pending = 0

  async function askCharged({ digest, key, keyId }: QuestionedKey, options: VerifyOptions): Promise<Told> {
    const generation = answers.generation()
    const told = await ask(chargedRequest(key, options), keyId)
    // What is not accepted for its prefix may be good elsewhere.
    return told.answer.facts || options.prefix === undefined ? note(told, digest, generation) : told
  }

  /** What the service says of an address it says to whoever asked with that one. */
  async function askOnce(asked: QuestionedKey, ip: string | undefined): Promise<Told> {
    const { digest } = asked
    const address = shownAddress(ip)
    const running = joinable.get(digest)
    if (running && answers.isYoung(running.askedAt)) {
      const told = await running.work
      if (running.address === address || told.retryAfterMs === undefined) return told
      return askUncharged(asked, address)
    }
    const question = { askedAt: answers.now(), address, work: askUncharged(asked, address) }
    joinable.set(digest, question)
    try {
      return await question.work
    } finally {
      if (joinable.get(digest) === question) joinable.delete(digest)
    }
  }

  async function askUncharged(
    { digest, key, keyId }: QuestionedKey,
    address: string | undefined,
  ): Promise<Told> {
    const generation = answers.generation()
    // Nothing is asked of the key: what it may do is decided here, by what the answer says of it.
    const request = { key, ...(address !== undefined && { ip: address }) }
    const told = note(await ask(request, keyId), digest, generation)
    // Whether the answer is remembered or not, a call that nothing counts shows no limits.
    return told.refused ? told : { ...told, limits: NO_LIMITS }
  }

  function note(told: Told, digest: string, generation: number): Told {
    // Of a blocked address nothing is learnt about the key.
    if (told.retryAfterMs === undefined) answers.hold(digest, told.answer, generation)
    return told
  }

  async function ask(request: VerifyKeyRequest, keyId: string | null): Promise<Told> {
    if (pending >= maxPending) {
      throw guard.toError('remote', new Error(`${maxPending} verifications are under way already`))
    }
    pending += 1
    const askedAt = answers.now()
    try {
      return read(await client.verify(request), keyId, askedAt)
    } catch (error) {
      throw guard.toError('remote', error)
    } finally {
      pending -= 1
    }
  }

  return { askOnce, askCharged, clear: () => joinable.clear() }
}

/** @throws Error where it is said of another key than the one that was asked about. */
function read(verification: Verification, keyId: string | null, askedAt: number): Told {
  const apiKey = verification.active ? (verification.apiKey ?? null) : null
  // The id of a native key stands in it. A cache in between may have answered somebody else's question.
  if (apiKey && keyId !== null && apiKey.id !== keyId) {
    throw new Error('the service has answered about another key')
  }
  const answer = toAnswer(apiKey, askedAt)
  if (!verification.active) {
    return { answer, limits: NO_LIMITS, refused: undefined, retryAfterMs: verification.refused?.retryAfterMs }
  }
  if (!apiKey) throw new Error('the service has not said which key it is')
  const { limits, refused } = verification
  return { answer, limits, refused, retryAfterMs: undefined }
}

function chargedRequest(key: string, { permissions, cost, ip, prefix }: VerifyOptions): VerifyKeyRequest {
  const address = shownAddress(ip)
  return {
    key,
    charge: true,
    ...(permissions !== undefined && { permissions }),
    ...(cost !== undefined && { cost }),
    ...(address !== undefined && { ip: address }),
    ...(prefix !== undefined && { prefix }),
  }
}

/** A proxy that is trusted too far lets clients write anything here. What is no address counts as none. */
function shownAddress(ip: string | undefined): string | undefined {
  return readAddress(ip)?.text
}
