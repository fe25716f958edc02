import type { KeyRecord } from '../../core/keys/record.ts'
import { LatchkeyError } from '../../errors.ts'
import type { RedisBatches } from './batches.ts'
import type { RedisCalls } from './calls.ts'
import type { RedisLayout } from './layout.ts'
import type { RedisQuotas } from './quotas.ts'
import {
  fromFields,
  fromPointer,
  type StoredQuota,
  type StoredRecord,
  toStoredQuota,
  withQuota,
} from './record.ts'
import { READ } from './scripts.ts'

/** A record, and the quota of its lineage if the same script could read it. */
export interface Found {
  readonly stored: StoredRecord
  readonly quota: StoredQuota | null
}

export interface RedisLookups {
  byId(id: string): Promise<Found | null>
  byLookup(lookup: string): Promise<Found | null>
  /** The records that exist, by lookup. */
  byLookups(lookups: readonly string[]): Promise<ReadonlyMap<string, Found>>
  /** Finishes interrupted changes of quotas, and adds the quotas to the records. */
  toRecords(found: readonly Found[]): Promise<KeyRecord[]>
}

export interface LookupParts {
  readonly calls: RedisCalls
  readonly layout: RedisLayout
  readonly batches: RedisBatches
  readonly quotas: RedisQuotas
}

export function createRedisLookups(parts: LookupParts): RedisLookups {
  return {
    byId: (id) => look(parts, ['i', id]),
    byLookup: (lookup) => look(parts, ['l', lookup]),
    byLookups: (lookups) => lookAll(parts, lookups),
    toRecords: (found) => toRecords(parts.quotas, found),
  }
}

/** An id (`i`) or a lookup (`l`). */
type Place = readonly ['i' | 'l', string]

type Read =
  | { readonly kind: 'record'; readonly batch: string | null; readonly found: Found }
  | {
      readonly kind: 'pointer'
      readonly batch: string | null
      readonly lookup: string
      readonly stamp: string
    }

/** How often to read an entry again that others keep replacing. */
const MAX_LOOKS = 20

async function look(parts: LookupParts, place: Place): Promise<Found | null> {
  for (let i = 0; i < MAX_LOOKS; i += 1) {
    const [read] = await readAll(parts, [place])
    if (!read) return null
    const state = read.batch === null ? 'committed' : await parts.batches.resolve(read.batch)
    if (state === 'open') return null
    if (state === 'gone') {
      // The batch was aborted, or it was completed since the read: then the entry is no longer pending.
      const [again] = await readAll(parts, [place])
      if (!again || again.batch === read.batch) return null
      continue
    }
    if (read.kind === 'record') return read.found
    const target = await look(parts, ['l', read.lookup])
    return target?.stored.stamp === read.stamp ? target : null
  }
  throw new LatchkeyError('unavailable', 'Other callers keep writing the key')
}

async function lookAll(parts: LookupParts, lookups: readonly string[]): Promise<ReadonlyMap<string, Found>> {
  const found = new Map<string, Found>()
  const reads = await readAll(
    parts,
    lookups.map((lookup) => ['l', lookup]),
  )
  await Promise.all(
    reads.map(async (read, i) => {
      const lookup = lookups[i] as string
      if (read?.kind !== 'record') return
      const one = read.batch === null ? read.found : await look(parts, ['l', lookup])
      if (one) found.set(lookup, one)
    }),
  )
  return found
}

async function readAll({ calls, layout }: LookupParts, wanted: readonly Place[]): Promise<(Read | null)[]> {
  const answers = new Map<Place, Read | null>()
  const places = calls.byPlace(wanted, ([, text]) => layout.record(text))
  await Promise.all(
    places.map(async (place) => {
      const keys = place.flatMap(([, text]) => [
        layout.record(text),
        layout.pointer(text),
        layout.quota(text),
      ])
      const modes = place.map(([mode]) => mode)
      const [found] = (await calls.run(READ, keys, modes)) as [unknown[]]
      for (const [i, one] of place.entries()) answers.set(one, toRead(one, found[i]))
    }),
  )
  return wanted.map((one) => answers.get(one) ?? null)
}

function toRead([, text]: Place, reply: unknown): Read | null {
  if (!Array.isArray(reply)) return null
  const [kind, fields, quota, removed] = reply
  if (kind === 'pointer') return { kind, ...fromPointer(fields) }
  const stored = fromFields(fields)
  const isBeside = stored.record.lineageId === text
  const found = { stored, quota: isBeside ? toStoredQuota(quota, removed) : null }
  return { kind: 'record', batch: stored.batch, found }
}

async function toRecords(quotas: RedisQuotas, found: readonly Found[]): Promise<KeyRecord[]> {
  await Promise.all(found.map(({ stored, quota }) => quotas.apply(stored, quota ?? undefined)))
  const elsewhere = found.filter(({ stored, quota }) => !quota || stored.intent !== null)
  const read = await quotas.read(elsewhere.map(({ stored }) => stored.record.lineageId))
  return found.map(({ stored: { record }, quota }) => {
    const latest = read.get(record.lineageId) ?? quota
    return latest ? withQuota(record, latest) : record
  })
}
