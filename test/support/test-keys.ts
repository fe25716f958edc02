import { crc32 } from 'node:zlib'
import {
  type ApiKeyEvent,
  type ApiKeys,
  type ApiKeysOptions,
  createApiKeys,
  memoryRateLimiter,
  type RateLimiter,
} from 'latchkey'
import { type FakeClock, fakeClock } from './fake-clock.ts'
import { type RecordingStore, recordingStore } from './recording-store.ts'

export interface TestKeys {
  readonly keys: ApiKeys
  readonly clock: FakeClock
  readonly store: RecordingStore
  readonly limiter: RateLimiter
  /** Every event so far. */
  readonly events: ApiKeyEvent[]
  /** The events of one type so far. */
  eventsOf<T extends ApiKeyEvent['type']>(type: T): Extract<ApiKeyEvent, { type: T }>[]
}

/** `createApiKeys` on a clock moved by hand, a recording store and a memory limiter. What is given replaces them. */
export function createTestKeys({
  clock = fakeClock(),
  store = recordingStore(),
  ...options
}: Partial<Omit<ApiKeysOptions, 'clock' | 'store'>> & {
  clock?: FakeClock
  store?: RecordingStore
} = {}): TestKeys {
  const limiter = options.rateLimiter ?? memoryRateLimiter({ clock })
  const events: ApiKeyEvent[] = []
  const keys = createApiKeys({
    prefix: 'acme_test',
    // Looks of the store that only their own tests want.
    expiryReminders: false,
    onEvent: (event) => void events.push(event),
    ...options,
    store,
    rateLimiter: limiter,
    clock,
  })
  return {
    keys,
    clock,
    store,
    limiter,
    events,
    eventsOf: (type) => events.filter((event) => event.type === type) as never,
  }
}

export const ALICE = { type: 'user', id: 'u_alice' } as const
export const BOB = { type: 'user', id: 'u_bob' } as const

/** The least that a key is issued with. */
export const NAME = { owner: ALICE, name: 'CI' }

/** A well-formed key with the given parts; what is not given comes from `key`. Its checksum is right. */
export function forgeKey(key: string, parts: { prefix?: string; keyId?: string; secret?: string }): string {
  const { prefix, keyId, secret } = { ...partsOf(key), ...parts }
  const body = `${prefix}_${keyId}_${secret}`
  return body + base62(crc32(body))
}

/** The parts of a key without its checksum. */
export function partsOf(key: string): { prefix: string; keyId: string; secret: string } {
  const [, prefix = '', keyId = '', secret = ''] = /^(.+)_(\w{16})_(\w{43})\w{6}$/.exec(key) ?? []
  return { prefix, keyId, secret }
}

const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

function base62(value: number): string {
  let text = ''
  for (let rest = value; text.length < 6; rest = Math.floor(rest / 62)) text = DIGITS[rest % 62] + text
  return text
}
