import type { Clock } from '../clock.ts'
import type { Digester } from '../digests/digest.ts'
import { coveredPart } from '../digests/digest-coverage.ts'
import type { ApiKeyEvent } from '../events.ts'
import type { KeyStore } from '../keys/key-store.ts'
import type { CachedKey, RecordCache } from './record-cache.ts'

export interface UpgradeDigestParts {
  readonly cache: RecordCache
  readonly store: KeyStore
  readonly digester: Digester
  readonly clock: Clock
  readonly upgradeDigests: boolean
  emit(event: ApiKeyEvent): void
  inBackground(work: Promise<unknown>): void
}

/** Rewrites the digest of a verified key, if it is older than the current scheme. */
export type UpgradeDigest = (key: string, cached: CachedKey) => void

/** Runs in the background. */
export function createUpgradeDigest({
  cache,
  store,
  digester,
  clock,
  upgradeDigests,
  emit,
  inBackground,
}: UpgradeDigestParts): UpgradeDigest {
  async function upgrade(key: string, { apiKey, lookup, digest, digestText }: CachedKey): Promise<void> {
    const { id, owner } = apiKey
    try {
      const next = await digester.create(key, digest.coverage)
      const replaced = await store.replaceDigest(id, digestText, next)
      if (!replaced) return
      cache.digestReplaced(lookup, digestText, next)
      emit({ type: 'digest.upgraded', at: new Date(clock.now()), keyId: id, owner })
    } catch (error) {
      // The old digest still verifies: the next copy of the record tries again.
      emit({ type: 'fault', at: new Date(clock.now()), operation: 'digest_upgrade', error })
    }
  }

  return function upgradeDigest(key, cached) {
    if (!upgradeDigests || cached.isUpgrading || !isUpgradable(key, cached)) return
    cached.isUpgrading = true
    inBackground(upgrade(key, cached))
  }
}

/** A digest that covers only part of a key proves nothing about the rest, but a new digest would require it. */
function isUpgradable(key: string, { digest }: CachedKey): boolean {
  return !digest.isCurrent && (coveredPart(key, digest.coverage)?.length ?? Infinity) < digest.readsAtMost
}
