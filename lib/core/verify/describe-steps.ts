import { deepFreeze } from '../../internal/deep-freeze.ts'
import { copyData } from '../../internal/plain-data.ts'
import { schemeOf } from '../digests/digest.ts'
import { readAddress } from '../keys/client-address.ts'
import { PREFIX } from '../keys/key-format.ts'
import type { ExplainedStep, ExplainedStepName, Explanation } from './explanation.ts'
import { type ForeseenLimit, type Foresight, longestWait } from './foresee-spending.ts'
import { isAcceptedPrefix, type VerifyOptions } from './key-verifier.ts'
import type { Presented } from './read-presented.ts'
import type { CachedKey } from './record-cache.ts'
import type { InvalidReason } from './verify-result.ts'

/** What a refusal of a step comes to, if it is the first. */
export type Verdict = Pick<Explanation, 'outcome' | 'reason' | 'retryAfterMs'>

export interface Finding extends ExplainedStep {
  /** Of steps that refuse. */
  readonly verdict?: Verdict
}

type Read = ExplainedStep['read']

export function passed(step: ExplainedStepName, message: string, read: Read = {}): Finding {
  return { step, outcome: 'passed', message, read: deepFreeze(copyData(read)) }
}

export function skipped(step: ExplainedStepName, message: string, read: Read = {}): Finding {
  return { step, outcome: 'skipped', message, read: deepFreeze(copyData(read)) }
}

export function refused(step: ExplainedStepName, verdict: Verdict, message: string, read: Read): Finding {
  return { step, outcome: 'refused', message, read: deepFreeze(copyData(read)), verdict }
}

export function invalid(reason: InvalidReason): Verdict {
  return { outcome: 'invalid_key', reason, retryAfterMs: null }
}

const FLAWS = {
  shape: 'The text has neither the shape of a key nor that of a configured format.',
  white_space: 'There is white space before or after the key.',
  checksum: 'The text has the shape of a key, but its checksum is wrong: characters were lost or mistyped.',
} as const

/** Says nothing of the text itself, which may be some other secret. */
export function describeFormat(presented: Presented): Finding {
  switch (presented.kind) {
    case 'malformed':
      return refused('format', invalid('malformed'), FLAWS[presented.flaw], { flaw: presented.flaw })
    case 'id':
      return skipped('format', 'There is no text to check: only an id was given.')
    case 'native':
      return passed('format', 'The text has the shape of a key, and its checksum is right.', {
        kind: 'native',
      })
    case 'imported':
      return passed('format', 'The text has the shape of an imported key.', { kind: 'imported' })
  }
}

export function describePrefix(prefix: string, accepted: VerifyOptions['prefix']): Finding {
  // What cannot be a prefix was given by mistake, and is not shown.
  const shown = accepted === undefined ? null : [accepted].flat().filter((one) => PREFIX.test(one))
  const read = { prefix, accepted: shown }
  if (accepted === undefined) return passed('prefix', 'The call accepts every prefix.', read)
  if (isAcceptedPrefix(prefix, accepted))
    return passed('prefix', 'The call accepts the prefix of the key.', read)
  const message = 'The call does not accept the prefix of the key.'
  return refused('prefix', invalid('prefix_not_accepted'), message, read)
}

export function describeBlock(ip: string | undefined, blockedForMs: number, isProven: boolean): Finding {
  const read = { ip: readAddress(ip)?.text ?? null, blockedForMs }
  if (blockedForMs === 0) {
    const message = ip === undefined ? 'The call has no address.' : 'The address is not blocked.'
    return passed('failed_attempts', message, read)
  }
  if (isProven) {
    const message = 'The address is blocked, but may use this key: this process has verified it before.'
    return passed('failed_attempts', message, read)
  }
  const verdict = { outcome: 'too_many_failures', reason: null, retryAfterMs: blockedForMs } as const
  const message = `The address has sent too many invalid keys. It is blocked for another ${inSeconds(blockedForMs)}.`
  return refused('failed_attempts', verdict, message, read)
}

export function describeRecord(cached: CachedKey | null): Finding {
  if (!cached) return refused('record', invalid('unknown'), 'The store has no such key.', {})
  const { id, version, createdAt, updatedAt } = cached.apiKey
  const read = { keyId: id, version, createdAt: toText(createdAt), updatedAt: toText(updatedAt) }
  return passed('record', 'The store has the key.', read)
}

const SECRETS = {
  right: 'The secret is right.',
  wrong: 'There is a key with this id, but it has another secret.',
  not_given: 'There is no secret to compare: only an id was given.',
  not_compared: 'Not compared, since the key is refused before and the comparison is costly.',
} as const

/** Names the scheme of the digest, and nothing else of it. */
export function describeSecret(digestText: string, found: keyof typeof SECRETS): Finding {
  const read = schemeOf(digestText)
  const message = SECRETS[found]
  if (found === 'wrong') return refused('secret', invalid('wrong_secret'), message, { ...read })
  return (found === 'right' ? passed : skipped)('secret', message, { ...read })
}

export function describeQuota({ quota }: Foresight): Finding {
  if (!quota) return passed('quota', 'The key has no quota.')
  const { needed, state, suffices, retryAfterMs } = quota
  const { remaining, resetMs } = state
  const read = { needed, remaining, refillInMs: resetMs }
  const left = `${units(remaining)} of the quota ${remaining === 1 ? 'is' : 'are'} left, and the call needs ${needed}.`
  if (suffices) return passed('quota', left, read)
  const message = `${left} ${whenItPasses(retryAfterMs)}`
  return refused('quota', { outcome: 'quota_exceeded', reason: null, retryAfterMs }, message, read)
}

export function describeLimits({ limits }: Foresight): Finding {
  const exceeded = limits.filter(({ fits }) => !fits)
  const read = {
    needed: limits.map(({ state, needed }) => ({ name: state.name, needed, remaining: state.remaining })),
    exceeded: exceeded.map(({ state }) => state.name),
  }
  if (limits.length === 0) return passed('rate_limits', 'No limit counts the call.', read)
  const message = limits.map(describeLimit).join(' ')
  if (exceeded.length === 0) return passed('rate_limits', message, read)
  const retryAfterMs = longestWait(limits)
  const verdict = { outcome: 'rate_limited', reason: null, retryAfterMs } as const
  return refused('rate_limits', verdict, `${message} ${whenItPasses(retryAfterMs)}`, read)
}

function describeLimit({ state, needed }: ForeseenLimit): string {
  const { type, name, remaining } = state
  const left = type === 'concurrent' ? `${remaining} free` : `${units(remaining)} left`
  return `Limit "${name}" has ${left}, and the call needs ${needed}.`
}

function whenItPasses(retryAfterMs: number | null): string {
  if (retryAfterMs === null) return 'The same call can never pass.'
  return `The same call may pass in ${inSeconds(retryAfterMs)}.`
}

function units(count: number): string {
  return `${count} ${count === 1 ? 'unit' : 'units'}`
}

function inSeconds(ms: number): string {
  const seconds = Math.ceil(ms / 1_000)
  return `${seconds} ${seconds === 1 ? 'second' : 'seconds'}`
}

/** A time as JSON has it. */
export function toText(time: Date | number): string {
  return new Date(time).toISOString()
}
