import { appendFileSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { createApiKeys, memoryRateLimiter } from 'latchkey'
import { redisStore } from 'latchkey/redis'
import { openStore } from './open-store.ts'
import { answerTasks, readSettings } from './task-process.ts'

/** What a worker is started with, as JSON in its arguments. */
export interface UsageWorkerSettings {
  /** Where the keys are, as `openStore` takes it, or of a Redis. */
  readonly url: string
  readonly keyPrefix: string
  /** Calls are counted as `begun` before a part of them, and as `written` after a flush. A line each: a word and a number. */
  readonly journal: string
}

export interface CountTask {
  readonly keys: readonly string[]
  readonly calls: number
  /** How many calls come between two flushes. */
  readonly flushEvery: number
}

/** What a worker does when it is asked to. An error ends it. */
const tasks = {
  async start(): Promise<void> {
    await keys.get('nobody')
  },

  /** Verifies the keys in turn. */
  async count({ keys: given, calls, flushEvery }: CountTask): Promise<void> {
    for (let done = 0; done < calls; done += flushEvery) {
      const end = Math.min(done + flushEvery, calls)
      note('begun', end)
      for (let i = done; i < end; i += 1) {
        const result = await keys.verify(given[i % given.length] as string)
        if (!result.ok) throw new Error(`refused as ${result.code}`)
      }
      await keys.flush()
      note('written', end)
      await setImmediate()
    }
  },

  close: () => keys.close(),
}

export type UsageWorkerTasks = typeof tasks

const settings = readSettings<UsageWorkerSettings>()
const store = settings.url.startsWith('redis:')
  ? redisStore(new Redis(settings.url), { keyPrefix: settings.keyPrefix })
  : openStore(settings.url).store
const keys = createApiKeys({
  store,
  rateLimiter: memoryRateLimiter(),
  prefix: 'acme_test',
  timeoutMs: 60_000,
})

answerTasks(tasks)

/** What the system has been given to write outlives this process. */
function note(what: 'begun' | 'written', calls: number): void {
  appendFileSync(settings.journal, `${what} ${calls}\n`)
}
