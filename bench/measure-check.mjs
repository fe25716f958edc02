/**
 * `check()` of redisRateLimiter alone, beside rate-limiter-flexible: `measure-check.mjs <rounds> <seed> <redisUrl>`.
 * Runs in a process of its own; sends the version of Redis, and one object per round that maps each number of
 * concurrent calls to the figures of each subject.
 */
import { RateLimiterRedis, RateLimiterUnion } from 'rate-limiter-flexible'
import { memoryRateLimiter } from '../dist/index.mjs'
import { createRandom, shuffle } from './statistics.mjs'
import { connectRedis, createKeys, createRedisRateLimiter, oneLimit, threeLimits } from './targets.mjs'

const rounds = Number(process.argv[2])
const random = createRandom(Number(process.argv[3]))
const redis = await connectRedis(process.argv[4])
const concurrencies = [50, 500]
/** Long enough for several answers to each of 500 callers, short enough for all subjects to share a slow second. */
const turnMs = 75
const turnsPerRound = 4
const warmupRounds = 3

/** As long as the ids of keys are. */
const ids = Array.from({ length: 1_000 }, (_, index) => `key_${String(index).padStart(12, '0')}`)
const rateLimiter = await createRedisRateLimiter(redis)
const flexible = createFlexible('minute', 60)
const union = new RateLimiterUnion(flexible, createFlexible('hour', 3_600), createFlexible('day', 86_400))
const ours = { isAdmitted: ({ outcome }) => outcome === 'admitted' }
const theirs = { isAdmitted: () => true } // it rejects what it refuses
const subjects = [
  { name: 'one', run: await createCheck('one', oneLimit), ...ours },
  { name: 'flexible', run: (id) => flexible.consume(id), ...theirs },
  { name: 'flexible-again', run: (id) => flexible.consume(id), ...theirs },
  { name: 'three', run: await createCheck('three', threeLimits), ...ours },
  { name: 'union', run: (id) => union.consume(id), ...theirs },
  { name: 'union-again', run: (id) => union.consume(id), ...theirs },
]

const measured = []
for (let round = -warmupRounds; round < rounds; round += 1) {
  const figures = await runRound()
  if (round >= 0) measured.push(figures)
}
const [, redisVersion] = /^redis_version:(\S+)/m.exec(await redis.info('server'))
await redis.quit()
process.send({ redisVersion, measured }, () => process.disconnect())

async function runRound() {
  const figures = {}
  for (const concurrent of concurrencies) {
    const totals = new Map(subjects.map((subject) => [subject, { calls: 0, cpuUs: 0, elapsedMs: 0 }]))
    for (let turn = 0; turn < turnsPerRound; turn += 1) {
      for (const subject of shuffle(subjects, random)) await runTurn(subject, concurrent, totals.get(subject))
    }
    const figuresOf = ([{ name }, { calls, cpuUs, elapsedMs }]) => [
      name,
      { callsPerSecond: calls / (elapsedMs / 1000), cpuUsPerCall: cpuUs / calls },
    ]
    figures[concurrent] = Object.fromEntries([...totals].map(figuresOf))
  }
  return figures
}

/** Keeps so many calls under way, for the length of a turn and until the last of them is answered. */
async function runTurn({ name, run, isAdmitted }, concurrent, total) {
  let isOver = false
  setTimeout(() => {
    isOver = true
  }, turnMs)
  const cpuBefore = process.cpuUsage()
  const startedAt = performance.now()
  await Promise.all(Array.from({ length: concurrent }, keepCalling))
  total.elapsedMs += performance.now() - startedAt
  const { user, system } = process.cpuUsage(cpuBefore)
  total.cpuUs += user + system

  async function keepCalling() {
    while (!isOver) {
      const id = ids[total.calls % ids.length]
      total.calls += 1
      if (!isAdmitted(await run(id))) throw new Error(`"${name}" refused a good key`)
    }
  }
}

/** A warm check, asked as a verification asks it. */
async function createCheck(name, limits) {
  const request = await requestOf(limits)
  const requestFor = (id, fresh) => ({ ...request, lineageId: `${name}_${id}`, keyId: id, fresh })
  // Only the first check, which follows a read of the record, may say which version is the latest.
  for (const id of ids) await rateLimiter.check(requestFor(id, true))
  return (id) => rateLimiter.check(requestFor(id, false))
}

/** What a verification asks of a limiter. */
async function requestOf(rateLimits) {
  let asked
  const counting = memoryRateLimiter()
  const check = (request) => {
    asked = request
    return counting.check(request)
  }
  const { keys, key } = await createKeys({ rateLimits, rateLimiter: { ...counting, check } })
  await keys.verify(key)
  await keys.close()
  return asked
}

function createFlexible(keyPrefix, duration) {
  return new RateLimiterRedis({ storeClient: redis, keyPrefix, points: 1_000_000_000, duration })
}
