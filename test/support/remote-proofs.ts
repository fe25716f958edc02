import { setTimeout } from 'node:timers/promises'
import type { IssuedKey } from 'latchkey/client'
import type { ToldFault } from './consumer.ts'
import { type Answered, type Asked, callSteadily, type SteadyLoad } from './steady-load.ts'
import { forgeKey } from './test-keys.ts'
import type { AuthService, Consumer, TwoServices } from './two-services.ts'

/** The routes of a consumer, by what they do with what the service says. */
const ROUTES = ['/cached', '/fresh', '/charged'] as const
type Route = (typeof ROUTES)[number]

const BAD = ['revoked', 'wrong_secret', 'unknown', 'malformed'] as const
type Kind = 'warm' | 'new' | (typeof BAD)[number]

/** A request to a consumer. */
interface Question extends Asked {
  readonly path: Route
  readonly kind: Kind
}

export type ConsumerLoad = SteadyLoad<Question>
type Answer = Answered<Question>

/** So many that each is seldom remembered when its turn comes again. */
const NEW_KEYS = 100

/** Puts a consumer under load with keys of every kind. */
export async function loadConsumer(world: TwoServices, consumer: Consumer): Promise<ConsumerLoad> {
  const [warm, revoked] = [await world.issue(), await world.issue()]
  const fresh: IssuedKey[] = []
  while (fresh.length < NEW_KEYS) {
    fresh.push(...(await Promise.all(Array.from({ length: 20 }, () => world.issue()))))
  }
  await consumer.service.admin.revoke(revoked.apiKey.id)
  const secret = 'x'.repeat(43)
  const keyOf: Readonly<Record<Kind, () => string>> = {
    warm: () => warm.key,
    new: turnsOf(fresh.map(({ key }) => key)),
    revoked: () => revoked.key,
    wrong_secret: () => forgeKey(warm.key, { secret }),
    unknown: () => forgeKey(warm.key, { keyId: '0123456789abcdef', secret }),
    malformed: () => `${warm.key}x`,
  }
  const caller = (path: Route, kinds: readonly Kind[]) => {
    const next = turnsOf(kinds)
    return (): Question => {
      const kind = next()
      return { path, kind, key: keyOf[kind]() }
    }
  }
  const callers = ROUTES.flatMap((route) => [caller(route, ['warm', 'new']), caller(route, BAD)])
  return callSteadily<Question>(consumer.port, [caller('/cached', ['warm']), ...callers], 10)
}

function turnsOf<T>(values: readonly T[]): () => T {
  let turn = 0
  return () => values[turn++ % values.length] as T
}

/** How an outage was seen. */
export interface Outage {
  readonly answers: number
  /** Admissions of good keys while the service could not be asked, by what it had said before. */
  readonly fromCache: number
  /** Good keys that were told to come again. */
  readonly unavailable: number
  /** Answers that no such key may get, at any time. */
  readonly wrong: readonly Answer[]
  /** Admissions by what the service had said longer ago than it may be remembered. */
  readonly late: readonly Answer[]
  readonly faults: readonly ToldFault[]
  /** The ticks that the request saw which was under way for longest. */
  readonly mostTicks: number
}

export interface Breaking {
  /** Resolves once the service admits nothing that is asked of it. */
  break(): unknown
  /** Resolves once it can be asked again. */
  mend(): unknown
}

/** Makes a service unusable for the consumer until nothing is remembered of it, and mends it until all is as it was. */
export async function sufferOutage(
  { cacheMs }: TwoServices,
  consumer: Consumer,
  load: ConsumerLoad,
  breaking: Breaking,
): Promise<Outage> {
  await load.answered(10, ({ status, asked }) => status === 200 && asked.path === '/cached')
  load.take()
  await consumer.run('take')
  await breaking.break()
  const brokenAt = performance.now()
  const isLate = ({ asked, startedAt }: Answer) =>
    startedAt > brokenAt + (asked.path === '/cached' ? cacheMs : 0)
  const isRefused = (answer: Answer) => isGood(answer) && answer.status === 503 && isLate(answer)
  // After an answer that nobody may get, what is waited for may never come.
  const spoilt = load.answered(1, (answer) => !isAllowed(answer))
  const refused = ROUTES.map((route) =>
    load.answered(5, (answer) => answer.asked.path === route && isRefused(answer)),
  )
  await Promise.race([Promise.all(refused), spoilt])
  const mendingAt = performance.now()
  await breaking.mend()
  const mendedAt = performance.now()
  await Promise.race([recovered(load, mendedAt), spoilt])
  const answered = load.take()
  const during = answered.filter(
    ({ startedAt, tookMs }) => startedAt > brokenAt && startedAt + tookMs < mendingAt,
  )
  const admitted = during.filter(({ status }) => status === 200)
  return {
    answers: answered.length,
    fromCache: admitted.length,
    unavailable: answered.filter((answer) => isGood(answer) && answer.status === 503).length,
    wrong: answered.filter((answer) => !isAllowed(answer)),
    late: admitted.filter(isLate),
    ...(await consumer.run('take')),
  }
}

/** Resolves once requests that begin after this moment get what their keys deserve, on every route. */
async function recovered(load: ConsumerLoad, since: number): Promise<void> {
  const kinds = new Set<Kind>(['warm', 'new', ...BAD])
  await Promise.all(
    ROUTES.flatMap((route) =>
      [...kinds].map((kind) =>
        load.answered(
          2,
          (answer) =>
            answer.asked.path === route &&
            answer.asked.kind === kind &&
            answer.startedAt > since &&
            answer.status === (isGood(answer) ? 200 : 401),
        ),
      ),
    ),
  )
}

function isGood({ asked }: Answer): boolean {
  return asked.kind === 'warm' || asked.kind === 'new'
}

/** What a key of a kind may get, whatever becomes of the service. */
export function isAllowed(answer: Answer): boolean {
  const { asked, status, code } = answer
  if (status === 503 && code === 'unavailable') return asked.kind !== 'malformed'
  return isGood(answer) ? status === 200 : status === 401 && code === 'invalid_key'
}

/** A machine with much else to do does not always answer in time, which is no admission. */
const REFUSALS: ReadonlySet<string | undefined> = new Set(['invalid_key', 'unavailable'])

/** How a revocation was seen. */
export interface Revocation {
  readonly admitted: number
  readonly refused: number
  /** Admissions by requests that began once the revocation was acknowledged. */
  readonly afterwards: number
  /** For how long after that a request still began that was admitted, in milliseconds. */
  readonly seenAfterMs: number
  /** Those that began later than they may. */
  readonly late: readonly Answered[]
  readonly wrong: readonly Answered[]
}

/** Revokes a key at a service while all consumers are sent it. */
export async function revokeUnderLoad(
  { issue, consumers, cacheMs }: TwoServices,
  { admin }: AuthService,
): Promise<Revocation> {
  const { key, apiKey } = await issue()
  const paths = [...ROUTES, '/cached'] as const
  const loads = consumers.map(({ port }) =>
    callSteadily(
      port,
      paths.map((path) => () => ({ key, path })),
    ),
  )
  await onEach(loads, (load) => seenOnEach(load, ({ status }) => status === 200))
  await admin.revoke(apiKey.id)
  const revokedAt = performance.now()
  const isLate = ({ asked, startedAt }: Answered) =>
    startedAt > revokedAt + (asked.path === '/cached' ? cacheMs : 0)
  await onEach(loads, (load) => seenOnEach(load, (answer) => answer.status === 401 && isLate(answer)))
  const answered = (await onEach(loads, (load) => load.stop())).flat()
  const admitted = answered.filter(({ status }) => status === 200)
  const afterwards = admitted.filter(({ startedAt }) => startedAt > revokedAt)
  return {
    admitted: admitted.length,
    refused: answered.length - admitted.length,
    afterwards: afterwards.length,
    seenAfterMs: Math.max(0, ...afterwards.map(({ startedAt }) => startedAt - revokedAt)),
    late: admitted.filter(isLate),
    wrong: answered.filter(({ status, code }) => status !== 200 && !REFUSALS.has(code)),
  }
}

async function seenOnEach(load: SteadyLoad, matches: (answer: Answered) => boolean): Promise<void> {
  await Promise.all(
    ROUTES.map((route) => load.answered(10, (answer) => answer.asked.path === route && matches(answer))),
  )
}

function onEach<T, R>(values: readonly T[], work: (value: T) => Promise<R>): Promise<R[]> {
  return Promise.all(values.map(work))
}

/**
 * Revokes a key while the answer that it is good is on its way to the consumer, and lets that answer arrive late. Answers the
 * admissions by requests that began when it was older than it may be.
 */
export async function revokeBehindAnswer({
  issue,
  behindProxy: { proxy, port },
  services: [{ admin }],
  cacheMs,
}: TwoServices): Promise<Answered[]> {
  for (;;) {
    const { key, apiKey } = await issue()
    const held = proxy.hold()
    const first = fetch(`http://127.0.0.1:${port}/cached`, { headers: { 'X-Api-Key': key } })
    await held
    await admin.revoke(apiKey.id)
    const revokedAt = performance.now()
    await setTimeout(0.6 * cacheMs)
    proxy.release()
    // On a busy machine it came too late to be an answer; nothing is shown then.
    if ((await first).status !== 200) continue
    const load = callSteadily(port, [() => ({ key, path: '/cached' })])
    const isLate = ({ startedAt }: Answered) => startedAt > revokedAt + cacheMs
    await load.answered(10, (answer) => answer.status === 401 && isLate(answer))
    return (await load.stop()).filter((answer) => answer.status === 200 && isLate(answer))
  }
}

/** How a limit was used up. */
export interface UsedUp {
  readonly admitted: number
  readonly refused: number
  /** Requests that the service did not answer, because it was killed or was not given the time: they may have been charged. */
  readonly lost: number
  readonly wrong: readonly Answered[]
  /** Of how many consumers requests were admitted. */
  readonly admittedBy: number
}

/** Sends a key with a limit to all consumers until each of them refuses it; kills all services meanwhile, so many times. */
export async function useUpLimit(
  { issue, consumers, services }: TwoServices,
  { limit, kills = 0 }: { limit: number; kills?: number },
): Promise<UsedUp> {
  const { key } = await issue({ rateLimits: [{ name: 'window', limit, windowMs: 600_000 }] })
  const caller = () => ({ key, path: '/charged' })
  const loads = consumers.map(({ port }) => callSteadily(port, [caller, caller, caller], 5))
  const outages: { readonly killedAt: number; readonly restartedAt: number }[] = []
  for (let kill = 0; kill < kills; kill += 1) {
    await onEach(loads, (load) => load.answered(5, ({ status }) => status === 200))
    await onEach(services, (service) => service.kill())
    const killedAt = performance.now()
    await onEach(services, (service) => service.restart())
    outages.push({ killedAt, restartedAt: performance.now() })
  }
  await onEach(loads, (load) => load.answered(10, ({ status }) => status === 429))
  const answered = await onEach(loads, (load) => load.stop())
  const all = answered.flat()
  const admitted = all.filter(({ status }) => status === 200)
  const unanswered = all.filter(({ status, code }) => status === 503 && code === 'unavailable')
  return {
    admitted: admitted.length,
    refused: all.filter(({ code }) => code === 'rate_limited').length,
    // What began while nobody listened has reached nobody.
    lost: unanswered.filter(
      ({ startedAt, tookMs }) =>
        !outages.some(
          ({ killedAt, restartedAt }) => startedAt > killedAt && startedAt + tookMs < restartedAt,
        ),
    ).length,
    wrong: all.filter(({ status, code }) => ![200, 503].includes(status) && code !== 'rate_limited'),
    admittedBy: answered.filter((own) => own.some(({ status }) => status === 200)).length,
  }
}
