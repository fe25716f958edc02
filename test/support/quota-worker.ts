import { appendFileSync } from 'node:fs'
import { setImmediate, setTimeout } from 'node:timers/promises'
import { Redis } from 'ioredis'
import {
  createApiKeys,
  type KeyStore,
  memoryRateLimiter,
  type QuotaRecord,
  type QuotaSwapResult,
} from 'latchkey'
import { redisStore } from 'latchkey/redis'
import { openStore } from './open-store.ts'
import { answerTasks, readSettings } from './task-process.ts'

/** What a worker is started with, as JSON in its arguments. */
export interface QuotaWorkerSettings {
  /** Where the keys are, as `openStore` takes it, or of a Redis. */
  readonly url: string
  /** What the names of everything in Redis begin with. */
  readonly keyPrefix: string
  readonly quotaLeaseMs: number
  /** The file that it writes what happens to. */
  readonly journal: string
}

/**
 * A line of the journal: a word, a number, and when it was, by a clock that all processes of this machine have in common.
 *
 * - `begins`: a call begins.
 * - `admitted`, `refused`: it was admitted, or refused for now.
 * - `spent`: it was refused since no units will come any more.
 * - `lease`: the most units that this process holds from now on, whether or not what it asks of the store is done.
 */
export type QuotaEvent = 'begins' | 'admitted' | 'refused' | 'spent' | 'lease'

/** The moment at which a worker kills itself: when it has come there so many times. */
export interface Death {
  readonly at: 'call' | 'swap begins' | 'swap is sent' | 'swap ends'
  readonly times: number
}

/** What a worker does when it is asked to. An error ends it. */
const tasks = {
  async start(): Promise<void> {
    await store.find({ id: 'nobody' })
  },

  /** Has so many calls admitted, so many at once. Those that are refused come again, until no units will come any more. */
  async spend({ key, calls, lanes, dies = null }: SpendTask): Promise<void> {
    death = dies && { ...dies }
    let left = calls
    const run = async () => {
      while (left > 0) {
        left -= 1
        const outcome = await call(key)
        if (outcome === 'spent') left = 0
        else if (outcome === 'refused') {
          left += 1
          await setTimeout(settings.quotaLeaseMs / 20)
        }
        // What is decided without I/O lets nothing else happen.
        else await setImmediate()
      }
    }
    await Promise.all(Array.from({ length: lanes }, run))
  },

  close: () => keys.close(),
}

export interface SpendTask {
  readonly key: string
  readonly calls: number
  readonly lanes: number
  readonly dies?: Death | null
}

export type QuotaWorkerTasks = typeof tasks

const settings = readSettings<QuotaWorkerSettings>()
let death: { at: Death['at']; times: number } | null = null
/** What this process holds, as far as can be seen from outside: calls that are under way may have taken of it. */
let held = 0
const store = openShared()
const keys = createApiKeys({
  store: journaled(store),
  rateLimiter: memoryRateLimiter(),
  prefix: 'acme_test',
  quotaLeaseMs: settings.quotaLeaseMs,
  timeoutMs: 60_000,
})

answerTasks(tasks)

function openShared(): KeyStore {
  if (!settings.url.startsWith('redis:')) return openStore(settings.url).store
  return redisStore(new Redis(settings.url), { keyPrefix: settings.keyPrefix })
}

async function call(key: string): Promise<QuotaEvent> {
  note('begins')
  comeTo('call')
  const result = await keys.verify(key)
  if (result.ok) held -= 1
  else if (result.code !== 'quota_exceeded') throw new Error(`refused as ${result.code}`)
  const outcome = result.ok ? 'admitted' : result.retryAfterMs === null ? 'spent' : 'refused'
  note(outcome)
  return outcome
}

/** The same store, with what it is asked to lease in the journal before it is asked. */
function journaled(inner: KeyStore): KeyStore {
  const { swapQuota } = inner as Required<KeyStore>
  return {
    ...inner,
    async swapQuota(lineageId: string, expected: QuotaRecord, next: QuotaRecord): Promise<QuotaSwapResult> {
      const leased = expected.remaining - next.remaining
      note('lease', Math.max(held, held + leased))
      comeTo('swap begins')
      const work = swapQuota(lineageId, expected, next)
      await setImmediate()
      comeTo('swap is sent')
      const result = await work
      comeTo('swap ends')
      if (result.swapped) held += leased
      note('lease', held)
      return result
    },
  }
}

function comeTo(at: Death['at']): void {
  if (death?.at !== at) return
  death.times -= 1
  if (death.times <= 0) process.kill(process.pid, 'SIGKILL')
}

/** What the system has been given to write outlives this process. */
function note(event: QuotaEvent, units = 0): void {
  appendFileSync(settings.journal, `${event} ${units} ${process.hrtime.bigint()}\n`)
}
