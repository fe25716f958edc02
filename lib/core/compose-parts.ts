import { createAgreements } from './agreements.ts'
import type { ApiKeysOptions, resolveOptions } from './api-keys-options.ts'
import { createDigester } from './digests/digest.ts'
import { createPepperChecks } from './digests/pepper-check.ts'
import { createEmitter } from './emitter.ts'
import type { ApiKeyEvent } from './events.ts'
import { ExpiryReminders } from './expiry/expiry-reminders.ts'
import { createDependencyRunner, type DependencyRunner } from './faults.ts'
import type { KeyStore } from './keys/key-store.ts'
import { HeldPlaces } from './limits/held-places.ts'
import { QuotaLeases } from './limits/quota-leases.ts'
import { Resending } from './limits/resend-settlements.ts'
import type { KeyManagement } from './manage/key-management.ts'
import { createKeyManagement } from './manage/manage-keys.ts'
import { createPublishChange } from './manage/publish-change.ts'
import { createSharingCheck } from './sharing-check.ts'
import { createStoreAccess } from './store-access.ts'
import { createNoteAdmitted } from './usage/admitted-call.ts'
import { UsageCounter } from './usage/usage-counter.ts'
import { type Explain, explainKey } from './verify/explain-key.ts'
import { createFailedAttempts, NO_FAILED_ATTEMPTS } from './verify/failed-attempts.ts'
import { createOwnerState } from './verify/owner-state.ts'
import { RecordCache } from './verify/record-cache.ts'
import { UsageLog } from './verify/usage-log.ts'
import { createVerifier, type Verifier } from './verify/verify-key.ts'
import { WorkUnderWay } from './work-under-way.ts'

type Settings = ReturnType<typeof resolveOptions>

/** How many deadlines a record stays fresh: it may wait for the store, the digest and each hook about its owner. */
const FRESH_FOR = 4

/** What verification and management share. */
export type Parts = ReturnType<typeof composeParts>

/** @throws TypeError when an option of the digests is wrong. */
export function composeParts(options: ApiKeysOptions, settings: Settings) {
  const { clock, limiter, timeoutMs } = settings
  const work = new WorkUnderWay()
  const inBackground = (unattended: Promise<unknown>) => work.addUnattended(unattended)
  const emit = createEmitter(settings.onEvent)
  const guard = createDependencyRunner(clock, timeoutMs, emit)
  const store = createStoreAccess(options.store, guard)
  const agreements = createAgreements(store)
  const digester = createDigester(options, createPepperChecks(agreements, clock, guard, inBackground))
  const shared = { rateLimiter: limiter.sharedAs, invalidation: settings.invalidation?.sharedAs }
  const { maxAgeMs } = settings.cache
  const failedAttempts = settings.failedAttempts
    ? createFailedAttempts(settings.failedAttempts, limiter, clock, guard, emit, inBackground)
    : NO_FAILED_ATTEMPTS
  return {
    clock,
    limiter,
    timeoutMs,
    formats: settings.formats,
    work,
    inBackground,
    emit,
    guard,
    store,
    digester,
    sharing: createSharingCheck(agreements, shared, clock, emit),
    reminders:
      settings.reminders &&
      new ExpiryReminders(
        { store, clock, guard, emit, addWork: (looking) => work.add(looking) },
        settings.reminders,
      ),
    cache: new RecordCache(store, digester, settings.cache, clock, guard),
    ownerState: createOwnerState(settings.ownerHooks, settings.owners, clock, guard),
    failedAttempts,
    usage: store.recordUsage ? new UsageLog(store, clock, settings.usage, guard, emit) : null,
    usageCounter: createUsageCounter(store, settings, guard, emit),
    noteAdmitted: createNoteAdmitted(settings.onAdmitted, clock, emit),
    quotaLeases: new QuotaLeases(store, settings.quotaLeases, clock, guard),
    settlements: new Resending(limiter, clock, guard),
    heldPlaces: new HeldPlaces(limiter, clock, guard),
    limitNames: settings.limits.names,
    serviceLimits: settings.limits,
    maxAgeMs,
    // A use elsewhere is written within the one and read within the other.
    idleSlackMs: settings.usage.flushMs + maxAgeMs,
    freshForMs: FRESH_FOR * timeoutMs,
    // A version must outlive every record that may still be held, or on its way to the limiter, under an older one.
    retainMs: Math.max(2 * maxAgeMs, 1_000) + (FRESH_FOR + 1) * timeoutMs,
  }
}

/** Null where nothing is to be counted, or the store cannot. */
function createUsageCounter(
  { addUsage, readUsage, removeUsage, agree }: KeyStore,
  { usage, clock }: Settings,
  guard: DependencyRunner,
  emit: (event: ApiKeyEvent) => void,
): UsageCounter | null {
  if (usage.keepDays === 0 || !addUsage || !readUsage || !removeUsage) return null
  return new UsageCounter({ addUsage, readUsage, removeUsage, agree }, clock, usage, guard, emit)
}

export function composeVerifier(settings: Settings, parts: Parts): Verifier {
  return createVerifier({
    ...parts,
    upgradeDigests: settings.upgradeDigests,
    isBounded: settings.isBounded,
  })
}

export function composeExplain(settings: Settings, parts: Parts): Explain {
  const explainParts = { ...parts, isBounded: settings.isBounded }
  return (subject, asked) => explainKey(explainParts, subject, asked)
}

export function composeManagement(
  settings: Settings,
  parts: Parts,
): Omit<KeyManagement, 'acceptConfiguration'> {
  const { cache, limiter, usage, usageCounter, retainMs, clock, guard, emit } = parts
  const publishChange = createPublishChange(
    cache,
    limiter,
    settings.invalidation,
    { retainMs, maxAgeMs: settings.cache.maxAgeMs },
    clock,
    guard,
    emit,
  )
  return createKeyManagement({
    ...parts,
    publish(changed) {
      checkSharing(parts)
      return publishChange(changed)
    },
    prefix: settings.prefix,
    flushUsage: async () => usage?.flush() ?? true,
    isInUse: (keyId) => usage?.lastUse(keyId) !== undefined,
    keepDays: settings.usage.keepDays,
    flushCounts: async () => usageCounter?.flush() ?? true,
  })
}

/** Now and then checks, in the background, that the processes share what they have to. */
export function checkSharing({ sharing, inBackground }: Parts): void {
  if (sharing.isDue()) inBackground(sharing.run())
}
