import type { PlacesRequest } from '../../core/limits/places.ts'
import type { CompiledLimit } from '../../core/limits/rate-limit.ts'
import type { LimitRequest, SettleRequest } from '../../core/limits/rate-limiter.ts'
import { messageOf } from '../../internal/any-realm.ts'
import { isPromiseLike } from '../../internal/awaitable.ts'
import { problemOfAnswer, problemOfSettlement } from './answer-shape.ts'
import { differenceOf, differenceOfSettlements } from './compare-answers.ts'
import { DAY, type FullLimiter, type MadeLimiter } from './limiter-test.ts'
import { LimiterModel } from './model.ts'
import type { Step, Subject } from './traces.ts'

/** The first step of a trace that a limiter answers otherwise than the model, and how. */
export interface Failure {
  readonly at: number
  readonly problem: string
}

/** Plays a trace on a limiter and on the model; null if they answer alike. */
export async function playTrace(
  steps: readonly Step[],
  { readers }: Subject,
  made: MadeLimiter,
): Promise<Failure | null> {
  const player = new Player(readers, made)
  for (const [at, step] of steps.entries()) {
    const problem = await player.play(step, at).catch((error) => `it fails: ${messageOf(error)}`)
    if (problem) return { at, problem }
  }
  return null
}

/** A call that was admitted, and what of its charges can be given back, for each of its limits. */
interface Charged {
  readonly request: LimitRequest
  readonly charges: { units: number; readonly chargedAt: number }[][]
}

/** The latest change, and when and how it was made. */
interface Sent {
  readonly request: SettleRequest
  readonly sentAt: number
  readonly settledAt: number
  /** Whether its answer may have been lost. */
  readonly isLate: boolean
}

const OWNER = '4:user:u_1'

class Player {
  private readonly model: LimiterModel
  private readonly charged: Charged[] = []
  private readonly taken: PlacesRequest[] = []
  private sent: Sent | null = null

  constructor(
    private readonly readers: Subject['readers'],
    private readonly made: MadeLimiter,
  ) {
    this.model = new LimiterModel(() => this.now())
  }

  /** Takes a step; what is wrong with the answer, or null. */
  async play(step: Step, at: number): Promise<string | null> {
    switch (step.do) {
      case 'call':
        return this.call(step, at)
      case 'raise': {
        const mark = { ...namesOf(step), version: step.version }
        await this.limiter(0).raiseVersions([mark], RETAIN_MS)
        this.model.raise(mark)
        return null
      }
      case 'settle':
        return this.settle(step, at)
      case 'settle again':
        return this.settleAgain(step)
      case 'wait':
        await this.made.clock.advance(step.ms)
        return null
      default:
        return this.hold(step)
    }
  }

  private now(): number {
    return this.made.clock.now()
  }

  private limiter(by: number): FullLimiter {
    return (by === 0 ? this.made.limiter : (this.made.peer ?? this.made.limiter)) as FullLimiter
  }

  private async call(step: Step & { do: 'call' }, at: number): Promise<string | null> {
    const request = requestOf(step, this.readers[step.by] as Subject['readers'][number], at)
    const answer = await this.limiter(step.by).check(request)
    const expected = this.model.check(request)
    const problem = problemOfAnswer(request, answer, this.now()) ?? differenceOf(expected, answer)
    if (problem || answer.outcome !== 'admitted') return problem
    const { lineageId, owner, limits, cost, costs, places } = request
    if (cost === 0 && !costs) return null
    const charges = limits.map((_limit, i) => [{ units: costs?.[i] ?? cost, chargedAt: this.now() }])
    this.charged.push({ request, charges })
    if (places) this.taken.push({ lineageId, owner, ...places })
    return null
  }

  private async settle(step: Step & { do: 'settle' }, at: number): Promise<string | null> {
    const charged = recent(this.charged, step.which)
    if (!charged) return null
    const { lineageId, owner, limits } = charged.request
    const changes = charged.charges.map((stack, i) => changesOf(stack, step.to[i % step.to.length] as number))
    const request = { lineageId, owner, id: `settlement${at}`, limits, changes }
    const answering = this.limiter(step.by).settle(request)
    const answer = await answering
    const expected = this.model.settle(request)
    const problem =
      problemOfSettlement(request, answer, this.now(), false) ?? differenceOfSettlements(expected, answer)
    for (const [i, some] of changes.entries()) {
      for (const { units } of some) if (units > 0) charged.charges[i]?.push({ units, chargedAt: this.now() })
    }
    const { settledAt } = answer
    this.sent = { request, sentAt: this.now(), settledAt, isLate: isPromiseLike(answering) }
    return problem
  }

  /** A change whose answer was lost is made again within a minute. One whose answer came at once is not. */
  private async settleAgain(step: Step & { do: 'settle again' }): Promise<string | null> {
    if (!this.sent?.isLate || this.now() - this.sent.sentAt >= MADE_AGAIN_MS) return null
    const { request, settledAt } = this.sent
    const answer = await this.limiter(step.by).settle(request)
    const expected = this.model.settle(request)
    if (answer.settledAt !== settledAt)
      return `"settledAt" is ${answer.settledAt} and was ${settledAt} at first`
    return problemOfSettlement(request, answer, this.now(), true) ?? differenceOfSettlements(expected, answer)
  }

  private async hold(step: Step & { do: 'release' | 'renew' }): Promise<string | null> {
    const request = recent(this.taken, step.which)
    if (!request) return null
    if (step.do === 'release') {
      await this.limiter(step.by).release(request)
      this.model.release(request)
      return null
    }
    const lost = await this.limiter(step.by).renew([request])
    const expected = this.model.renew([request])
    return lost === expected
      ? null
      : `"renew" says that ${lost} calls had lost a place, and should say ${expected}`
  }
}

/** One of the latest. A trace that was made shorter has fewer, but still one. */
function recent<T>(all: readonly T[], which: number): T | undefined {
  return all.at(-1 - (which % Math.max(1, all.length)))
}

/** Nothing is forgotten in the course of a trace. */
const RETAIN_MS = 3_000 * DAY
const MADE_AGAIN_MS = 60_000

/** Of the three lineages, two have the same owner. */
function namesOf({ lineage, key }: { readonly lineage: number; readonly key: number }) {
  return { lineageId: `l${lineage}`, keyId: `k${key}`, owner: lineage === 0 ? undefined : OWNER }
}

/** A key whose owner has no limits has only its own. */
function requestOf(
  step: Step & { do: 'call' },
  reader: ReadonlyMap<string, CompiledLimit>,
  at: number,
): LimitRequest {
  const { version, fresh, cost, costs, of } = step
  const names = namesOf(step)
  const all = [...reader.values()].filter(
    ({ name, isOwners }) => of.includes(name) && (names.owner || !isOwners),
  )
  const limits = all.filter(({ kind }) => kind !== 'concurrent')
  const held = all.filter(({ kind }) => kind === 'concurrent')
  return {
    ...names,
    version,
    fresh,
    cost,
    ...(costs && { costs: limits.map(({ name }) => costs[name] ?? 0) }),
    limits,
    ...(held.length > 0 && { places: { id: `call${at}`, limits: held } }),
    retainMs: RETAIN_MS,
  }
}

/** What leads from these charges to so many units: more, or the latest back first. */
function changesOf(stack: Charged['charges'][number], to: number) {
  const more = to - stack.reduce((total, { units }) => total + units, 0)
  if (more > 0) return [{ units: more, chargedAt: 0 }]
  const changes: { units: number; chargedAt: number }[] = []
  let rest = -more
  for (const charge of stack.toReversed()) {
    const units = Math.min(rest, charge.units)
    rest -= units
    charge.units -= units
    if (units > 0) changes.push({ units: -units, chargedAt: charge.chargedAt })
  }
  return changes
}
