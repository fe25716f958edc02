/**
 * What a quota asks of the store, over PostgreSQL: `measure-quota.mjs <seed> <postgresUrl>`. Runs in a process of its own; sends one
 * object for each quota, pace and number of processes. Each of these processes is an instance with a pool of its own, all
 * in this one. Their clock is not the machine's: it moves on to the next call or timer as soon as there is nothing left to do.
 */
import { createApiKeys, memoryRateLimiter } from '../dist/index.mjs'
import { migrate, postgresStore } from '../dist/sql.mjs'
import { createDatabase } from './postgres.mjs'
import { createRandom } from './statistics.mjs'

const random = createRandom(Number(process.argv[2]))
const postgresUrl = process.argv[3]
/** How often each process calls, one after the other; or how often any of them does. And for how long, where the quota lasts. */
const paces = {
  busy: { everyMs: 2, forMs: 10 * 60_000, isOfEach: true },
  slow: { everyMs: 2_000, forMs: 60 * 60_000, isOfEach: false },
}
/** Without a quota, as what the others are to be seen beside. */
const quotas = [null, 100, 10_000, 1_000_000]

const measured = []
for (const [pace, timing] of Object.entries(paces)) {
  for (const processes of [1, 4]) {
    for (const quota of quotas) {
      const database = `quota_${measured.length}`
      measured.push({
        pace,
        processes,
        quota,
        ...(await measure({ database, processes, quota, ...timing })),
      })
    }
  }
}
process.send(measured, () => process.disconnect())

/** Calls until the quota is spent, or the time is over. */
async function measure({ database, processes, quota, everyMs, forMs, isOfEach }) {
  const clock = createClock()
  const counts = { swaps: 0, reads: 0 }
  const pools = []
  const instances = []
  for (let i = 0; i < processes; i += 1) {
    const pool = i === 0 ? await createDatabase(postgresUrl, database) : copyOf(pools[0])
    pools.push(pool)
    const store = postgresStore(pool)
    if (i === 0) await migrate(store)
    instances.push(
      createApiKeys({
        store: counted(store, counts, clock),
        rateLimiter: memoryRateLimiter({ clock }),
        prefix: 'bench',
        clock,
      }),
    )
  }
  const { key } = await instances[0].issue({
    owner: { type: 'user', id: 'u_1' },
    name: 'bench',
    quota: quota === null ? null : { remaining: quota },
  })
  // Connections and compiled code are there before anything is counted.
  for (const instance of instances) await instance.verify(key, { cost: 0 })
  Object.assign(counts, { swaps: 0, reads: 0 })

  let [requests, admitted] = [0, 0]
  const stepMs = isOfEach ? everyMs / processes : everyMs
  const steps = forMs / stepMs
  const cpuBefore = process.cpuUsage()
  for (let step = 0; step < steps && admitted !== quota; step += 1) {
    const turn = isOfEach ? step % processes : Math.floor(random() * processes)
    const { ok } = await instances[turn].verify(key)
    requests += 1
    if (ok) admitted += 1
    await clock.advance(stepMs)
  }
  const { user, system } = process.cpuUsage(cpuBefore)
  const { swaps, reads } = counts
  for (const instance of instances) await instance.close()
  for (const pool of pools) await pool.end()
  return {
    requests,
    admitted,
    swaps,
    reads,
    swapsPerRequest: swaps / requests,
    readsPerRequest: reads / requests,
    callsPerRequest: (swaps + reads) / requests,
    cpuUsPerRequest: (user + system) / requests,
  }
}

function copyOf(pool) {
  return new pool.constructor({ connectionString: pool.options.connectionString })
}

/** Counts what a quota may need of the store. Uses are written in batches whether or not there is one. */
function counted(store, counts, clock) {
  const counting =
    (name, method) =>
    (...args) => {
      counts[name] += 1
      return clock.waitFor(method(...args))
    }
  return {
    ...store,
    find: counting('reads', store.find),
    swapQuota: counting('swaps', store.swapQuota),
    swapQuotas: counting('swaps', store.swapQuotas),
    recordUsage: (...args) => clock.waitFor(store.recordUsage(...args)),
  }
}

/** Time that stands still while the store is asked. */
function createClock() {
  let now = Date.UTC(2026, 0, 15, 12)
  const timers = new Set()
  const underWay = new Set()

  async function settle() {
    while (underWay.size > 0) {
      await Promise.allSettled(underWay)
      // Who has waited for it goes on.
      await new Promise((resolve) => setImmediate(resolve))
    }
  }

  return {
    now: () => now,
    setTimer(run, delayMs) {
      const timer = { run, dueAt: now + delayMs }
      timers.add(timer)
      return () => void timers.delete(timer)
    },
    waitFor(work) {
      underWay.add(work)
      const ended = () => void underWay.delete(work)
      work.then(ended, ended)
      return work
    },
    async advance(ms) {
      const until = now + ms
      await settle()
      for (;;) {
        let next = null
        for (const timer of timers) if (timer.dueAt <= (next?.dueAt ?? until)) next = timer
        if (!next) break
        timers.delete(next)
        now = Math.max(now, next.dueAt)
        next.run()
        await settle()
      }
      now = until
    },
  }
}
