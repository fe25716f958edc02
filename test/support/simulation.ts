import { AsyncLocalStorage } from 'node:async_hooks'
import { isDeepStrictEqual } from 'node:util'
import {
  type ApiKey,
  type ApiKeys,
  type Clock,
  createApiKeys,
  type Invalidation,
  type InvalidationListener,
  isLatchkeyError,
  type KeyRecord,
  type KeyStore,
  type MemoryRateLimiter,
  memoryRateLimiter,
  memoryStore,
  type Owner,
  type Quota,
  type QuotaRecord,
  type RateLimit,
  type RateLimiter,
  type VerifyResult,
} from 'latchkey'
import type { LimitAnswer, LimitRequest } from '../../lib/core/limits/rate-limiter.ts'
import { type FakeClock, fakeClock, settle } from './fake-clock.ts'
import { createRandom, type Random } from './random.ts'

/** How often what happened: a simulation in which nothing happens proves nothing. */
export type Tally = Record<string, number>

/**
 * Several processes over one store and one limiter, which they reach by messages that arrive late, in any order, or
 * never, while keys are verified and changed, processes crash, and the limiter is cut off or loses its data. The seed
 * decides all of it, one seed after the other. What decides is the real code; `memoryRateLimiter()` stands for Redis, and
 * is reached as `redisRateLimiter()` reaches Redis.
 *
 * It asserts two promises, and what they rest on:
 *
 * - Once a change has resolved, no verification that starts afterwards is admitted by an older version of the key. The
 *   exceptions are a call that the limiter did not answer, and one after the limiter lost its data: there, a call that
 *   starts so late after the commit that no cache may hold the older version.
 * - A call is charged once if it is admitted, and never if it is refused. No limiter admits more in one window than the
 *   limit, and all of them together admit no more units than the quota had.
 *
 * @throws Error with the seed and the story of the first simulation in which something else happens.
 */
export async function simulate(runs: number, firstSeed: number): Promise<Tally> {
  const tally: Tally = {}
  const unhandled: unknown[] = []
  const note = (error: unknown) => void unhandled.push(error)
  process.on('unhandledRejection', note)
  try {
    for (let seed = firstSeed; seed < firstSeed + runs; seed++) await simulateOne(seed, tally, unhandled)
  } finally {
    process.off('unhandledRejection', note)
  }
  return tally
}

async function simulateOne(seed: number, tally: Tally, unhandled: readonly unknown[]): Promise<void> {
  const world = createWorld(seed, tally)
  const checkSoFar = () => {
    for (const error of unhandled) world.breach(`nobody handled ${error}`)
    const [breach] = world.breaches
    if (breach) throw new Error(breach)
  }
  try {
    await issueKeys(world)
    const steps = 60 + world.random.below(61)
    while (world.step < steps) {
      world.step += 1
      await pick(world.random, world.steps).take(world)
      await settle()
      checkSoFar()
    }
    await comeToRest(world)
    await judgeTheEnd(world)
    checkSoFar()
  } catch (error) {
    const { message } = error as Error
    throw new Error(`SIMULATION_SEED=${seed} SIMULATION_RUNS=1: ${message}\n${world.story.join('\n')}`)
  }
}

// The world

interface World {
  readonly random: Random
  readonly clock: FakeClock
  /** Nothing fails here, and no time passes while anything is under way: everything has to come out exactly. */
  readonly isCalm: boolean
  /** Whether keys without limits and quota are admitted without asking the limiter. */
  readonly isBounded: boolean
  readonly asksForOwner: boolean
  readonly hasInvalidation: boolean
  /** How old a record may be that a process holds. */
  readonly maxAgeMs: number
  readonly rateLimits: readonly RateLimit[]
  /** What may happen. Where each thing is now rare and now frequent, more of them meet. */
  readonly steps: readonly Step[]
  readonly changes: readonly Change[]
  readonly pacesMs: readonly number[]
  readonly store: Archive
  /** What answers at the limiter's address now. */
  limiter: MemoryRateLimiter
  /** The step in which the limiter lost its data last. */
  lostAt: number
  readonly messages: Message[]
  /** Whether messages arrive at once. */
  isFlowing: boolean
  readonly hosts: Host[]
  readonly owners: readonly OwnerState[]
  readonly keys: SimulatedKey[]
  /** By the id of a key: what changes have made known. */
  readonly ends: Map<string, End[]>
  readonly tasks: Task[]
  /** By lineage: what was admitted and had a quota to spend. */
  readonly admittedUnits: Map<string, number>
  step: number
  readonly story: string[]
  readonly breaches: string[]
  say(text: string): void
  breach(text: string): void
  count(what: string): void
}

/** One process. */
interface Host {
  readonly name: string
  readonly keys: ApiKeys
  readonly clock: Clock
  /** How it reaches the limiter. */
  link: 'up' | 'refuses' | 'hangs'
  hasCrashed: boolean
  listener: InvalidationListener | null
}

/** On its way to the store, the limiter, the application or another process, or back. */
interface Message {
  readonly text: string
  readonly task: Task | undefined
  /** Whether all others go before it as a rule. */
  readonly isSlow: boolean
  arrive(): Promise<void> | void
}

/** A verification or a change. */
interface Task {
  readonly kind: 'verify' | 'change'
  readonly text: string
  readonly host: Host
  readonly startedAt: number
  readonly step: number
  isOver: boolean
  readonly answers: Answer[]
  /** What the store committed for it. */
  readonly commits: { readonly id: string; readonly version: number }[]
}

/** What a limiter answered. */
interface Answer {
  readonly request: LimitRequest
  readonly outcome: LimitAnswer['outcome']
  /** Whether the process answered itself, in place of the limiter. */
  readonly isLocal: boolean
  readonly step: number
}

interface SimulatedKey {
  readonly name: string
  readonly id: string
  readonly text: string
  readonly lineageId: string
  readonly owner: OwnerState
}

interface OwnerState {
  readonly owner: Owner
  isActive: boolean
  /** Rises with every time the owner is suspended or comes back. */
  turn: number
  /** The latest turn that `invalidateOwner` has made known. */
  knownTurn: number
  isRevoked: boolean
}

/** A version below which nothing may be admitted any more, and the process that made it known. */
interface End {
  readonly version: number
  readonly host: Host | null
}

/** Which task a call belongs to, however many promises later. */
const taskOf = new AsyncLocalStorage<Task>()

/** As `redisRateLimiter()` has them. */
const CHECK_MS = 100
const CHANGE_MS = 1_000
const TIMEOUT_MS = 5_000
const BLOCK_SIZE = 3
const PACES_MS = [20, 50, 99, 100, 101, 400, 900, 1_000, 1_500, 2_500, 4_000, 5_000, 6_000, 10_000]
const [HOME, ABROAD] = ['10.0.0.1', '10.0.0.2'] as const
const LIMITS: readonly (readonly RateLimit[])[] = [
  [],
  [{ name: 'ten', limit: 3, windowMs: 10_000 }],
  [{ name: 'ten', limit: 5, windowMs: 10_000 }],
  [
    { name: 'ten', limit: 3, windowMs: 10_000 },
    { name: 'one', limit: 2, windowMs: 1_000 },
  ],
]

function createWorld(seed: number, tally: Tally): World {
  const random = createRandom(seed)
  const clock = fakeClock()
  const startedAt = clock.now()
  const isCalm = random.chance(0.15)
  const isBounded = random.chance(0.2)
  const world: World = {
    random,
    clock,
    isCalm,
    isBounded,
    asksForOwner: random.chance(0.5),
    hasInvalidation: random.chance(isBounded ? 0.3 : 0.1),
    maxAgeMs: random.of([0, 200, 1_000, 5_000, 5_000]),
    rateLimits: isBounded ? [] : random.of(LIMITS),
    steps: mix(random, isCalm ? CALM_STEPS : STEPS, [1, 3, 3, 9]),
    changes: mix(random, CHANGES, [0, 1, 3, 9]),
    pacesMs: [1, random.of(PACES_MS), random.of(PACES_MS), random.of(PACES_MS)],
    store: createArchive(() => world),
    limiter: undefined as never,
    lostAt: -1,
    messages: [],
    isFlowing: true,
    hosts: [],
    owners: ['alice', 'bob'].map(createOwner),
    keys: [],
    ends: new Map(),
    tasks: [],
    admittedUnits: new Map(),
    step: 0,
    story: [],
    breaches: [],
    say: (text) => void world.story.push(`${world.step}. +${clock.now() - startedAt} ms ${text}`),
    breach(text) {
      world.say(`BREACH: ${text}`)
      world.breaches.push(text)
    },
    count(what) {
      tally[what] = (tally[what] ?? 0) + 1
    },
  }
  world.limiter = auditedLimiter(world)
  return world
}

function createOwner(id: string): OwnerState {
  return { owner: { type: 'user', id }, isActive: true, turn: 0, knownTurn: 0, isRevoked: false }
}

/** Begins with one key or two that most processes know already: where there are few, more meets on each. */
async function issueKeys(world: World): Promise<void> {
  const { random, hosts, keys } = world
  for (const name of random.chance(0.3) ? ['p1', 'p2', 'p3'] : ['p1', 'p2'])
    hosts.push(startHost(world, name))
  for (const name of random.chance(0.6) ? ['k1'] : ['k1', 'k2']) {
    await passMoment(world)
    const owner = random.of(world.owners)
    const { key, apiKey } = await random.of(hosts).keys.issue({
      owner: owner.owner,
      name,
      rateLimits: random.chance(0.6) ? null : random.of(LIMITS),
      quota: random.chance(world.isBounded ? 0.1 : 0.4) ? randomQuota(random) : null,
    })
    keys.push({ name, id: apiKey.id, text: key, lineageId: apiKey.lineageId, owner })
    for (const host of hosts) if (random.chance(0.7)) await host.keys.verify(key, { cost: 0, ip: HOME })
  }
  world.isFlowing = false
}

/** A listing goes by time and then by id, which is random: no two keys may begin at the same moment. */
async function passMoment(world: World): Promise<void> {
  await world.clock.advance(1)
}

function randomQuota(random: Random): Quota {
  const refill = random.chance(0.3) ? { amount: 1 + random.below(6), everyMs: 10_000 } : null
  return { remaining: random.below(12), refill }
}

function startHost(world: World, name: string): Host {
  const { clock, maxAgeMs } = world
  const host: Host = {
    name,
    keys: undefined as never,
    clock: {
      now: clock.now,
      setTimer: (run, delayMs) => clock.setTimer(() => void (host.hasCrashed || run()), delayMs),
    },
    link: 'up',
    hasCrashed: false,
    listener: null,
  }
  const keys = createApiKeys({
    prefix: 'acme_test',
    store: reachStore(world, host),
    rateLimiter: reachLimiter(world, host),
    ...(world.hasInvalidation && { invalidation: reachOthers(world, host) }),
    revocation: world.isBounded ? 'bounded' : 'exact',
    rateLimits: world.rateLimits,
    ...(world.asksForOwner && {
      isOwnerActive: ({ id }) => send(world, host, `is ${id} active`, () => isActive(world, id)),
    }),
    ownerMaxAgeMs: maxAgeMs || false,
    quotaBlockSize: BLOCK_SIZE,
    cache: maxAgeMs > 0 && { maxEntries: 20, maxAgeMs, negativeMaxEntries: 10 },
    timeoutMs: TIMEOUT_MS,
    clock: host.clock,
    onEvent() {},
  })
  return Object.assign(host, { keys })
}

function isActive(world: World, ownerId: string): boolean {
  return world.owners.some(({ owner, isActive }) => owner.id === ownerId && isActive)
}

// What may happen

interface Step {
  readonly weight: number
  take(world: World): Promise<void> | void
}

const CALM_STEPS: readonly Step[] = [
  { weight: 40, take: deliver },
  { weight: 14, take: hurry },
  { weight: 16, take: startVerification },
  { weight: 10, take: startChange },
  { weight: 6, take: passTime },
]

const STEPS: readonly Step[] = [
  ...CALM_STEPS,
  { weight: 2, take: loseMessage },
  { weight: 1, take: crash },
  { weight: 1, take: loseLimiter },
  { weight: 2, take: cutOff },
  { weight: 2, take: heal },
]

async function deliver(world: World): Promise<void> {
  const { messages, random } = world
  if (messages.length === 0) return
  const quick = messages.filter(({ isSlow }) => !isSlow)
  await arrive(world, random.of(quick.length > 0 && random.chance(0.95) ? quick : messages))
}

/** Carries one task as far as it quickly gets, while all others wait. */
async function hurry(world: World): Promise<void> {
  const { messages, random } = world
  if (messages.length === 0) return
  const { task } = random.of(messages)
  for (let i = 0; i < 40; i++) {
    const message = messages.find((one) => one.task === task && !one.isSlow)
    if (!message) return
    await arrive(world, message)
  }
}

async function arrive(world: World, message: Message): Promise<void> {
  take(world, message)
  world.say(message.text)
  await message.arrive()
  await settle()
}

function take(world: World, message: Message): void {
  world.messages.splice(world.messages.indexOf(message), 1)
}

function startVerification(world: World): void {
  const { random } = world
  if (countUnderWay(world, 'verify') >= 6) return
  const key = random.of(world.keys)
  const host = random.of(world.hosts)
  const ip = random.of([HOME, HOME, ABROAD])
  const cost = random.of([0, 1, 1, 1, 2])
  const ends = [...(world.ends.get(key.id) ?? [])]
  const { isActive, turn, knownTurn } = key.owner
  const isSuspended = !isActive && turn === knownTurn
  const task = startTask(
    world,
    host,
    'verify',
    `verify ${key.name} from ${ip} at cost ${cost}`,
    () => host.keys.verify(key.text, { ip, cost }),
    (result) => {
      world.count(result.ok ? 'admitted' : reasonOf(result))
      judgeCharge(world, task, cost, result)
      if (!result.ok) return judgeRefusal(world, key, ip, result)
      judgeAdmission(world, task, result.apiKey, ip, ends)
      const isOld = ends.some((end) => result.apiKey.version < end.version)
      if (isSuspended && key.owner.turn === turn && !isOld) {
        world.breach(`${task.text} was admitted though its owner was suspended`)
      }
      return undefined
    },
    () => {
      judgeCharge(world, task, cost, null)
      // Changes may overtake a reading more often than it is tried again.
      const isOvertaken = world.store.versionsOf(key.id).length > 2
      if (world.isCalm && !isOvertaken) world.breach(`${task.text} failed though nothing else did`)
    },
  )
}

async function startChange(world: World): Promise<void> {
  const { random, changes, hosts, keys } = world
  if (countUnderWay(world, 'change') >= 4) return
  await passMoment(world)
  pick(random, changes).start(world, random.of(hosts), random.of(keys))
}

async function passTime(world: World): Promise<void> {
  const { messages, random, clock, pacesMs, isCalm } = world
  // Otherwise most of what is long under way would only time out; and where nothing may fail nothing may.
  while (messages.some(({ isSlow }) => isCalm || !isSlow) && (isCalm || random.chance(0.9)))
    await deliver(world)
  world.say('time passes')
  await clock.advance(random.of(pacesMs))
}

function loseMessage(world: World): void {
  if (world.messages.length === 0) return
  const message = world.random.of(world.messages)
  take(world, message)
  world.count('message lost')
  world.say(`LOST: ${message.text}`)
}

/** What the process was about is never heard of again; what it has sent still arrives. */
function crash(world: World): void {
  const host = world.random.of(world.hosts)
  world.count('crash')
  world.say(`${host.name} CRASHES`)
  host.hasCrashed = true
  for (const task of world.tasks) task.isOver ||= task.host === host
  world.hosts[world.hosts.indexOf(host)] = startHost(world, `${host.name}'`)
}

function loseLimiter(world: World): void {
  world.count('limiter lost')
  world.say('the limiter LOSES ITS DATA')
  world.limiter = auditedLimiter(world)
  world.lostAt = world.step
}

function cutOff(world: World): void {
  const host = world.random.of(world.hosts)
  host.link = world.random.of(['refuses', 'hangs'])
  world.count('cut off')
  world.say(`${host.name} is CUT OFF from the limiter, which ${host.link}`)
}

function heal(world: World): void {
  const host = world.hosts.find(({ link }) => link !== 'up')
  if (!host) return
  host.link = 'up'
  world.say(`${host.name} is no longer cut off`)
}

function countUnderWay(world: World, kind: Task['kind']): number {
  return world.tasks.filter((task) => !task.isOver && task.kind === kind).length
}

// Changes

interface Change {
  readonly weight: number
  start(world: World, host: Host, key: SimulatedKey): void
}

const CHANGES: readonly Change[] = [
  changeOf(
    3,
    'revoke',
    (keys, id) => keys.revoke(id),
    ({ revokedAt }) => revokedAt !== null,
  ),
  changeOf(
    3,
    'disable',
    (keys, id) => keys.disable(id),
    ({ enabled }) => !enabled,
  ),
  changeOf(
    3,
    'enable',
    (keys, id) => keys.enable(id),
    ({ enabled }) => enabled,
  ),
  changeOf(3, 'allow only home', (keys, id) => keys.update(id, { allowedIps: [HOME] })),
  changeOf(1, 'allow all', (keys, id) => keys.update(id, { allowedIps: null })),
  changeOf(2, 'limit', (keys, id, random) => keys.update(id, { rateLimits: random.of(LIMITS) })),
  changeOf(3, 'set quota', (keys, id, random) => keys.update(id, { quota: randomQuota(random) })),
  changeOf(1, 'remove quota', (keys, id) => keys.update(id, { quota: null })),
  { weight: 3, start: rotate },
  { weight: 3, start: revokeOwner },
  { weight: 3, start: suspendOwner },
  { weight: 3, start: resumeOwner },
]

function changeOf(
  weight: number,
  text: string,
  change: (keys: ApiKeys, id: string, random: Random) => Promise<ApiKey>,
  isDone: (record: KeyRecord) => boolean = () => true,
): Change {
  return {
    weight,
    start(world, host, key) {
      const task = startTask(
        world,
        host,
        'change',
        `${text} ${key.name}`,
        () => change(host.keys, key.id, world.random),
        ({ id, version }) => {
          endOlder(world, host, [...task.commits, { id, version }])
          const committed = world.store.versionsOf(id)[version - 1]
          const isNewer = version >= world.store.versionsOf(id).filter(({ step }) => step < task.step).length
          if (!committed || !isNewer || !isDone(committed.record)) world.breach(`${task.text} was not done`)
          if (text.endsWith('quota') && committed) judgeRelatives(world, task, key, committed)
        },
      )
    },
  }
}

function rotate(world: World, host: Host, key: SimulatedKey): void {
  const graceMs = world.random.of([0, 0, 3_000])
  const task = startTask(
    world,
    host,
    'change',
    `rotate ${key.name} with ${graceMs} ms of grace`,
    () => host.keys.rotate(key.id, { graceMs }),
    ({ apiKey, key: text, previous }) => {
      world.keys.push({ ...key, name: `${key.name}+`, id: apiKey.id, text })
      endOlder(world, host, [...task.commits, previous])
      if (key.owner.isRevoked) endRevoked(world, key.owner)
    },
  )
}

function revokeOwner(world: World, host: Host, { owner }: SimulatedKey): void {
  const task = startTask(
    world,
    host,
    'change',
    `revoke ${owner.owner.id}`,
    () => host.keys.revokeOwner(owner.owner),
    () => {
      endOlder(world, host, task.commits)
      owner.isRevoked = true
      endRevoked(world, owner)
    },
  )
}

function suspendOwner(world: World, host: Host, { owner }: SimulatedKey): void {
  if (!world.asksForOwner) return
  owner.isActive = false
  owner.turn += 1
  const { turn } = owner
  const task = startTask(
    world,
    host,
    'change',
    `suspend ${owner.owner.id}`,
    () => host.keys.invalidateOwner(owner.owner),
    () => {
      endOlder(world, host, task.commits)
      owner.knownTurn = Math.max(owner.knownTurn, turn)
      endRevoked(world, owner, task.step)
    },
  )
}

function resumeOwner(world: World, host: Host): void {
  const owner = world.owners.find(({ isActive }) => !isActive)
  if (!owner) return
  owner.isActive = true
  owner.turn += 1
  const text = `resume ${owner.owner.id}`
  startTask(
    world,
    host,
    'change',
    text,
    () => host.keys.invalidateOwner(owner.owner),
    () => {},
  )
}

/** From now on no verification that starts is admitted by an older version of these keys. */
function endOlder(
  world: World,
  host: Host | null,
  changed: readonly { readonly id: string; readonly version: number }[],
): void {
  for (const { id, version } of changed)
    world.ends.set(id, [...(world.ends.get(id) ?? []), { version, host }])
}

/** The owner's keys that were revoked before this step are known to be, whoever did it; without a step, all of them. */
function endRevoked(world: World, owner: OwnerState, before = Infinity): void {
  for (const key of world.keys) {
    if (key.owner !== owner) continue
    const versions = world.store.versionsOf(key.id)
    const revoked = versions.find(({ record, step }) => record.revokedAt && step < before)
    if (revoked) endOlder(world, null, [revoked.record])
    else if (before === Infinity) world.breach(`${key.name} outlived the revocation of its owner`)
  }
}

/** The quota belongs to the lineage: no relative goes on by what it had of the old one. */
function judgeRelatives(world: World, task: Task, key: SimulatedKey, changed: Version): void {
  for (const { id, lineageId, name } of world.keys) {
    const versions = world.store.versionsOf(id)
    if (lineageId !== key.lineageId || versions.at(-1)?.record.revokedAt) continue
    if (!versions.some(({ step }) => step >= changed.step)) world.breach(`${task.text} left out ${name}`)
  }
}

function startTask<T>(
  world: World,
  host: Host,
  kind: Task['kind'],
  text: string,
  work: () => Promise<T>,
  onResult: (result: T) => void,
  onUnavailable: () => void = () => {
    if (world.isCalm) world.breach(`${text} failed though nothing else did`)
  },
): Task {
  const { step } = world
  const task: Task = {
    kind,
    text,
    host,
    startedAt: world.clock.now(),
    step,
    isOver: false,
    answers: [],
    commits: [],
  }
  world.tasks.push(task)
  world.say(`${host.name} ${text}: begins`)
  taskOf.run(task, work).then(
    (result) => {
      task.isOver = true
      world.say(`${host.name} ${text}: ${outcomeText(result)}`)
      if (kind === 'change') world.count('change')
      onResult(result)
    },
    (error) => {
      task.isOver = true
      world.say(`${host.name} ${text}: ${error}`)
      const code = isLatchkeyError(error) ? error.code : 'another error'
      world.count(`${kind}: ${code}`)
      if (code === 'unavailable') onUnavailable()
      else if (kind !== 'change' || code !== 'conflict') world.breach(`${text} failed with ${error}`)
    },
  )
  return task
}

function outcomeText(result: unknown): string {
  const { ok, version, apiKey } = result as Partial<VerifyResult & ApiKey & { apiKey: ApiKey }>
  if (ok === false) return `refused, ${reasonOf(result as VerifyResult & { ok: false })}`
  return `done, version ${version ?? apiKey?.version ?? ''}`
}

function reasonOf(result: VerifyResult & { ok: false }): string {
  return result.code === 'invalid_key' ? result.reason : result.code
}

// The network

/** Carries a call to where `work` is done, and its answer back, each when the scheduler says so. */
function send<T>(world: World, host: Host, text: string, work: () => T | Promise<T>): Promise<T> {
  const call = async () => work()
  if (host.hasCrashed) return new Promise(() => {})
  if (world.isFlowing) return call()
  const task = taskOf.getStore()
  const post = (way: string, arrive: Message['arrive']) => {
    const isSlow = world.random.chance(0.25)
    world.messages.push({ text: `${host.name} ${way} ${text}`, task, isSlow, arrive })
  }
  return new Promise((resolve, reject) => {
    const reply = (answer: () => void) => post('←', () => void (host.hasCrashed || answer()))
    post('→', () =>
      call().then(
        (value) => reply(() => resolve(value)),
        (error) => reply(() => reject(error)),
      ),
    )
  })
}

function reachStore(world: World, host: Host): KeyStore {
  const { store } = world
  const call = <T>(text: string, work: () => Promise<T>) => send(world, host, text, work)
  return {
    insert: (...args) => call('insert', () => store.insert(...args)),
    find: (...args) => call('find', () => store.find(...args)),
    update(id, expectedVersion, change) {
      const version = expectedVersion + 1
      const task = taskOf.getStore()
      return call(`update to version ${version}`, async () => {
        const outcome = await store.update(id, expectedVersion, change)
        if (outcome === 'updated') task?.commits.push({ id, version })
        return outcome
      })
    },
    replaceDigest: (...args) => call('replaceDigest', () => store.replaceDigest(...args)),
    list: (...args) => call('list', () => store.list(...args)),
    purge: (...args) => call('purge', () => store.purge(...args)),
    swapQuota: (...args) => call('swapQuota', () => store.swapQuota(...args)),
  }
}

/** What `redisRateLimiter()` does around the script that decides. */
function reachLimiter(world: World, host: Host): RateLimiter {
  const { clock } = host
  const local = auditedLimiter(world)

  async function check(request: LimitRequest): Promise<LimitAnswer> {
    const task = taskOf.getStore()
    const giveUpAt = clock.now() + CHECK_MS
    judgeQuestion(world, task, request)
    let isLocal = false
    const answer = await ask(
      CHECK_MS,
      `check version ${request.version}${request.fresh ? ', fresh' : ''}`,
      () => {
        if (world.clock.now() > giveUpAt) throw new Error('too late to spend anything')
        return world.limiter.check(request)
      },
    ).catch(() => {
      isLocal = true
      return fallBack(request)
    })
    world.count(isLocal ? 'check: local' : `check: ${answer.outcome}`)
    task?.answers.push({ request, outcome: answer.outcome, isLocal, step: world.step })
    return answer
  }

  /** The policy `local`: nobody says whether a record is the latest. */
  function fallBack(request: LimitRequest): LimitAnswer {
    const answer = local.check({ ...request, fresh: true })
    return answer.outcome === 'admitted' ? { ...answer, chargedAt: null } : answer
  }

  function ask<T>(withinMs: number, text: string, work: () => T): Promise<T> {
    if (host.link === 'refuses') return Promise.reject(new Error('connection refused'))
    return new Promise((resolve, reject) => {
      const cancel = clock.setTimer(() => reject(new Error('no answer in time')), withinMs)
      if (host.link === 'up') send(world, host, text, work).then(resolve, reject).finally(cancel)
    })
  }

  return {
    timeoutMs: CHECK_MS,
    check,
    async raiseVersions(marks, retainMs) {
      local.raiseVersions(marks, retainMs)
      const text = `raise to version ${marks.map(({ version }) => version)}`
      await ask(CHANGE_MS, text, () => world.limiter.raiseVersions(marks, retainMs))
    },
  }
}

function reachOthers(world: World, host: Host): Invalidation {
  const tell = (other: Host, ...args: Parameters<InvalidationListener['changed']>) =>
    send(world, host, `tell ${other.name}`, () => other.hasCrashed || other.listener?.changed(...args))
  return {
    async publish(keys) {
      await Promise.all(world.hosts.filter((other) => other !== host).map((other) => tell(other, keys)))
    },
    listen(listener) {
      host.listener = listener
      return () => {}
    },
  }
}

// The store

/** `memoryStore()`, and all that it ever held. */
interface Archive extends Omit<Required<KeyStore>, 'recordUsage' | 'swapQuotas'> {
  /** Version 1 and all that followed it. */
  versionsOf(id: string): readonly Version[]
  /** With how many units each epoch of the quota began. */
  unitsOf(lineageId: string): ReadonlyMap<number, number>
}

interface Version {
  readonly record: KeyRecord
  readonly committedAt: number
  readonly step: number
}

function createArchive(getWorld: () => World): Archive {
  const { recordUsage: _recordUsage, ...inner } = memoryStore() as Required<KeyStore>
  const versions = new Map<string, Version[]>()
  const units = new Map<string, Map<number, number>>()
  const versionsOf = (id: string) => versions.get(id) ?? []
  const unitsOf = (lineageId: string) => units.get(lineageId) ?? new Map<number, number>()

  async function keep(id: string): Promise<void> {
    const { clock, step } = getWorld()
    const record = (await inner.find({ id })) as KeyRecord
    versions.set(id, [...versionsOf(id), { record, committedAt: clock.now(), step }])
    if (record.quota) noteUnits(record.lineageId, record.quota)
  }

  function noteUnits(lineageId: string, { epoch, remaining, allotted }: QuotaRecord): void {
    const known = unitsOf(lineageId)
    units.set(lineageId, known)
    if (!known.has(epoch)) known.set(epoch, remaining + allotted)
    if (remaining > (known.get(epoch) ?? 0))
      getWorld().breach(`the store has ${remaining} units, more than at first`)
  }

  return {
    ...inner,
    async insert(records) {
      await inner.insert(records)
      for (const { id } of records) await keep(id)
    },
    async update(id, expectedVersion, change) {
      const outcome = await inner.update(id, expectedVersion, change)
      if (outcome === 'updated') await keep(id)
      return outcome
    },
    async swapQuota(lineageId, expected, next) {
      const result = await inner.swapQuota(lineageId, expected, next)
      if (result.swapped) noteUnits(lineageId, next)
      return result
    },
    versionsOf,
    unitsOf,
  }
}

// What must hold

/** `memoryRateLimiter()`, with every answer compared with a plain account of what it was told and has admitted. */
function auditedLimiter(world: World): MemoryRateLimiter {
  const { clock, breach } = world
  const limiter = memoryRateLimiter({ clock })
  const versions = new Map<string, { readonly version: number; readonly keptUntil: number }>()
  const windows = new Map<string, { readonly openedAt: number; used: number }>()

  function check(request: LimitRequest): LimitAnswer {
    const { limits, cost, keyId, version, fresh, retainMs } = request
    const answer = limiter.check(request)
    if (answer.outcome === 'stale') return answer
    if (versions.has(keyId) ? version < keptVersion(keyId) : !fresh) {
      breach(`the limiter took version ${version} and had ${keptVersion(keyId)}`)
    }
    raise(keyId, version, retainMs)
    const meters = limits.map(({ shape, windowMs }) => windowOf(`${request.lineageId} ${shape}`, windowMs))
    const isOver = cost > 0 && limits.some(({ capacity }, i) => (meters[i]?.used ?? 0) + cost > capacity)
    const outcome = isOver ? 'limited' : 'admitted'
    if (outcome === 'admitted') for (const meter of meters) meter.used += cost
    const left = limits.map(({ capacity }, i) => Math.max(0, capacity - (meters[i]?.used ?? 0)))
    const account = [outcome, left]
    const told = [answer.outcome, answer.limits.map(({ remaining }) => remaining)]
    if (!isDeepStrictEqual(told, account)) {
      breach(`the limiter says ${JSON.stringify(told)}, but it has come to ${JSON.stringify(account)}`)
    }
    return answer
  }

  /** A window opens with the first call that is charged after the one before has ended. */
  function windowOf(name: string, windowMs: number) {
    const open = windows.get(name)
    if (open?.used && clock.now() - open.openedAt < windowMs) return open
    const opened = { openedAt: clock.now(), used: 0 }
    windows.set(name, opened)
    return opened
  }

  /** The least that it must still know. */
  function keptVersion(keyId: string): number {
    const kept = versions.get(keyId)
    return kept && clock.now() < kept.keptUntil ? kept.version : 0
  }

  function raise(keyId: string, version: number, retainMs: number): void {
    const keptUntil = clock.now() + retainMs
    versions.set(keyId, { version: Math.max(version, keptVersion(keyId)), keptUntil })
  }

  return {
    ...limiter,
    check,
    raiseVersions(marks, retainMs) {
      limiter.raiseVersions(marks, retainMs)
      for (const { keyId, version } of marks) raise(keyId, version, retainMs)
    },
  }
}

/** What passes for fresh was read after it was needed. */
function judgeQuestion(world: World, task: Task | undefined, request: LimitRequest): void {
  if (!task) return
  const { keyId, version, fresh } = request
  const versions = world.store.versionsOf(keyId)
  const neededAt = task.answers.findLast(({ outcome }) => outcome === 'stale')?.step ?? task.step
  const next = versions[version]
  if (fresh && next && next.step < neededAt) {
    world.breach(
      `for ${task.text}, version ${version} passes for fresh after version ${version + 1} was there`,
    )
  }
}

/** An admitted call was charged once, for what it asked, and any other never. */
function judgeCharge(world: World, task: Task, cost: number, result: VerifyResult | null): void {
  // A call that is refused by its quota asks once more, for nothing, how the limits stand.
  const charges = task.answers.filter(
    ({ outcome, request }) => outcome === 'admitted' && request.cost === cost,
  )
  if (!result?.ok) {
    if (charges.length > 0) world.breach(`${task.text} was charged and not admitted`)
    return
  }
  const { apiKey } = result
  const [charge] = charges
  if (!charge && world.isBounded && !apiKey.rateLimits?.length && !apiKey.quota) return
  if (!charge || charges.length > 1) {
    world.breach(`${task.text} was charged ${charges.length} times`)
    return
  }
  const { request } = charge
  const charged = [request.keyId, request.version, request.cost]
  if (!isDeepStrictEqual(charged, [apiKey.id, apiKey.version, cost])) {
    world.breach(`${task.text} was admitted by version ${apiKey.version} and charged as ${charged}`)
  }
  if (!result.limits.some(({ type }) => type === 'quota')) return
  const { lineageId } = request
  world.admittedUnits.set(lineageId, (world.admittedUnits.get(lineageId) ?? 0) + cost)
}

/** The version that decided admits the call, and is as new as promised. */
function judgeAdmission(
  world: World,
  task: Task,
  { id, version }: ApiKey,
  ip: string,
  ends: readonly End[],
): void {
  const versions = world.store.versionsOf(id)
  const decided = versions[version - 1]
  if (!decided || !isAdmissible(decided.record, ip, task.startedAt)) {
    world.breach(`${task.text} was admitted by version ${version}, which refuses it`)
  }
  const isUnasked = !task.answers.some(({ outcome, isLocal }) => outcome === 'admitted' && !isLocal)
  for (const end of ends) {
    if (version >= end.version) continue
    const { committedAt, step } = versions[end.version - 1] as Version
    const lateMs = task.startedAt - committedAt
    const mayBeOld = task.host !== end.host && (isUnasked || world.lostAt >= step)
    if (mayBeOld && lateMs < world.maxAgeMs) world.count(isUnasked ? 'old: not asked' : 'old: limiter lost')
    else {
      world.breach(
        `${task.text} was admitted by version ${version}, ${lateMs} ms after version ${end.version} was committed, which was known`,
      )
    }
  }
}

/** What a key was refused for was so in some version of it. */
function judgeRefusal(
  world: World,
  key: SimulatedKey,
  ip: string,
  result: VerifyResult & { ok: false },
): void {
  const now = world.clock.now()
  const records = world.store.versionsOf(key.id).map(({ record }) => record)
  const wasSo: Record<string, () => boolean> = {
    revoked: () => records.some(({ revokedAt }) => revokedAt),
    disabled: () => records.some(({ enabled }) => !enabled),
    expired: () => records.some(({ expiresAt }) => expiresAt && expiresAt.getTime() <= now),
    owner_inactive: () => key.owner.turn > 0,
    address_not_allowed: () => records.some(({ allowedIps }) => allowedIps && !allowedIps.includes(ip)),
    rate_limited: () => true,
    quota_exceeded: () => world.store.unitsOf(key.lineageId).size > 0,
  }
  const reason = reasonOf(result)
  if (!wasSo[reason]?.()) world.breach(`${key.name} was refused as ${reason}, which it never was`)
}

function isAdmissible(record: KeyRecord, ip: string, at: number): boolean {
  const { revokedAt, enabled, expiresAt, allowedIps } = record
  if (revokedAt || !enabled || (expiresAt && expiresAt.getTime() <= at)) return false
  return !allowedIps || allowedIps.includes(ip)
}

/** Everything that is under way comes to its end: what arrives at all arrives, and the rest times out. */
async function comeToRest(world: World): Promise<void> {
  world.say('nothing more begins')
  for (const host of world.hosts) host.link = 'up'
  while (world.messages.length > 0) await deliver(world)
  world.isFlowing = true
  for (let i = 0; i < 10 && world.tasks.some(({ isOver }) => !isOver); i++) await world.clock.advance(10_000)
  for (const { isOver, text } of world.tasks) if (!isOver) world.breach(`${text} never came to an end`)
  // Past the age of everything that is held.
  await world.clock.advance(2 * world.maxAgeMs)
}

/** In the end every process says of every key what the store says, and no unit has come from nowhere. */
async function judgeTheEnd(world: World): Promise<void> {
  for (const { id, lineageId, name, text, owner } of world.keys) {
    const record = (await world.store.find({ id })) as KeyRecord
    const isExpected = owner.isActive && isAdmissible(record, ABROAD, world.clock.now())
    for (const host of world.hosts) {
      const result = await host.keys.verify(text, { cost: 0, ip: ABROAD })
      if (result.ok !== isExpected || (result.ok && result.apiKey.version !== record.version)) {
        world.breach(`in the end ${host.name} says of ${name}: ${outcomeText(result)}`)
      }
    }
    if (id === lineageId) judgeUnits(world, record)
  }
}

/** What is held is not known here: `simulateQuota` keeps its books. */
function judgeUnits(world: World, { lineageId, name, quota }: KeyRecord): void {
  const total = [...world.store.unitsOf(lineageId).values()].reduce((sum, units) => sum + units, 0)
  const admitted = world.admittedUnits.get(lineageId) ?? 0
  const remaining = quota?.remaining ?? 0
  if (admitted > 0) world.count('quota: spent')
  if (admitted + remaining <= total) return
  world.breach(`of ${total} units of ${name} ${admitted} were spent, and ${remaining} remain`)
}

// Choices

/** The same choices, each now rarer, now more frequent. */
function mix<T extends { readonly weight: number }>(
  random: Random,
  choices: readonly T[],
  factors: readonly number[],
): T[] {
  const mixed = choices.map((choice) => ({ ...choice, weight: choice.weight * random.of(factors) }))
  return mixed.some(({ weight }) => weight > 0) ? mixed : [...choices]
}

function pick<T extends { readonly weight: number }>(random: Random, choices: readonly T[]): T {
  let at = random.below(choices.reduce((sum, { weight }) => sum + weight, 0))
  for (const choice of choices) {
    at -= choice.weight
    if (at < 0) return choice
  }
  throw new RangeError('nothing to choose from')
}
