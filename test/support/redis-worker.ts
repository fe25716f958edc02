import { setImmediate } from 'node:timers/promises'
import { Cluster, Redis } from 'ioredis'
import {
  type ApiKeys,
  createApiKeys,
  type IssueOptions,
  type ServiceRateLimit,
  type VerifiedKey,
} from 'latchkey'
import { redisRateLimiter } from 'latchkey/redis'
import { sharedStore } from '../../examples/redis/shared-store.ts'
import { answerTasks, readSettings } from './task-process.ts'

/** What a worker is started with, as JSON in its arguments. */
export interface WorkerSettings {
  /** Where the keys are kept, and uses of them are counted unless there are `clusterNodes`. */
  readonly redisUrl: string
  readonly clusterNodes?: readonly { host: string; port: number }[]
  /** What the names of everything in Redis begin with. Workers with the same name share all of it. */
  readonly name: string
  /**
   * How long a record is held.
   *
   * @default 3_600_000: it is never read again but for the limiter's word
   */
  readonly maxAgeMs?: number
  /** The limits of the service. */
  readonly rateLimits?: readonly ServiceRateLimit[]
}

/** How verifications have ended. */
export interface Tally {
  admitted: number
  /** By code, and reason where there is one: `invalid_key: revoked`. */
  refused: Record<string, number>
}

/** A key to verify so many times, so many at once. */
export interface Hammering {
  readonly key: string
  readonly calls: number
  readonly inFlight: number
}

/** Keys to verify in turn, so many times before a change and as often after it, so many at once. */
export interface Load {
  readonly given: readonly string[]
  readonly calls: number
  readonly inFlight: number
}

/** The moments at which verifications began, by a clock that all processes of this machine have in common. */
export interface Course {
  /** Of those that admitted their key. */
  admitted: bigint[]
  /** Of those that refused it, by code and reason. */
  refused: Record<string, bigint[]>
}

type Changes = 'revoke' | 'disable' | 'enable' | 'update' | 'rotate' | 'revokeOwner' | 'invalidateOwner'

/** A call of a method of `ApiKeys`. */
export type Change = {
  [M in Changes]: { readonly method: M; readonly args: Parameters<ApiKeys[M]> }
}[Changes]

/** What a worker does when it is asked to. An error ends it. */
const tasks = {
  issue: (options: IssueOptions) => keys.issue(options),
  get: (id: string) => keys.get(id),

  /** Makes a change, and says when it had resolved. */
  async change({ method, args }: Change): Promise<bigint> {
    const make = keys[method] as (...args: readonly unknown[]) => Promise<unknown>
    await make(...args)
    return process.hrtime.bigint()
  },

  async hammer({ key, calls, inFlight }: Hammering): Promise<Tally> {
    const tally: Tally = { admitted: 0, refused: {} }
    let left = calls
    await atOnce(inFlight, async () => {
      while (left > 0) {
        left -= 1
        count(tally, await verify(key))
      }
    })
    return tally
  },

  /** Verifies keys in turn, so many times altogether. */
  async flood({ given, calls, inFlight }: Load): Promise<Tally> {
    const tally: Tally = { admitted: 0, refused: {} }
    let made = 0
    await atOnce(inFlight, async () => {
      while (made < calls) {
        const key = given[made % given.length] as string
        made += 1
        count(tally, await verify(key))
      }
    })
    return tally
  },

  /** Verifies a key until it is refused. */
  async exhaust({ key, inFlight }: Omit<Hammering, 'calls'>): Promise<Tally> {
    const tally: Tally = { admitted: 0, refused: {} }
    await atOnce(inFlight, async () => {
      while (count(tally, await verify(key)) === ADMITTED) {}
    })
    return tally
  },

  /** Begins to verify keys; resolves once that was done `calls` times, and goes on until `end`. */
  begin({ given, inFlight, calls }: Load): Promise<void> {
    const course: Course = { admitted: [], refused: {} }
    const loop = { made: 0, done: 0, stopAfter: Infinity }
    return new Promise((resolve) => {
      const lanes = atOnce(inFlight, async () => {
        while (loop.made < loop.stopAfter) {
          const key = given[loop.made % given.length] as string
          loop.made += 1
          const startedAt = process.hrtime.bigint()
          const outcome = await verify(key)
          if (outcome === ADMITTED) course.admitted.push(startedAt)
          else {
            course.refused[outcome] ??= []
            course.refused[outcome].push(startedAt)
          }
          // What is decided without I/O lets nothing else happen, and `end` has to be heard.
          await setImmediate()
          loop.done += 1
          if (loop.done >= calls) resolve()
        }
      })
      running = { loop, ended: lanes.then(() => course) }
    })
  },

  /** Lets what `begin` has begun make `calls` more, and resolves with how all of them went. */
  async end({ calls }: { calls: number }): Promise<Course> {
    if (!running) throw new Error('nothing has begun')
    running.loop.stopAfter = running.loop.made + calls
    return running.ended
  },

  /** Verifies a key so many times at once, and keeps the places; resolves with how many were admitted. */
  async hold({ key, calls }: Omit<Hammering, 'inFlight'>): Promise<number> {
    let admitted = 0
    await atOnce(calls, async () => {
      const result = await keys.verify(key)
      if (!result.ok) return
      admitted += 1
      keys.keep(result)
      held.push(result)
    })
    return admitted
  },

  /** Gives back all places. */
  async giveBack(): Promise<void> {
    await Promise.all(held.splice(0).map((result) => keys.release(result)))
  },

  /** Takes places and gives them back, so many times; What is inside at once is counted in Redis. */
  async churn({ key, calls, inFlight }: Hammering): Promise<Tally> {
    const tally: Tally = { admitted: 0, refused: {} }
    let left = calls
    await atOnce(inFlight, async () => {
      while (left > 0) {
        left -= 1
        const result = await keys.verify(key)
        if (result.ok) {
          tally.admitted += 1
          await redis.eval(ENTER, 1, `${settings.name}:inside`)
          await redis.decr(`${settings.name}:inside`)
          await keys.release(result)
        } else tally.refused[result.code] = (tally.refused[result.code] ?? 0) + 1
      }
    })
    return tally
  },

  /** The messages of all faults so far. */
  faults: (): string[] => faults,
}

/** Counts who is inside, and keeps the most. */
const ENTER = `
local inside = redis.call('INCR', KEYS[1])
local most = tonumber(redis.call('GET', KEYS[1] .. ':most') or 0)
if inside > most then redis.call('SET', KEYS[1] .. ':most', inside) end
return inside
`

const held: VerifiedKey[] = []
const faults: string[] = []

export type WorkerTasks = typeof tasks

const ADMITTED = 'admitted'
let running: { loop: { made: number; stopAfter: number }; ended: Promise<Course> } | undefined

const settings = readSettings<WorkerSettings>()
const redis = new Redis(settings.redisUrl)
const keys = createKeys(settings)

answerTasks(tasks)

function createKeys({ clusterNodes, name, maxAgeMs = 3_600_000, rateLimits = [] }: WorkerSettings): ApiKeys {
  const counting = clusterNodes ? new Cluster([...clusterNodes]) : redis
  return createApiKeys({
    store: sharedStore(redis, `${name}:keys`),
    // A call that is late is an error here, and never one that is counted elsewhere.
    rateLimiter: redisRateLimiter(counting, { keyPrefix: name, timeoutMs: 30_000, onUnavailable: 'closed' }),
    prefix: 'acme_test',
    rateLimits,
    cache: { maxAgeMs },
    ownerMaxAgeMs: maxAgeMs,
    isOwnerActive: async (owner) => (await redis.sismember(`${name}:inactive`, owner.id)) === 0,
    timeoutMs: 60_000,
    onEvent: (event) => {
      if (event.type === 'fault') faults.push(String(event.error))
    },
  })
}

async function verify(key: string): Promise<string> {
  const result = await keys.verify(key, { ip: '198.51.100.1' })
  if (result.ok) return ADMITTED
  return result.code === 'invalid_key' ? `${result.code}: ${result.reason}` : result.code
}

function count(tally: Tally, outcome: string): string {
  if (outcome === ADMITTED) tally.admitted += 1
  else tally.refused[outcome] = (tally.refused[outcome] ?? 0) + 1
  return outcome
}

async function atOnce(lanes: number, run: () => Promise<void>): Promise<void> {
  await Promise.all(Array.from({ length: lanes }, run))
}
