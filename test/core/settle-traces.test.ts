import { randomInt } from 'node:crypto'
import fc from 'fast-check'
import {
  type ApiKeys,
  type Cost,
  createApiKeys,
  memoryRateLimiter,
  memoryStore,
  type ServiceRateLimit,
  type VerifiedKey,
} from 'latchkey'
import { expect, it } from 'vitest'
import { type FakeClock, fakeClock } from '../support/fake-clock.ts'
import { times } from '../support/long-run.ts'
import { ALICE } from '../support/test-keys.ts'

const T0 = Date.UTC(2026, 0, 15, 12)
const MINUTE = 60_000
const seed = Number(process.env.MODEL_SEED ?? randomInt(2 ** 31))
const runs = Number(process.env.MODEL_RUNS ?? times({ short: 60, soak: 400, long: 4_000 }))

/** Two processes that read the same limits with other numbers. */
const NUMBERS = [
  { calls: 8, tokens: 20, team: 15, exports: 2 },
  { calls: 5, tokens: 30, team: 12, exports: 4 },
] as const
type Numbers = (typeof NUMBERS)[number]
type Name = keyof Numbers

const LIMITS: Readonly<Record<Name, Omit<ServiceRateLimit, 'limit' | 'name'>>> = {
  calls: { windowMs: MINUTE },
  tokens: { windowMs: 3 * MINUTE, only: 'named' },
  team: { windowMs: 2 * MINUTE, scope: 'owner' },
  exports: { windowMs: 5 * MINUTE, scope: 'owner', only: 'named' },
}
const NAMES = Object.keys(LIMITS) as Name[]

type Step =
  | { readonly type: 'call'; readonly key: number; readonly reader: number; readonly cost: Cost }
  | { readonly type: 'settle'; readonly which: number; readonly cost: Cost }
  | { readonly type: 'refund'; readonly which: number }
  | { readonly type: 'pass'; readonly ms: number }

const units = (max: number) => fc.integer({ min: 0, max })
const named = fc.record(
  { calls: units(3), tokens: units(12), team: units(4), exports: units(2) },
  { requiredKeys: [] },
)
const anyCost: fc.Arbitrary<Cost> = fc.oneof(fc.constant(1), units(3), named, named)
const anyStep: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      type: fc.constant('call' as const),
      key: fc.nat(2),
      reader: fc.nat(1),
      cost: anyCost,
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant('settle' as const),
      which: fc.nat(4),
      cost: fc.oneof(units(6), named),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('refund' as const), which: fc.nat(4) }) },
  {
    weight: 2,
    arbitrary: fc.record({ type: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 90_000 }) }),
  },
)

/** What is used of a window, as a person would keep the book. */
interface Window {
  endsAt: number
  used: number
}

/** Units in a window, which may have ended. */
interface Entry {
  readonly window: Window
  units: number
}

/** A call that was admitted, what it should cost each limit that it counted on, and what it was charged, the latest last. */
interface Booked {
  readonly result: VerifiedKey
  readonly reader: number
  readonly costs: Map<Name, number>
  readonly entries: Map<Name, Entry[]>
}

class Book {
  private readonly windows = new Map<string, Window>()
  now = T0

  private current(name: Name, key: number): Window | undefined {
    const window = this.windows.get(idOf(name, key))
    return window && this.now < window.endsAt ? window : undefined
  }

  used(name: Name, key: number): number {
    return this.current(name, key)?.used ?? 0
  }

  charge(name: Name, key: number, amount: number): Entry {
    let window = this.current(name, key)
    if (!window) {
      window = { endsAt: this.now + (LIMITS[name].windowMs ?? 0), used: 0 }
      this.windows.set(idOf(name, key), window)
    }
    window.used += amount
    return { window, units: amount }
  }

  /** Gives back the latest units first. Those of an ended window stay charged. */
  giveBack(entries: readonly Entry[], amount: number): void {
    let rest = amount
    for (const entry of entries.toReversed()) {
      const part = Math.min(rest, entry.units)
      rest -= part
      if (this.now >= entry.window.endsAt) continue
      entry.window.used -= part
      entry.units -= part
    }
  }
}

function idOf(name: Name, key: number): string {
  return LIMITS[name].scope === 'owner' ? name : `${name} ${key}`
}

/** What a call costs each limit that it counts on. */
function costsOf(cost: Cost): Map<Name, number> {
  const costs = new Map<Name, number>()
  for (const name of NAMES) {
    const isNamed = LIMITS[name].only === 'named'
    if (typeof cost === 'number') {
      if (!isNamed) costs.set(name, cost)
    } else if (Object.hasOwn(cost, name)) costs.set(name, cost[name] as number)
    else if (!isNamed) costs.set(name, 1)
  }
  return costs
}

/** Plays the steps and compares each answer with what the book says. */
async function play(steps: readonly Step[], services: readonly ApiKeys[], clock: FakeClock): Promise<void> {
  const book = new Book()
  const [first] = services
  const keys: string[] = []
  for (let i = 0; i < 3; i++) keys.push((await (first as ApiKeys).issue({ owner: ALICE, name: `k${i}` })).key)
  const admitted: (Booked & { key: number })[] = []
  for (const step of steps) {
    if (step.type === 'pass') {
      book.now += step.ms
      clock.set(book.now)
      continue
    }
    if (step.type === 'call') {
      const { key, reader, cost } = step
      const costs = costsOf(cost)
      const numbers = NUMBERS[reader] as Numbers
      const exceeded = [...costs].filter(
        ([name, amount]) => cost !== 0 && book.used(name, key) + Math.max(1, amount) > numbers[name],
      )
      const result = await (services[reader] as ApiKeys).verify(keys[key] as string, { cost })
      // Every refusal is necessary, and nothing is admitted beyond a limit.
      expect(result.ok).toBe(exceeded.length === 0)
      if (!result.ok) {
        const limits = 'limits' in result ? result.limits : []
        expect(limits.filter((limit) => limit.exceeded).map(({ name }) => name)).toEqual(
          exceeded.map(([name]) => name),
        )
      } else if (cost !== 0) {
        const entries = new Map(
          [...costs].map(([name, amount]) => [name, amount > 0 ? [book.charge(name, key, amount)] : []]),
        )
        admitted.push({ result, reader, key, costs, entries })
      }
    } else {
      const booked = admitted.at(-1 - step.which)
      if (!booked) continue
      const service = services[booked.reader] as ApiKeys
      const cost = step.type === 'refund' ? 0 : step.cost
      const isUnnamed =
        typeof cost === 'object' && Object.keys(cost).some((name) => !booked.entries.has(name as Name))
      if (isUnnamed) {
        await expect(service.settle(booked.result, cost)).rejects.toThrow(TypeError)
        continue
      }
      if (step.type === 'refund') await service.refund(booked.result)
      else await service.settle(booked.result, cost)
      for (const [name, entries] of booked.entries) {
        const charged = entries.reduce((sum, entry) => sum + entry.units, 0)
        const target = targetOf(name, cost, booked.costs.get(name) ?? 0)
        booked.costs.set(name, target)
        if (target > charged) entries.push(book.charge(name, booked.key, target - charged))
        else book.giveBack(entries, charged - target)
      }
    }
    await compareStates(book, services, keys)
  }
}

function targetOf(name: Name, cost: Cost, before: number): number {
  if (typeof cost === 'object') return Object.hasOwn(cost, name) ? (cost[name] as number) : before
  return LIMITS[name].only === 'named' && cost > 0 ? before : cost
}

async function compareStates(
  book: Book,
  services: readonly ApiKeys[],
  keys: readonly string[],
): Promise<void> {
  for (const [reader, service] of services.entries()) {
    for (const [key, text] of keys.entries()) {
      const look = await service.verify(text, { cost: 0 })
      const left = look.ok && Object.fromEntries(look.limits.map(({ name, remaining }) => [name, remaining]))
      const numbers = NUMBERS[reader] as Numbers
      expect(left).toEqual(
        Object.fromEntries(NAMES.map((name) => [name, Math.max(0, numbers[name] - book.used(name, key))])),
      )
    }
  }
}

function serviceLimits(numbers: Numbers): ServiceRateLimit[] {
  return NAMES.map((name) => ({ ...LIMITS[name], name, limit: numbers[name] }) as ServiceRateLimit)
}

it(`any trace of calls and settlements by two services is admitted as a book of it says (MODEL_SEED=${seed})`, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(anyStep, { minLength: 1, maxLength: 25, size: 'max' }), async (steps) => {
      const clock = fakeClock(T0)
      const [rateLimiter, store] = [memoryRateLimiter({ clock }), memoryStore()]
      const services = NUMBERS.map((numbers) =>
        createApiKeys({
          store,
          rateLimiter,
          prefix: 'acme',
          rateLimits: serviceLimits(numbers),
          usage: { flushMs: 30_000 },
          clock,
        }),
      )
      await play(steps, services, clock)
    }),
    { seed, numRuns: runs },
  )
})
