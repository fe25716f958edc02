import { hash } from 'node:crypto'
import type { VerificationRefusal } from '../client/verification.ts'
import type { Clock } from '../core/clock.ts'
import type { DependencyRunner } from '../core/faults.ts'
import type { ImportedFormats } from '../core/keys/imported-format.ts'
import { hasRightChecksum, parseKey } from '../core/keys/key-format.ts'
import type { ApiKey } from '../core/keys/record.ts'
import { isOfRequest, type RequirementOfRequest } from '../core/keys/requirement-of-request.ts'
import type { LimitState } from '../core/limits/rate-limit.ts'
import { decideKey } from '../core/verify/decide-key.ts'
import type { FailedAttempts } from '../core/verify/failed-attempts.ts'
import { checkVerifyOptions, isAcceptedPrefix, type VerifyOptions } from '../core/verify/key-verifier.ts'
import type { RefuseKey } from '../core/verify/refuse-key.ts'
import type { InvalidReason, RefusedKey, VerifyResult } from '../core/verify/verify-result.ts'
import type { Awaitable } from '../internal/awaitable.ts'
import type { Answer, AnswerCache } from './answer-cache.ts'
import { NO_LIMITS, type ServiceQuestions, type Told } from './service-questions.ts'

export interface RemoteVerifierParts {
  readonly charge: boolean
  readonly formats: ImportedFormats
  readonly clock: Clock
  readonly guard: DependencyRunner
  readonly answers: AnswerCache
  readonly service: ServiceQuestions
  readonly refuse: RefuseKey
  readonly failedAttempts: FailedAttempts
}

/** Verifies keys by the service's answers, held ones as far as possible. */
export class RemoteVerifier {
  constructor(private readonly parts: RemoteVerifierParts) {}

  verify(key: string, options: VerifyOptions): Awaitable<VerifyResult> {
    const { charge, answers, service, failedAttempts } = this.parts
    const asked = checkVerifyOptions(options)
    if (typeof key !== 'string') return this.invalid('malformed', null, asked)
    const parsed = parseKey(key)
    if (!parsed && this.lookupsOf(key).length === 0) return this.invalid('malformed', null, asked)
    const keyId = parsed?.keyId ?? null
    const isCharged = charge && asked.cost !== 0
    if (isCharged && isOfRequest(asked.permissions)) return this.chargeLater(key, asked, asked.permissions)
    const digest = hash('sha256', key, 'base64url')
    const known = isCharged ? undefined : answers.peek(digest)
    if (known?.facts) return this.decide(known, NO_LIMITS, keyId, asked)
    if (parsed && !hasRightChecksum(key)) return this.invalid('malformed', null, asked)
    if (parsed && !isAcceptedPrefix(parsed.prefix, asked.prefix)) {
      return this.invalid('prefix_not_accepted', keyId, asked)
    }
    const retryAfterMs = failedAttempts.blockedForMs(asked.ip)
    // Valid keys from a shared address keep working.
    if (retryAfterMs > 0 && !answers.wasGood(digest)) {
      return this.parts.refuse({ ok: false, code: 'too_many_failures', retryAfterMs }, asked, keyId)
    }
    if (known) return this.decide(known, NO_LIMITS, keyId, asked)
    const question = { digest, key, keyId }
    const told = isCharged ? service.askCharged(question, asked) : service.askOnce(question, asked.ip)
    return told.then((given) => this.conclude(given, keyId, asked))
  }

  /** Proves the key first: only then may the application be asked what the service has to check when it charges. */
  private async chargeLater(
    key: string,
    asked: VerifyOptions,
    permissions: RequirementOfRequest,
  ): Promise<VerifyResult> {
    const looked = await this.verify(key, { ...asked, cost: 0 })
    if (!looked.ok) return looked
    const told = permissions.tell()
    if ('error' in told) throw this.parts.guard.toError('permissions', told.error)
    return this.verify(key, { ...asked, permissions: told.requirement })
  }

  private conclude(told: Told, keyId: string | null, asked: VerifyOptions): VerifyResult {
    const { answer, limits, refused, retryAfterMs } = told
    if (retryAfterMs !== undefined) {
      this.countFailure(asked)
      return this.parts.refuse({ ok: false, code: 'too_many_failures', retryAfterMs }, asked, keyId)
    }
    const decided = this.decide(answer, limits, keyId, asked)
    if (!decided.ok || !refused) return decided
    return this.parts.refuse(toRefusedKey(refused, decided.apiKey, limits), asked, keyId)
  }

  /** Decides from the service's answer, as the service would. */
  private decide(
    { facts }: Answer,
    limits: readonly LimitState[],
    keyId: string | null,
    asked: VerifyOptions,
  ): VerifyResult {
    if (!facts) return this.invalid('inactive', keyId, asked)
    const { apiKey } = facts
    const decision = decideKey({ facts, idleAtMs: Infinity, granted: apiKey }, asked, this.parts.clock.now())
    if (decision.outcome === 'requirement_unknown') {
      throw this.parts.guard.toError('permissions', decision.error)
    }
    if (decision.outcome !== 'refused') return { ok: true, apiKey, limits }
    const { refusal } = decision
    if (refusal.code !== 'invalid_key') return this.parts.refuse(refusal, asked, keyId)
    return this.invalid(refusal.reason, keyId, asked, apiKey)
  }

  private lookupsOf(key: string): readonly string[] {
    try {
      return this.parts.formats.lookupsOf(key)
    } catch (error) {
      throw this.parts.guard.toError('format', error)
    }
  }

  private countFailure({ ip }: VerifyOptions): void {
    const { failedAttempts } = this.parts
    if (failedAttempts.blockedForMs(ip) === 0) failedAttempts.count(ip)
  }

  private invalid(
    reason: InvalidReason,
    keyId: string | null,
    asked: VerifyOptions,
    apiKey: ApiKey | null = null,
  ): RefusedKey {
    this.countFailure(asked)
    return this.parts.refuse({ ok: false, code: 'invalid_key', reason }, asked, keyId, apiKey)
  }
}

function toRefusedKey(
  refused: VerificationRefusal,
  apiKey: ApiKey,
  limits: readonly LimitState[],
): RefusedKey {
  switch (refused.code) {
    case 'address_not_allowed':
      return { ok: false, code: refused.code, apiKey }
    case 'insufficient_permissions':
      return { ok: false, code: refused.code, apiKey, missing: refused.missing }
    default:
      return { ok: false, code: refused.code, apiKey, limits, retryAfterMs: refused.retryAfterMs }
  }
}
