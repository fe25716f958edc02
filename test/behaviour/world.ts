import type { ApiKeyEvent, ApiKeys } from 'latchkey'
import { memoryRateLimiter } from 'latchkey'
import { type FakeClock, fakeClock } from '../support/fake-clock.ts'
import { type RecordingStore, recordingStore } from '../support/recording-store.ts'
import { createTestKeys } from '../support/test-keys.ts'
import { LOOPBACK } from './givens.ts'
import { type CountedLimiter, countedLimiter } from './limiters.ts'
import type { Surroundings } from './pipeline.ts'
import type { App, Row, Who } from './row.ts'
import { createTokens, type Tokens } from './tokens.ts'

/** All that a row happens in. */
export interface World extends Surroundings {
  readonly keys: ApiKeys
  readonly clock: FakeClock
  readonly store: RecordingStore
  readonly limiter: CountedLimiter
  readonly tokens: Tokens
  /** Takes note of a warning to the programmer. */
  warn(code: string): void
  /** Resolves with who the request of this number was, once it has been answered. */
  whoWas(number: number): Promise<Who>
  /** What has happened since this was asked last. */
  happened(): { events: string[]; store: string[]; limiter: string[] }
}

/** Tells the requests of a row apart. */
export const NUMBER_FIELD = 'X-Request-Number'

export async function createWorld(row: Row): Promise<World> {
  const clock = fakeClock()
  const store = recordingStore()
  const limiter = countedLimiter(row.limiter ?? 'memory', clock)
  const { keys, events } = createTestKeys({ ...row.keys, clock, store, rateLimiter: limiter.limiter })
  const tokens = await createTokens(keys, row.key)
  const people = new Map<number, { who: Promise<Who>; tell: (who: Who) => void }>()

  function personOf(number: number) {
    let person = people.get(number)
    if (!person) {
      let tell: (who: Who) => void = () => {}
      const who = new Promise<Who>((resolve) => {
        tell = resolve
      })
      person = { who, tell }
      people.set(number, person)
    }
    return person
  }

  const warnings: string[] = []
  return {
    keys,
    warn: (code) => void warnings.push(`warning ${code}`),
    otherKeys: createTestKeys({ rateLimiter: memoryRateLimiter({ clock }) }).keys,
    resolveUser: resolverOf(row.app?.finds),
    clock,
    store,
    limiter,
    tokens,
    note: (headers, who) => personOf(Number(headers[NUMBER_FIELD.toLowerCase()])).tell(who),
    whoWas: (number) => personOf(number).who,
    happened() {
      const calls = STORE_METHODS.flatMap((method) => Array(store.calls(method)).fill(method) as string[])
      store.forgetCalls()
      return {
        events: [...events.splice(0).map(describeEvent), ...warnings.splice(0)],
        store: calls,
        limiter: limiter.calls.splice(0),
      }
    },
  }
}

const STORE_METHODS = [
  'find',
  'insert',
  'update',
  'replaceDigest',
  'list',
  'recordUsage',
  'swapQuota',
  'swapQuotas',
] as const

function describeEvent(event: ApiKeyEvent): string {
  if (event.type === 'key.refused') {
    const from = event.ip !== null && event.ip !== LOOPBACK && `from ${event.ip}`
    return [event.type, event.code, event.reason, from].filter(Boolean).join(' ')
  }
  return event.type === 'fault' ? `${event.type} ${event.operation}` : event.type
}

function resolverOf(finds: App['finds']): Surroundings['resolveUser'] {
  switch (finds) {
    case 'a user':
      return () => ({ name: 'Alice' })
    case 'nobody':
      return () => null
    case 'a fault':
      return () => {
        throw new Error('the user table is down')
      }
    default:
      return undefined
  }
}
