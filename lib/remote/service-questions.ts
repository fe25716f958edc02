import type { Verification, VerificationRefusal, VerifyKeyRequest } from '../client/verification.ts'
import { measureDependency } from '../core/diagnostics/measure-dependency.ts'
import type { DependencyRunner } from '../core/faults.ts'
import { readAddress } from '../core/keys/client-address.ts'
import type { LimitState } from '../core/limits/rate-limit.ts'
import type { VerifyOptions } from '../core/verify/key-verifier.ts'
import { type Answer, type AnswerCache, toAnswer } from './answer-cache.ts'

/** The part of a client that is used here, such as one from `createApiKeysClient`. Every call must settle; that client has a deadline. */
export interface VerifyingClient {
  verify(request: VerifyKeyRequest): Promise<Verification>
}

/** The service's checked answer. */
export interface Told {
  readonly answer: Answer
  readonly limits: readonly LimitState[]
  readonly refused: VerificationRefusal | undefined
  /** Set if the service blocks this address and did not check the key. */
  readonly retryAfterMs: number | undefined
}

/** The key to ask about. */
export interface QuestionedKey {
  /** The cache key of its answer. */
  readonly digest: string
  readonly key: string
  /** The id that a native key claims; null for an imported one. */
  readonly keyId: string | null
}

/** A question in progress. */
interface Question {
  readonly askedAt: number
  /** The address that the service was told. */
  readonly address: string | undefined
  readonly work: Promise<Told>
}

const SERVICE = Object.freeze({ operation: 'remote', method: null })
export const NO_LIMITS: readonly LimitState[] = Object.freeze([])

/**
 * Asks the service, at most `maxPending` times at once, and caches the answers. Each question rejects with
 * `unavailable` if there is no valid answer.
 */
export class ServiceQuestions {
  private readonly joinable = new Map<string, Question>()
  private pending = 0

  constructor(
    private readonly client: VerifyingClient,
    private readonly answers: AnswerCache,
    private readonly maxPending: number,
    private readonly guard: DependencyRunner,
  ) {}

  /** Asks for this call alone, and charges it. */
  async askCharged({ digest, key, keyId }: QuestionedKey, options: VerifyOptions): Promise<Told> {
    const generation = this.answers.generation()
    const told = await this.ask(chargedRequest(key, options), keyId)
    // A key refused for its prefix may be valid for another route.
    return told.answer.facts || options.prefix === undefined ? this.note(told, digest, generation) : told
  }

  /**
   * Asks once for all waiting requests, and charges nothing. An answer about an address is only for requests from that
   * address.
   */
  async askOnce(asked: QuestionedKey, ip: string | undefined): Promise<Told> {
    const { digest } = asked
    const address = shownAddress(ip)
    const running = this.joinable.get(digest)
    if (running && this.answers.isYoung(running.askedAt)) {
      const told = await running.work
      if (running.address === address || told.retryAfterMs === undefined) return told
      return this.askUncharged(asked, address)
    }
    const question = { askedAt: this.answers.now(), address, work: this.askUncharged(asked, address) }
    this.joinable.set(digest, question)
    try {
      return await question.work
    } finally {
      if (this.joinable.get(digest) === question) this.joinable.delete(digest)
    }
  }

  private async askUncharged(
    { digest, key, keyId }: QuestionedKey,
    address: string | undefined,
  ): Promise<Told> {
    const generation = this.answers.generation()
    // Ask without requirements: this process decides from the answer what the key may do.
    const request = { key, ...(address !== undefined && { ip: address }) }
    const told = this.note(await this.ask(request, keyId), digest, generation)
    // A call that does not count shows no limits, whether or not its answer is cached.
    return told.refused ? told : { ...told, limits: NO_LIMITS }
  }

  private note(told: Told, digest: string, generation: number): Told {
    // The answer for a blocked address says nothing about the key.
    if (told.retryAfterMs === undefined) this.answers.hold(digest, told.answer, generation)
    return told
  }

  private async ask(request: VerifyKeyRequest, keyId: string | null): Promise<Told> {
    if (this.pending >= this.maxPending) {
      throw this.guard.toError(
        'remote',
        new Error(`${this.maxPending} verifications are already in progress`),
      )
    }
    this.pending += 1
    const askedAt = this.answers.now()
    try {
      return read(await measureDependency(SERVICE, () => this.client.verify(request)), keyId, askedAt)
    } catch (error) {
      throw this.guard.toError('remote', error)
    } finally {
      this.pending -= 1
    }
  }

  /** Keeps later requests from joining a question in progress. */
  clear(): void {
    this.joinable.clear()
  }
}

/** @throws Error if the answer is about another key. */
function read(verification: Verification, keyId: string | null, askedAt: number): Told {
  const apiKey = verification.active ? (verification.apiKey ?? null) : null
  // A native key contains its id. A cache in between may have returned the answer to another question.
  if (apiKey && keyId !== null && apiKey.id !== keyId) {
    throw new Error('the service answered about another key')
  }
  const answer = toAnswer(apiKey, askedAt)
  if (!verification.active) {
    return { answer, limits: NO_LIMITS, refused: undefined, retryAfterMs: verification.refused?.retryAfterMs }
  }
  if (!apiKey) throw new Error('the service did not say which key it is')
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

/** A proxy that is trusted too much lets clients write anything here. An invalid address counts as none. */
function shownAddress(ip: string | undefined): string | undefined {
  return readAddress(ip)?.text
}
