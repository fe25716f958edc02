import {
  type ApiKeys,
  type Clock,
  createApiKeys,
  isLatchkeyError,
  type KeyStore,
  memoryStore,
  type Quota,
  type QuotaRecord,
  type QuotaSwapResult,
  type RateLimiter,
  type VerifiedKey,
} from 'latchkey'
import type { LimitRequest } from '../../lib/core/limits/rate-limiter.ts'
import type { RefusedKey } from '../../lib/core/verify/verify-result.ts'
import { type FakeClock, fakeClock, settle } from './fake-clock.ts'
import { createRandom, type Random } from './random.ts'

/** How often what happened: a simulation in which nothing happens proves nothing. */
export type QuotaTally = Record<string, number>

/**
 * Several processes spend one quota, each through the real code, while swaps and their replies are delayed or lost, limiters
 * refuse and fail, processes crash or end cleanly, and the quota is set, refilled, removed and refunded. The seed decides all of it.
 *
 * Books are kept for every process: what it has leased, less what it has given back. At every moment:
 *
 * - No process has spent more than it has leased. So no unit is spent twice, and none comes from nothing.
 * - No refill is made early, or twice.
 * - Nobody is refused, and told to try again soon, while the store had enough units for as long as the call lasted; and nobody is
 *   refused at all while it had them for a lease time before that.
 *
 * And when all has come to rest: a process that lost no reply and did not crash holds nothing. What the others have lost is
 * at most what they held, and what they moved by swaps whose outcome they never learned. One whose store fails while it ends may
 * lose what it holds.
 *
 * @throws Error with the seed and the story of the first simulation in which something else happens.
 */
export async function simulateQuota(runs: number, firstSeed: number): Promise<QuotaTally> {
  const tally: QuotaTally = {}
  for (let seed = firstSeed; seed < firstSeed + runs; seed++) {
    const world = createWorld(seed, tally)
    try {
      await run(world)
    } catch (error) {
      const { message } = error as Error
      throw new Error(
        `QUOTA_SIMULATION_SEED=${seed} QUOTA_SIMULATION_RUNS=1: ${message}\n${world.story.join('\n')}`,
      )
    }
  }
  return tally
}

const LEASE_MS = 1_000
const TIMEOUT_MS = 400
/** Longer than a call can last that waits for the store, looks at it, and waits for the limiter. */
const CALL_MS = 10 * TIMEOUT_MS

interface World {
  readonly random: Random
  readonly clock: FakeClock
  readonly store: KeyStore
  /** Chances, in parts of 1: calm worlds have none. */
  readonly faults: { readonly swap: number; readonly limiter: number; readonly find: number }
  readonly hasResets: boolean
  readonly maxAgeMs: number
  readonly blockSize: number
  readonly hosts: Host[]
  readonly gone: Host[]
  readonly calls: Set<Call>
  /** What the store had of the quota, and since when; the latest last. */
  readonly past: { readonly at: number; readonly remaining: number }[]
  keyId: string
  key: string
  refills: number
  readonly tally: QuotaTally
  readonly story: string[]
  isFaulty: boolean
  readonly breaches: string[]
  say(text: string): void
  breach(text: string): void
  count(what: string): void
}

/** One process. */
interface Host {
  readonly name: string
  readonly keys: ApiKeys
  /** By epoch, units it took from the store, less those it gave back. */
  readonly leased: Map<number, number>
  /** Units that calls have spent which began when it knew of this epoch, less those refunded. */
  readonly spent: Map<number, number>
  /** The latest epoch of which it has leased. */
  epoch: number
  /** The most that it may have lost. */
  mayLose: number
  hasCrashed: boolean
  hasEnded: boolean
  readonly admitted: { readonly result: VerifiedKey; readonly cost: number; readonly epoch: number }[]
}

interface Call {
  readonly startedAt: number
  readonly cost: number
  /** The fewest units that the store had since the call began. */
  fewest: number
}

function createWorld(seed: number, tally: QuotaTally): World {
  const random = createRandom(seed)
  const clock = fakeClock()
  const startedAt = clock.now()
  const isCalm = random.chance(0.3)
  const story: string[] = []
  const breaches: string[] = []
  return {
    random,
    clock,
    store: memoryStore(),
    faults: isCalm
      ? { swap: 0, limiter: 0, find: 0 }
      : {
          swap: random.of([0, 0.1, 0.4]),
          limiter: random.of([0, 0.1, 0.4]),
          find: random.of([0, 0, 0.1]),
        },
    hasResets: random.chance(0.4),
    maxAgeMs: random.of([0, 300, 1_000, 5_000]),
    blockSize: random.of([0, 3, 1_000]),
    hosts: [],
    gone: [],
    calls: new Set(),
    past: [],
    keyId: '',
    key: '',
    refills: 0,
    tally,
    story,
    isFaulty: !isCalm,
    breaches,
    say: (text) => void story.push(`+${clock.now() - startedAt} ms ${text}`),
    breach(text) {
      story.push(`BREACH: ${text}`)
      breaches.push(text)
    },
    count(what) {
      tally[what] = (tally[what] ?? 0) + 1
    },
  }
}

async function run(world: World): Promise<void> {
  const { random, clock } = world
  const first = startHost(world, 'p1')
  const issued = await first.keys.issue({
    owner: { type: 'user', id: 'u_1' },
    name: 'paid',
    quota: randomQuota(random),
  })
  world.key = issued.key
  world.keyId = issued.apiKey.id
  await noteState(world)
  for (const name of ['p2', 'p3'].slice(random.below(3))) startHost(world, name)
  const steps = 40 + random.below(80)
  for (let step = 0; step < steps; step++) {
    takeStep(world)
    await clock.advance(random.of([0, 0, 1, 5, 20, 60, 200, 700, LEASE_MS]))
    checkBreaches(world)
  }
  await comeToRest(world)
  checkBreaches(world)
}

function checkBreaches({ breaches: [first] }: World): void {
  if (first) throw new Error(first)
}

function randomQuota(random: Random): Quota {
  const refill = random.chance(0.4) ? { amount: 1 + random.below(40), everyMs: 3_000 } : null
  return { remaining: random.below(random.of([4, 30, 300])), refill }
}

function takeStep(world: World): void {
  const { random, hosts, hasResets } = world
  const host = random.of(hosts)
  const dice = random.below(100)
  if (dice < 70) for (let i = random.of([1, 1, 2, 8, 25]); i > 0; i--) verify(world, host)
  else if (dice < 76) refund(world, host)
  else if (dice < 80 && world.isFaulty) crash(world, host)
  else if (dice < 85) end(world, host)
  else if (dice < 90 && hasResets) change(world, host)
}

// What calls see

function verify(world: World, host: Host): void {
  const cost = world.random.of([0, 1, 1, 1, 1, 2, 5])
  const { epoch } = host
  const call: Call = { startedAt: world.clock.now(), cost, fewest: remainingNow(world) }
  world.calls.add(call)
  host.keys.verify(world.key, { cost }).then(
    (result) => {
      world.calls.delete(call)
      if (host.hasCrashed) return
      world.count(result.ok ? 'admitted' : result.code)
      world.say(`${host.name} cost ${cost}: ${result.ok ? 'admitted' : result.code}`)
      if (result.ok) {
        // A key whose quota was removed spends none.
        const quota = result.limits.find(({ type }) => type === 'quota')
        if (!quota || cost === 0) return
        spend(world, host, cost, epoch)
        host.admitted.push({ result, cost, epoch })
      } else if (result.code === 'quota_exceeded') judgeRefusal(world, host, call, result)
      else if (result.code !== 'rate_limited') world.breach(`${host.name} was refused as ${result.code}`)
    },
    (error) => {
      world.calls.delete(call)
      if (host.hasCrashed) return
      world.count('unavailable')
      world.say(`${host.name} cost ${cost}: ${error}`)
      const mayFail = world.faults.swap + world.faults.limiter + world.faults.find > 0 || host.hasEnded
      if (!mayFail || !isLatchkeyError(error)) world.breach(`${host.name} failed with ${error}`)
    },
  )
}

/** What it spends once it knows of an epoch it has leased of that, or of a later one. */
function spend(world: World, host: Host, units: number, epoch: number): void {
  add(host.spent, epoch, units)
  for (const since of host.leased.keys()) {
    const [spent, leased] = [sumSince(host.spent, since), sumSince(host.leased, since)]
    if (spent > leased)
      world.breach(`${host.name} spent ${spent} and leased ${leased}: units came from nothing`)
  }
}

function add(units: Map<number, number>, epoch: number, count: number): void {
  units.set(epoch, (units.get(epoch) ?? 0) + count)
}

function sumSince(units: ReadonlyMap<number, number>, epoch: number): number {
  return [...units].reduce((sum, [one, count]) => (one >= epoch ? sum + count : sum), 0)
}

function judgeRefusal(
  world: World,
  host: Host,
  { cost, fewest, startedAt }: Call,
  { retryAfterMs, limits }: Extract<RefusedKey, { limits: unknown }>,
): void {
  const now = world.clock.now()
  if (now - startedAt > CALL_MS) world.breach(`a call of ${host.name} lasted too long`)
  world.count(retryAfterMs === null ? 'told that it is over' : 'told to try again')
  // A refill may be due after just as long, and came nearer while the limiter was asked.
  const sinceRefusal = limits.map(({ resetMs }) => LEASE_MS - (resetMs ?? Infinity))
  const isToRefill = sinceRefusal.some((ms) => ms >= 0 && ms <= now - startedAt)
  if (retryAfterMs === LEASE_MS && !isToRefill && fewest >= cost) {
    world.breach(`${host.name} was refused ${cost} though the store had ${fewest}`)
  }
  const states = world.past.filter((_state, i) => (world.past[i + 1]?.at ?? now) >= startedAt - LEASE_MS)
  const fewestLately = Math.min(fewest, ...states.map(({ remaining }) => remaining))
  if (fewestLately >= cost) {
    world.breach(`${host.name} was refused ${cost} though the store had ${fewestLately} for a lease time`)
  }
}

function refund(world: World, host: Host): void {
  const one = host.admitted.shift()
  if (!one || host.hasEnded) return
  world.count('refund')
  host.keys.refund(one.result).then(
    (isRefunded) => {
      if (isRefunded && !host.hasCrashed) add(host.spent, one.epoch, -one.cost)
    },
    () => {},
  )
}

// What becomes of processes

function crash(world: World, host: Host): void {
  world.count('crash')
  world.say(`${host.name} CRASHES`)
  host.hasCrashed = true
  host.mayLose = Infinity
  replace(world, host)
}

function end(world: World, host: Host): void {
  world.count('clean end')
  world.say(`${host.name} ends`)
  host.hasEnded = true
  void host.keys.close().then(() => world.say(`${host.name} has ended`))
  replace(world, host)
}

function replace(world: World, host: Host): void {
  world.hosts.splice(world.hosts.indexOf(host), 1)
  world.gone.push(host)
  startHost(world, `${host.name.split('.')[0]}.${world.gone.length}`)
}

function change(world: World, host: Host): void {
  const quota = world.random.chance(0.2) ? null : randomQuota(world.random)
  world.say(`${host.name} sets ${JSON.stringify(quota)}`)
  world.count('set')
  host.keys.update(world.keyId, { quota }).then(
    () => {},
    () => {},
  )
}

function startHost(world: World, name: string): Host {
  const { clock } = world
  const host: Host = {
    name,
    keys: undefined as never,
    leased: new Map(),
    spent: new Map(),
    epoch: 0,
    mayLose: 0,
    hasCrashed: false,
    hasEnded: false,
    admitted: [],
  }
  const ownClock: Clock = {
    now: clock.now,
    setTimer: (run, delayMs, options) =>
      clock.setTimer(() => void (host.hasCrashed || run()), delayMs, options),
  }
  const keys = createApiKeys({
    prefix: 'acme_test',
    store: reachStore(world, host),
    rateLimiter: limiterOf(world),
    quotaBlockSize: world.blockSize,
    quotaLeaseMs: LEASE_MS,
    cache: world.maxAgeMs > 0 && { maxAgeMs: world.maxAgeMs },
    timeoutMs: TIMEOUT_MS,
    clock: ownClock,
    onEvent() {},
  })
  world.hosts.push(host)
  return Object.assign(host, { keys })
}

// What is reached by way of a network

function limiterOf(world: World): RateLimiter {
  const answer = ({ limits }: LimitRequest) => ({
    outcome: 'admitted' as const,
    limits: limits.map(() => undefined as never),
    chargedAt: null,
  })
  return {
    check(request) {
      const { random, faults } = world
      if (random.chance(0.5)) return answer(request)
      return delayed(world, random.below(300)).then(() => {
        if (random.chance(faults.limiter)) throw new Error('the limiter is away')
        if (random.chance(faults.limiter)) return new Promise<never>(() => {})
        if (request.cost > 0 && random.chance(0.2)) return { outcome: 'limited', limits: [], retryAfterMs: 1 }
        return answer(request)
      })
    },
    raiseVersions() {},
  }
}

function reachStore(world: World, host: Host): KeyStore {
  const { store } = world
  return {
    ...store,
    async find(by) {
      await delayed(world, world.random.below(20))
      if (world.isFaulty && world.random.chance(world.faults.find)) throw new Error('the store is away')
      const found = await store.find(by)
      await delayed(world, world.random.below(20))
      return found
    },
    async update(id, expectedVersion, change) {
      await delayed(world, world.random.below(20))
      const outcome = await store.update(id, expectedVersion, change)
      // Units that any process holds of the quota before are worth nothing from now on.
      if (outcome === 'updated' && change.quota !== undefined) mayLoseAll(world)
      await noteState(world)
      return outcome
    },
    swapQuota: (lineageId, expected, next) => swap(world, host, lineageId, expected, next),
  }
}

async function swap(
  world: World,
  host: Host,
  lineageId: string,
  expected: QuotaRecord,
  next: QuotaRecord,
): Promise<QuotaSwapResult> {
  const { random, faults } = world
  const fails = () => world.isFaulty && random.chance(faults.swap)
  const units = netOf(expected, next)
  await delayed(world, random.below(50))
  if (fails()) {
    world.count('swap lost')
    world.say(`${host.name} loses a swap`)
    // It cannot tell this from a reply that was lost.
    noteUnknown(host, units)
    if (random.chance(0.5)) throw new Error('the connection was refused')
    // It may still arrive, long after its sender has given up.
    await delayed(world, random.of([100, TIMEOUT_MS, 3 * TIMEOUT_MS, Infinity]))
  }
  const result = (await world.store.swapQuota?.(lineageId, expected, next)) as QuotaSwapResult
  if (result.swapped) {
    add(host.leased, next.epoch, units)
    if (next.epoch !== expected.epoch) noteRefill(world, expected, next)
    await noteState(world)
    world.say(`${host.name} moves ${units}: ${next.allotted} allotted, ${next.remaining} remain`)
    if (!host.hasCrashed) world.count(units > 0 ? 'leased' : 'given back')
  }
  if (fails()) {
    world.count('reply lost')
    world.say(`${host.name} does not hear of it`)
    noteUnknown(host, units)
    if (random.chance(0.5)) throw new Error('the connection was reset')
    await delayed(world, random.of([TIMEOUT_MS, 3 * TIMEOUT_MS, Infinity]))
  }
  await delayed(world, random.below(50))
  if (result.swapped) host.epoch = Math.max(host.epoch, next.epoch)
  return result
}

/** What was moved may be lost; and where the process is about to end, what it still holds. */
function noteUnknown(host: Host, units: number): void {
  host.mayLose += host.hasEnded ? Infinity : Math.abs(units)
}

/** Units that leave the store. */
function netOf(expected: QuotaRecord, next: QuotaRecord): number {
  return (next.epoch === expected.epoch ? expected.remaining : (next.refill?.amount ?? 0)) - next.remaining
}

function noteRefill(world: World, before: QuotaRecord, { epoch, nextRefillAt }: QuotaRecord): void {
  world.count('refill')
  const now = world.clock.now()
  if (epoch !== before.epoch + 1 || !before.nextRefillAt || before.nextRefillAt.getTime() > now) {
    world.breach('a refill came early')
    return
  }
  // A swap may arrive late: the next refill can be due by then, and is another one.
  if (!nextRefillAt || nextRefillAt <= before.nextRefillAt) world.breach('a refill may come twice')
  // What processes hold of the epoch before is worth nothing.
  mayLoseAll(world)
}

function mayLoseAll({ hosts, gone }: World): void {
  for (const one of [...hosts, ...gone]) one.mayLose = Infinity
}

async function noteState(world: World): Promise<void> {
  const record = await world.store.find({ id: world.keyId })
  const remaining = record?.quota?.remaining ?? Infinity
  world.past.push({ at: world.clock.now(), remaining })
  for (const call of world.calls) call.fewest = Math.min(call.fewest, remaining)
}

function remainingNow({ past }: World): number {
  return past.at(-1)?.remaining ?? 0
}

function delayed({ clock }: World, ms: number): Promise<void> {
  if (ms === 0) return Promise.resolve()
  return new Promise((resolve) => {
    if (ms < Infinity) clock.setTimer(resolve, ms)
  })
}

// The end

async function comeToRest(world: World): Promise<void> {
  const { clock, hosts } = world
  const wasFaulty = world.isFaulty
  world.isFaulty = false
  world.say('no more faults')
  for (let i = 0; i < 20; i++) await clock.advance(LEASE_MS)
  for (const host of hosts) {
    const held = sumSince(host.leased, 0) - sumSince(host.spent, 0)
    if (held > host.mayLose)
      world.breach(`${host.name} holds ${held} that nobody has used for many lease times`)
  }
  for (const host of [...hosts]) end(world, host)
  for (let i = 0; i < 10; i++) await clock.advance(LEASE_MS)
  await settle()
  for (const host of world.gone) {
    const lost = sumSince(host.leased, 0) - sumSince(host.spent, 0)
    if (lost > 0) world.count('lost some')
    if (!wasFaulty && host.mayLose === 0) world.count('lost none')
    if (lost <= host.mayLose) continue
    world.breach(`${host.name} lost ${lost}, and may lose ${host.mayLose}`)
  }
}
