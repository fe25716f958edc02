import {
  type ApiKeyEvent,
  type ApiKeys,
  type ApiKeysOptions,
  createApiKeys,
  isLatchkeyError,
  type KeyRecord,
  type KeyStore,
  memoryRateLimiter,
  memoryStore,
  type RateLimiter,
  secretScanningPattern,
} from 'latchkey'
import { type FakeClock, fakeClock } from '../fake-clock.ts'
import { asJson, compareVersions } from './releases.ts'

interface Probe {
  /** What is measured, as the frozen table names it. */
  readonly name: string
  /** The first release that has it. */
  readonly since?: string
  measure(): Promise<unknown>
}

const OWNER = { type: 'user', id: 'u_1' }
const KEY = { owner: OWNER, name: 'CI' }
const IP = '192.0.2.1'
const PEPPERS = [{ id: 'p1', secret: 'a pepper of at least thirty-two bytes' }]
const DAY = 86_400_000

const PROBES: readonly Probe[] = [
  {
    name: 'a key: letters of its parts',
    async measure() {
      const { key, apiKey } = await issue(open())
      const parts = /^(acme_test)_([0-9A-Za-z]+)_([0-9A-Za-z]+)$/.exec(key) ?? []
      return { id: parts[2]?.length, secretAndChecksum: parts[3]?.length, hint: apiKey.hint.length }
    },
  },
  {
    name: 'a key: the pattern for scanners',
    measure: async () => secretScanningPattern('acme_test'),
  },
  {
    name: 'issue: a key that names nothing',
    async measure() {
      const { store, keys } = open()
      const { apiKey } = await keys.issue(KEY)
      const { id, lookup, digest, lineageId, hint, ...rest } = (await store.find({
        id: apiKey.id,
      })) as KeyRecord
      const shown = [id, lookup, digest, lineageId, hint].every((text) => text.length > 0)
      return { ...rest, lineageIsItsOwn: lineageId === id, hasTheRest: shown }
    },
  },
  { name: 'digest: without peppers', measure: () => schemeOf({}) },
  { name: 'digest: with peppers', measure: () => schemeOf({ peppers: PEPPERS }) },
  { name: 'digest: bcrypt, its cost', measure: () => schemeOf({ digest: 'bcrypt' }) },
  {
    name: 'upgradeDigests',
    async measure() {
      const before = open()
      const { key, apiKey } = await issue(before)
      const { keys } = open({ store: before.store, peppers: PEPPERS })
      await keys.verify(key)
      await keys.close()
      return scheme((await before.store.find({ id: apiKey.id })) as KeyRecord) !== 'sha256'
    },
  },
  {
    name: 'rateLimits',
    async measure() {
      const opened = open()
      const { key } = await issue(opened)
      const result = await opened.keys.verify(key)
      return result.ok && result.limits
    },
  },
  {
    name: 'verify: cost',
    async measure() {
      const opened = open({ rateLimits: [{ name: 'a', limit: 10, windowMs: 60_000 }] })
      const { key } = await issue(opened)
      const result = await opened.keys.verify(key)
      return result.ok && 10 - (result.limits[0]?.remaining ?? 0)
    },
  },
  {
    name: 'rate limit per day: time zone',
    async measure() {
      const opened = open({ rateLimits: [{ name: 'day', limit: 10, per: 'day' }] })
      const { key } = await issue(opened)
      const result = await opened.keys.verify(key)
      const endsAt = opened.clock.now() + ((result.ok && result.limits[0]?.resetMs) || 0)
      return new Date(endsAt).toISOString().slice(10)
    },
  },
  {
    name: 'quota refilled per day: time zone',
    async measure() {
      const quota = { remaining: 1, refill: { amount: 1, per: 'day' as const } }
      const { apiKey } = await open().keys.issue({ ...KEY, quota })
      return apiKey.quota?.nextRefillAt?.toISOString().slice(10)
    },
  },
  {
    name: 'rotate: graceMs',
    async measure() {
      const { keys, clock } = open()
      const { apiKey } = await keys.issue(KEY)
      const { previous } = await keys.rotate(apiKey.id)
      return (previous.expiresAt?.getTime() ?? 0) - clock.now()
    },
  },
  {
    name: 'rotate: when the new key expires',
    async measure() {
      const { keys, clock } = open()
      const { apiKey } = await keys.issue({ ...KEY, expiresAt: new Date(clock.now() + 7 * DAY) })
      const rotated = await keys.rotate(apiKey.id)
      return (rotated.apiKey.expiresAt?.getTime() ?? 0) - clock.now() === 7 * DAY
        ? 'as the previous one'
        : 'otherwise'
    },
  },
  {
    name: 'list: limit',
    async measure() {
      const { keys } = open()
      for (let i = 0; i < 120; i++) await keys.issue(KEY)
      return (await keys.list()).apiKeys.length
    },
  },
  {
    name: 'cache.maxAgeMs',
    measure: () =>
      leastMs(async (ms) => {
        const { keys, clock, calls } = open()
        const { key } = await keys.issue(KEY)
        await keys.verify(key)
        await clock.advance(ms)
        const before = calls('find')
        await keys.verify(key)
        return calls('find') > before
      }),
  },
  {
    name: 'cache.negativeMaxAgeMs',
    measure: () =>
      leastMs(async (ms) => {
        const { keys, clock, calls } = open()
        const key = await unknownKey()
        await keys.verify(key)
        await clock.advance(ms)
        const before = calls('find')
        await keys.verify(key)
        return calls('find') > before
      }),
  },
  {
    name: 'cache.maxEntries',
    async measure() {
      const { keys, calls } = open()
      const issued: string[] = []
      for (let i = 0; i < 10_050; i++) issued.push((await keys.issue(KEY)).key)
      return heldOf(issued, keys, calls)
    },
  },
  {
    name: 'cache.negativeMaxEntries',
    async measure() {
      const { keys, calls } = open()
      const elsewhere = open()
      const unknown: string[] = []
      for (let i = 0; i < 1_050; i++) unknown.push((await issue(elsewhere)).key)
      return heldOf(unknown, keys, calls)
    },
  },
  {
    name: 'ownerMaxAgeMs',
    measure: () =>
      leastMs(async (ms) => {
        let asked = 0
        const isOwnerActive = () => {
          asked += 1
          return true
        }
        const { keys, clock } = open({ isOwnerActive, cache: { maxAgeMs: DAY } })
        const { key } = await keys.issue(KEY)
        await keys.verify(key)
        await clock.advance(ms)
        const before = asked
        await keys.verify(key)
        return asked > before
      }),
  },
  {
    name: 'usage.flushMs',
    measure: () =>
      leastMs(async (ms) => {
        const { keys, clock, calls } = open()
        const { key } = await keys.issue(KEY)
        // The first use of a key is written at once, the others are gathered.
        await keys.verify(key)
        await clock.advance(0)
        const before = calls('recordUsage')
        await keys.verify(key)
        await clock.advance(ms)
        return calls('recordUsage') > before
      }),
  },
  {
    name: 'timeoutMs',
    measure: () =>
      leastMs(async (ms) => {
        const hanging: KeyStore = { ...memoryStore(), find: () => new Promise(() => {}) }
        const { keys, clock } = open({ store: hanging })
        let isOver = false
        const over = () => {
          isOver = true
        }
        keys.verify(await unknownKey()).then(over, over)
        await clock.advance(ms)
        return isOver
      }),
  },
  {
    name: 'quotaBlockSize',
    async measure() {
      const { keys, store } = open()
      const { key, apiKey } = await keys.issue({ ...KEY, quota: { remaining: 10_000_000 } })
      // What is leased beyond what a call needs depends on what was spent of the lease before.
      for (let i = 0; i < 2; i += 1) await keys.verify(key, { cost: 100_000 })
      const allotted = (await store.find({ id: apiKey.id }))?.quota?.allotted
      return allotted && allotted - 200_000
    },
  },
  {
    name: 'idleExpiryMs: how much later a key may end',
    measure: () =>
      leastMs(async (ms) => {
        const { keys, clock } = open()
        const { key } = await keys.issue({ ...KEY, idleExpiryMs: 60_000 })
        await clock.advance(60_000 + ms)
        return !(await keys.verify(key)).ok
      }),
  },
  {
    name: 'revocation: whether a key without limits asks the limiter',
    async measure() {
      let asked = 0
      const limiter = memoryRateLimiter({ clock: fakeClock() })
      const rateLimiter: RateLimiter = {
        ...limiter,
        check: (request) => {
          asked += 1
          return limiter.check(request)
        },
      }
      const opened = open({ rateLimiter })
      const { key } = await issue(opened)
      await opened.keys.verify(key)
      asked = 0
      await opened.keys.verify(key)
      return asked > 0
    },
  },
  {
    name: 'failedAttempts',
    async measure() {
      const { keys } = open()
      const key = await unknownKey()
      for (let i = 0; i < 500; i++) await keys.verify(key, { ip: IP })
      const result = await keys.verify(key, { ip: IP })
      return !result.ok && result.code
    },
  },
  {
    name: 'failedAttempts: true, its limit',
    since: '0.2.0',
    measure: async () => (await sendInvalid(open({ failedAttempts: true }))).sent,
  },
  {
    name: 'failedAttempts: true, its windowMs',
    since: '0.2.0',
    measure: () =>
      leastMs(async (ms) => {
        const opened = open({ failedAttempts: true })
        const { key } = await sendInvalid(opened)
        await opened.clock.advance(ms)
        const result = await opened.keys.verify(key, { ip: IP })
        return !result.ok && result.code === 'invalid_key'
      }),
  },
  {
    name: 'import: a key that names nothing',
    since: '0.2.0',
    async measure() {
      const { keys, store } = open({ formats: [LEGACY] })
      const { id } = await keys.import({ ...KEY, format: 'legacy', key: 'old-key' })
      const { digest, lineageId, ...rest } = (await store.find({ id })) as KeyRecord
      return { ...rest, id: id.length, lineageIsItsOwn: lineageId === id, scheme: digest.split('$')[1] }
    },
  },
  {
    name: 'importAll: batchSize',
    since: '0.2.0',
    async measure() {
      const store = memoryStore()
      const sizes: number[] = []
      const counting: KeyStore = {
        ...store,
        insert(records) {
          sizes.push(records.length)
          return store.insert(records)
        },
      }
      const { keys } = open({ store: counting, formats: [LEGACY] })
      await keys.importAll(
        Array.from({ length: 10_001 }, (_, i) => ({ ...KEY, format: 'legacy', key: `old-${i}` })),
      )
      return Math.max(...sizes)
    },
  },
  {
    name: 'importAll: onDuplicate',
    since: '0.2.0',
    async measure() {
      const { keys } = open({ formats: [LEGACY] })
      const row = { ...KEY, format: 'legacy', key: 'old-key' }
      return outcomeOf(() => keys.importAll([row, row]))
    },
  },
  {
    name: 'a name with a NUL',
    measure: () => outcomeOf(() => open().keys.issue({ owner: OWNER, name: 'a\0b' })),
  },
  {
    name: 'a store: what find is told where a record is outdated',
    async measure() {
      const store = memoryStore()
      const told: unknown[][] = []
      const find = (...args: unknown[]) => {
        told.push(args.slice(1))
        return (store.find as (...args: unknown[]) => ReturnType<KeyStore['find']>)(...args)
      }
      const clock = fakeClock()
      const rateLimiter = memoryRateLimiter({ clock })
      const { keys } = open({ store: { ...store, find: find as KeyStore['find'] }, clock, rateLimiter })
      const elsewhere = open({ store, clock, rateLimiter })
      const { key, apiKey } = await issue(elsewhere)
      await keys.verify(key)
      await elsewhere.keys.update(apiKey.id, { name: 'renamed' })
      await keys.verify(key)
      return told.at(-1)
    },
  },
  {
    name: 'a limiter: an admission without chargedAt',
    async measure() {
      const answer = { outcome: 'admitted', limits: [] } as never
      const rateLimiter = { check: () => answer, raiseVersions: () => {} }
      const { keys } = open({ rateLimiter })
      const { key } = await keys.issue(KEY)
      return outcomeOf(() => keys.verify(key))
    },
  },
  {
    name: 'memoryRateLimiter: units that nobody has asked for in 401 days',
    async measure() {
      const opened = open({ quotaBlockSize: 100 })
      const { key } = await opened.keys.issue({ ...KEY, quota: { remaining: 100 } })
      await opened.keys.verify(key)
      await opened.clock.advance(401 * DAY)
      // Others have to be asked about, since the limiter sweeps with every call.
      for (let i = 0; i < 3; i++) await opened.keys.verify((await issue(opened)).key)
      const result = await opened.keys.verify(key)
      return result.ok ? 'are there' : result.code
    },
  },
  {
    name: 'events of the life of a key, with their members',
    async measure() {
      const events: ApiKeyEvent[] = []
      const { keys } = open({ onEvent: (event) => void events.push(event) })
      const { key, apiKey } = await keys.issue(KEY)
      await keys.verify(key)
      await keys.verify(`${key.slice(0, -1)}-`)
      await keys.update(apiKey.id, { name: 'renamed' })
      await keys.disable(apiKey.id)
      await keys.enable(apiKey.id)
      await keys.rotate(apiKey.id)
      await keys.revoke(apiKey.id)
      await keys.verify(key)
      await keys.invalidateOwner(OWNER)
      await keys.revokeOwner(OWNER)
      await keys.purge({ endedBefore: new Date(Date.UTC(2100, 0)) })
      await keys.close()
      return events.map((event) => ({ type: event.type, members: typesOf(event) }))
    },
  },
]

/** What a release does where nothing is configured, found out by using it. A probe that fails spoils no other. */
export async function probeDefaults(release: string): Promise<Record<string, unknown>> {
  const rows: [string, unknown][] = []
  for (const { name, since = '0.0.0', measure } of PROBES) {
    if (compareVersions(since, release) <= 0) rows.push([name, (await measure().catch(failure)) ?? null])
  }
  return asJson(Object.fromEntries(rows))
}

/** No release is frozen with it. */
function failure(error: unknown): { failed: string } {
  return { failed: String(error) }
}

const LEGACY = { name: 'legacy', lookup: (key: string) => (key.startsWith('old-') ? key : null) }

interface Opened {
  readonly keys: ApiKeys
  readonly store: KeyStore
  readonly clock: FakeClock
  /** How often a method of the store was called. */
  calls(method: keyof KeyStore): number
}

function open({
  clock = fakeClock(),
  ...options
}: Partial<ApiKeysOptions> & { clock?: FakeClock } = {}): Opened {
  const counts = new Map<keyof KeyStore, number>()
  const inner = options.store ?? memoryStore()
  const counted = Object.entries(inner).map(([method, run]) => [
    method,
    (...args: unknown[]) => {
      counts.set(method as keyof KeyStore, (counts.get(method as keyof KeyStore) ?? 0) + 1)
      return run(...args)
    },
  ])
  const store: KeyStore = Object.fromEntries(counted)
  const rateLimiter = options.rateLimiter ?? memoryRateLimiter({ clock })
  const keys = createApiKeys({ prefix: 'acme_test', ...options, store, rateLimiter, clock })
  return { keys, store, clock, calls: (method) => counts.get(method) ?? 0 }
}

function issue({ keys }: Opened) {
  return keys.issue(KEY)
}

/** A well-formed key that no other store knows. */
async function unknownKey(): Promise<string> {
  return (await issue(open())).key
}

async function schemeOf(options: Pick<ApiKeysOptions, 'digest' | 'peppers'>): Promise<string> {
  const { keys, store } = open(options)
  const { apiKey } = await keys.issue(KEY)
  return scheme((await store.find({ id: apiKey.id })) as KeyRecord)
}

/** The scheme that a digest names, with its pepper or cost. */
function scheme({ digest }: KeyRecord): string {
  return digest.split('$').slice(1, -1).join('$') || digest
}

/** The fewest milliseconds after which something happens, up to an hour; each trial is a process of its own. */
async function leastMs(happensAfter: (ms: number) => Promise<boolean>): Promise<number | null> {
  let [never, ever] = [-1, 3_600_000]
  if (!(await happensAfter(ever))) return null
  while (ever - never > 1) {
    const middle = Math.floor((never + ever) / 2)
    if (await happensAfter(middle)) ever = middle
    else never = middle
  }
  return ever
}

/** How many of many keys are still held: the latest ones, counted backwards until the store is asked. */
async function heldOf(presented: readonly string[], keys: ApiKeys, calls: Opened['calls']): Promise<number> {
  for (const key of presented) await keys.verify(key)
  for (const [held, key] of [...presented].reverse().entries()) {
    const before = calls('find')
    await keys.verify(key)
    if (calls('find') > before) return held
  }
  return presented.length
}

/** Sends invalid keys from one address until it is blocked. */
async function sendInvalid({ keys }: Opened): Promise<{ sent: number; key: string }> {
  const key = await unknownKey()
  for (let sent = 0; sent < 10_000; sent++) {
    const result = await keys.verify(key, { ip: IP })
    if (!result.ok && result.code === 'too_many_failures') return { sent, key }
    await Promise.resolve()
  }
  throw new Error('the address was never blocked')
}

function typesOf(event: ApiKeyEvent): Record<string, string> {
  return Object.fromEntries(Object.entries(event).map(([member, value]) => [member, typeof value]))
}

async function outcomeOf(work: () => Promise<unknown>): Promise<string> {
  try {
    await work()
    return 'is taken'
  } catch (error) {
    return isLatchkeyError(error) ? error.code : (error as Error).name
  }
}
