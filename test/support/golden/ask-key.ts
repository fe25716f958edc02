import {
  type ApiKeys,
  type ApiKeysOptions,
  createApiKeys,
  type KeyStore,
  memoryRateLimiter,
  type VerifyOptions,
  type VerifyResult,
} from 'latchkey'
import { type FakeClock, fakeClock } from '../fake-clock.ts'
import { GOLDEN_FORMATS } from './golden-formats.ts'
import { asJson, type FrozenOptions } from './releases.ts'

interface Question {
  readonly at: string
  readonly ask: VerifyOptions
}

/** Presents a key at each of these moments, to one process that has just started, and returns what it was answered. */
export async function askKey(
  store: KeyStore,
  options: FrozenOptions,
  key: string,
  questions: readonly Question[],
): Promise<Record<string, unknown>[]> {
  const { keys, clock } = openGoldenKeys(store, options, questions[0]?.at as string)
  const answers: Record<string, unknown>[] = []
  for (const { at, ask } of questions) {
    // No timer runs: a database answers in real time, and years of its own would not wait for it.
    clock.set(Date.parse(at))
    answers.push(withoutApiKey(await keys.verify(key, ask)))
  }
  await keys.close()
  return answers
}

/** Keys over frozen records, at a moment. */
export function openGoldenKeys(
  store: KeyStore,
  { formats, ...options }: FrozenOptions,
  at: string,
): { keys: ApiKeys; clock: FakeClock } {
  const clock = fakeClock(Date.parse(at))
  const given: ApiKeysOptions = { ...options, store, clock, rateLimiter: memoryRateLimiter({ clock }) }
  if (formats) given.formats = formats.map((name) => (GOLDEN_FORMATS[name] as () => never)())
  return { keys: createApiKeys(given), clock }
}

/** The record has a place of its own. */
function withoutApiKey(result: VerifyResult): Record<string, unknown> {
  const { apiKey: _apiKey, ...rest } = result as { apiKey?: unknown }
  return asJson(rest)
}
