import { deepFreeze } from '../../internal/deep-freeze.ts'
import { OptionError } from '../../internal/option-error.ts'
import { checkObject, fail } from '../../internal/options.ts'
import { type ImportedFormats, isImported } from '../keys/imported-format.ts'
import { mayBeId } from '../keys/key-id.ts'
import type { KeyStore } from '../keys/key-store.ts'
import { type ApiKey, keyStatus } from '../keys/record.ts'
import {
  describeBlock,
  describeFormat,
  describeLimits,
  describePrefix,
  describeQuota,
  describeRecord,
  describeSecret,
  type Finding,
  skipped,
} from './describe-steps.ts'
import { describeVerdicts } from './describe-verdicts.ts'
import type { ExplainedKey, ExplainedStepName, Explanation } from './explanation.ts'
import type { FailedAttempts } from './failed-attempts.ts'
import { foreseeSpending } from './foresee-spending.ts'
import type { KnownUses } from './idle-at.ts'
import { judgeWhole, type Verdicts } from './judge-whole.ts'
import type { VerifyOptions } from './key-verifier.ts'
import { MAX_READS, staleStoreError } from './look-at-limits.ts'
import type { OwnerState } from './owner-state.ts'
import { type Presented, readPresented } from './read-presented.ts'
import type { CachedKey, Lookup, RecordCache } from './record-cache.ts'
import type { SpenderParts } from './spend.ts'

export interface ExplainParts extends SpenderParts, KnownUses {
  readonly store: KeyStore
  readonly cache: RecordCache
  readonly formats: ImportedFormats
  readonly ownerState: OwnerState | null
  readonly failedAttempts: FailedAttempts
}

/** {@link explainKey} with its parts. */
export type Explain = (subject: ExplainedKey, asked: VerifyOptions) => Promise<Explanation>

/** Requires one of a text and an id. @throws TypeError naming the member, and no value */
export function checkExplained(subject: ExplainedKey): ExplainedKey {
  const { key, id } = checkObject('subject', subject, ['key', 'id'])
  if ((key === undefined) === (id === undefined)) {
    throw new OptionError('subject', 'have either a "key" or an "id"')
  }
  if (key === undefined) return typeof id === 'string' ? { id } : fail('id', 'a string', id)
  return typeof key === 'string' ? { key } : fail('key', 'a string', key)
}

/**
 * Takes the steps of a verification without any of its effects. Where one refuses, it goes on as far as the record alone tells.
 *
 * @throws TypeError when the cost names a limit that nobody has.
 * @throws LatchkeyError `unavailable`; `unsupported` when the limiter does not know limits of kind `concurrent`.
 */
export async function explainKey(
  parts: ExplainParts,
  subject: ExplainedKey,
  asked: VerifyOptions,
): Promise<Explanation> {
  for (let reads = 0; reads < MAX_READS; reads += 1) {
    const explanation = await explainOnce(parts, subject, asked)
    if (explanation) return explanation
  }
  throw staleStoreError(parts.guard)
}

/** Null if the limiter knows a later version of the record. */
async function explainOnce(
  parts: ExplainParts,
  subject: ExplainedKey,
  asked: VerifyOptions,
): Promise<Explanation | null> {
  const presented = readPresented(subject, parts)
  const findings: Finding[] = [describeFormat(presented)]
  if (presented.kind === 'malformed') return conclude(findings, 'The text is not that of a key.')
  const lookup = await lookupOf(parts, presented)
  const cached = await findRecord(parts, presented, lookup)
  const claimed = claimedPrefix(presented, cached)
  if (claimed !== null) findings.push(describePrefix(claimed, asked.prefix))
  findings.push(findBlock(parts, presented, lookup, asked.ip), describeRecord(cached))
  if (!cached) return conclude(findings, 'There is no such key.')
  findings.push(await proveSecret(parts, presented, cached, isRefused(findings)))
  const verdicts = await judgeWhole(parts, cached, asked, isRefused(findings))
  // The digest of a native key covers its prefix, so this step was taken above.
  findings.push(
    ...describeVerdicts(verdicts, asked).filter(({ step }) => claimed === null || step !== 'prefix'),
  )
  const apiKey = shownKey(parts, cached, verdicts)
  if (isRefused(findings)) return conclude(findings, 'Not asked, since the key is refused before.', apiKey)
  const foresight = await foreseeSpending(parts, cached, asked.cost ?? 1)
  if (!foresight) return null
  return conclude(
    [...findings, describeQuota(foresight), describeLimits(foresight)],
    '',
    apiKey,
    foresight.states,
  )
}

/** Null if no key has this id. */
async function lookupOf(
  { store, formats }: ExplainParts,
  presented: Exclude<Presented, { kind: 'malformed' }>,
): Promise<Lookup | null> {
  if (presented.kind === 'native') return presented.keyId
  if (presented.kind === 'imported') return presented.lookups
  if (!mayBeId(presented.id, formats)) return null
  return (await store.find({ id: presented.id }))?.lookup ?? null
}

/** The prefix in the text of a native key; null for an imported one. */
function claimedPrefix(presented: Presented, cached: CachedKey | null): string | null {
  if (presented.kind === 'native') return presented.prefix
  return presented.kind === 'id' && cached && !isImported(cached) ? cached.apiKey.prefix : null
}

/** An address that is blocked may still use the keys that this process has proven. */
function findBlock(
  { cache, failedAttempts }: ExplainParts,
  presented: Presented,
  lookup: Lookup | null,
  ip: string | undefined,
): Finding {
  const blockedForMs = failedAttempts.blockedForMs(ip)
  if (blockedForMs === 0 || lookup === null) return describeBlock(ip, blockedForMs, false)
  const isProven =
    'key' in presented
      ? cache.proves(lookup, presented.key)
      : cache.peekStale(lookup)?.digest.isCheap() === true
  return describeBlock(ip, blockedForMs, isProven)
}

async function findRecord(
  { cache }: ExplainParts,
  presented: Presented,
  lookup: Lookup | null,
): Promise<CachedKey | null> {
  const cached = lookup === null ? null : await cache.look(lookup)
  // It was purged meanwhile, and another key may have its lookup.
  const isOther = presented.kind === 'id' && cached?.apiKey.id !== presented.id
  return isOther ? null : cached
}

async function proveSecret(
  { guard }: ExplainParts,
  presented: Presented,
  { digest, digestText }: CachedKey,
  isRefusedBefore: boolean,
): Promise<Finding> {
  if (!('key' in presented)) return describeSecret(digestText, 'not_given')
  // As in a verification, which compares no digest that is costly for a call that it refuses anyway.
  if (isRefusedBefore && !digest.isCheap()) return describeSecret(digestText, 'not_compared')
  const isRight = await guard.run('digest', () => digest.matches(presented.key))
  if (!isRight) await digest.beforeBlame()
  return describeSecret(digestText, isRight ? 'right' : 'wrong')
}

/** As `keys.get` shows it, but for what its owner lacks. */
function shownKey({ quotaLeases }: ExplainParts, cached: CachedKey, verdicts: Verdicts): ApiKey {
  const { apiKey, quota, expiresAtMs } = cached
  const { granted, idleAtMs, now } = verdicts
  const endsAtMs = Math.min(expiresAtMs ?? Infinity, idleAtMs)
  const ends = { idleExpiryMs: null, expiresAt: endsAtMs === Infinity ? null : new Date(endsAtMs) }
  const heldUnits = quota ? quotaLeases.heldOf(apiKey.lineageId, quota) : 0
  return deepFreeze({
    ...(granted ?? apiKey),
    status: keyStatus({ ...apiKey, ...ends }, new Date(now)),
    quota: apiKey.quota && { ...apiKey.quota, remaining: apiKey.quota.remaining + heldUnits },
  })
}

function isRefused(findings: readonly Finding[]): boolean {
  return findings.some(({ outcome }) => outcome === 'refused')
}

/** The steps that may be skipped, in their order. */
const STEPS: readonly ExplainedStepName[] = [
  'failed_attempts',
  'record',
  'secret',
  'prefix',
  'revocation',
  'enabled',
  'expiry',
  'idle_expiry',
  'owner',
  'address',
  'permissions',
  'quota',
  'rate_limits',
]

/** The first refusal decides. Steps without a finding were skipped, and `why` says so. */
function conclude(
  findings: readonly Finding[],
  why: string,
  apiKey: ApiKey | null = null,
  limits: Explanation['limits'] = [],
): Explanation {
  const first = findings.find(({ verdict }) => verdict)
  const taken = new Set(findings.map(({ step }) => step))
  const rest = STEPS.filter((step) => !taken.has(step)).map((step) => skipped(step, why))
  const steps = [...findings, ...rest].map(({ step, outcome, message, read }) => ({
    step,
    outcome,
    message,
    read,
  }))
  return deepFreeze({ ...(first?.verdict ?? ADMITTED), apiKey, limits: [...limits], steps })
}

const ADMITTED = { outcome: 'admitted', reason: null, retryAfterMs: null } as const
