import { randomInt } from 'node:crypto'
import fc from 'fast-check'
import type {
  ApiKeys,
  Cost,
  Explanation,
  IssuedKey,
  IssueOptions,
  Permissions,
  RateLimit,
  ServiceRateLimit,
  VerifyOptions,
  VerifyResult,
} from 'latchkey'
import { plainTextFormat } from 'latchkey/import'
import { expect, it } from 'vitest'
import { settle } from '../support/fake-clock.ts'
import { times } from '../support/long-run.ts'
import { ALICE, BOB, createTestKeys, forgeKey, type TestKeys } from '../support/test-keys.ts'

const MINUTE = 60_000
const seed = Number(process.env.MODEL_SEED ?? randomInt(2 ** 31))
const runs = Number(process.env.MODEL_RUNS ?? times({ short: 25, soak: 600, long: 6_000 }))

const SHAPE = /^old_[a-z]{20}$/
const OLD_KEYS = ['old_abcdefghijklmnopqrst', 'old_tsrqponmlkjihgfedcba'] as const

/** What both of two processes are configured with. */
interface Setting {
  readonly rateLimits: readonly ServiceRateLimit[]
  readonly hasOwnerHooks: boolean
  readonly blocksAfter: number | null
  readonly isBounded: boolean
}

/** How the text that is presented differs from that of a key that was issued. */
type Text = 'right' | 'wrong' | 'unknown' | 'cut' | 'padded' | 'other_prefix' | 'old' | 'id'

type Step =
  | { readonly type: 'ask'; readonly key: number; readonly text: Text; readonly options: VerifyOptions }
  | { readonly type: 'spend'; readonly key: number; readonly cost: number }
  | { readonly type: 'overspend'; readonly key: number; readonly units: number }
  | {
      readonly type: 'change'
      readonly isElsewhere: boolean
      readonly key: number
      readonly how: 'disable' | 'enable' | 'revoke' | 'purge' | 'rotate'
    }
  | {
      readonly type: 'set'
      readonly isElsewhere: boolean
      readonly key: number
      readonly settings: Partial<IssueOptions>
    }
  | { readonly type: 'owner'; readonly isActive: boolean; readonly permissions: Permissions | null }
  | { readonly type: 'release' }
  | { readonly type: 'pass'; readonly ms: number }

const units = (min: number, max: number) => fc.integer({ min, max })

const anyLimit: fc.Arbitrary<ServiceRateLimit> = fc.oneof(
  fc.record({ name: fc.constant('window'), limit: units(1, 6), windowMs: fc.constant(MINUTE) }),
  fc.record({
    name: fc.constant('bucket'),
    limit: units(1, 60),
    windowMs: fc.constant(MINUTE),
    burst: units(1, 5),
  }),
  fc.record({ name: fc.constant('day'), limit: units(1, 20), per: fc.constant('day' as const) }),
  fc.record({
    name: fc.constant('named'),
    limit: units(1, 9),
    windowMs: fc.constant(2 * MINUTE),
    only: fc.constant('named' as const),
  }),
  fc.record({ name: fc.constant('places'), concurrent: units(1, 2) }),
)
const limits = fc.uniqueArray(anyLimit, { maxLength: 3, selector: ({ name }) => name })
const ownersLimit: fc.Arbitrary<ServiceRateLimit> = fc.record({
  name: fc.constant('team'),
  limit: units(1, 12),
  windowMs: fc.constant(MINUTE),
  scope: fc.constant('owner' as const),
})
const anySetting: fc.Arbitrary<Setting> = fc.record({
  rateLimits: fc
    .tuple(limits, fc.option(ownersLimit, { nil: undefined }))
    .map(([own, owners]) => (owners ? [...own, owners] : own)),
  hasOwnerHooks: fc.boolean(),
  blocksAfter: fc.option(units(1, 4)),
  isBounded: fc.boolean(),
})

const anyPermissions = fc.constantFrom<Permissions[]>(
  {},
  { projects: ['read'] },
  { projects: ['read', 'write'] },
  { '*': ['read'] },
)
const anySettings: fc.Arbitrary<Partial<IssueOptions>> = fc.record(
  {
    permissions: anyPermissions,
    rateLimits: fc.option(limits as fc.Arbitrary<RateLimit[]>),
    quota: fc.option(
      fc.record({
        remaining: units(0, 8),
        refill: fc.option(fc.record({ amount: units(1, 6), everyMs: fc.constantFrom(MINUTE, 3 * MINUTE) })),
      }),
    ),
    allowedIps: fc.option(fc.constantFrom(['10.0.0.0/8'], ['10.0.0.1', '2001:db8::/32'])),
    idleExpiryMs: fc.option(fc.constantFrom(MINUTE, 2 * MINUTE)),
  },
  { requiredKeys: [] },
)
const anyCost: fc.Arbitrary<Cost> = fc.oneof(
  fc.constantFrom(0, 1, 1, 2, 5, 50),
  fc.dictionary(
    fc.constantFrom('window', 'bucket', 'named', 'places', 'team', 'quota', 'nothing'),
    units(0, 3),
    {
      maxKeys: 2,
    },
  ),
)
const anyOptions: fc.Arbitrary<VerifyOptions> = fc.record(
  {
    permissions: fc.constantFrom<VerifyOptions['permissions'][]>(
      undefined,
      { projects: ['read'] },
      { projects: ['write'], reports: ['read'] },
      [{ reports: ['write'] }, { projects: ['write'] }],
    ),
    cost: anyCost,
    ip: fc.constantFrom('10.0.0.1', '10.9.9.9', '192.0.2.7', '2001:db8::1', 'nowhere'),
    prefix: fc.constantFrom<VerifyOptions['prefix'][]>(undefined, undefined, 'acme_test', 'other', [
      'other',
      'old',
    ]),
  },
  { requiredKeys: [] },
)

const anyText: fc.Arbitrary<Text> = fc.constantFrom(
  ...([
    'right',
    'right',
    'right',
    'right',
    'id',
    'wrong',
    'unknown',
    'cut',
    'padded',
    'other_prefix',
    'old',
  ] as const),
)
const key = fc.nat(2)
const isElsewhere = fc.boolean()
const ask = fc.record({ type: fc.constant('ask' as const), key, text: anyText, options: anyOptions })
const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 10, arbitrary: ask },
  { weight: 3, arbitrary: fc.record({ type: fc.constant('spend' as const), key, cost: units(1, 3) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('overspend' as const), key, units: units(2, 9) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('change' as const),
      isElsewhere,
      key,
      how: fc.constantFrom('disable', 'enable', 'enable', 'revoke', 'purge', 'rotate'),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ type: fc.constant('set' as const), isElsewhere, key, settings: anySettings }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      type: fc.constant('owner' as const),
      isActive: fc.boolean(),
      permissions: fc.option(anyPermissions),
    }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('release' as const) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant('pass' as const),
      ms: fc.oneof(units(1, 4_000), units(1, 5 * MINUTE)),
    }),
  },
)

/** Two processes with one store and one limiter. */
class World {
  private isOwnerActive = true
  private ownerPermissions: Permissions | null = null
  private readonly here: TestKeys
  private readonly there: TestKeys
  private readonly issued: IssuedKey[] = []
  private readonly held: VerifyResult[] = []

  constructor({ rateLimits, hasOwnerHooks, blocksAfter, isBounded }: Setting) {
    const options = {
      rateLimits,
      formats: [plainTextFormat({ shape: SHAPE })],
      revocation: isBounded ? ('bounded' as const) : ('exact' as const),
      failedAttempts: blocksAfter === null ? (false as const) : { limit: blocksAfter, windowMs: MINUTE },
      ...(hasOwnerHooks && {
        isOwnerActive: () => this.isOwnerActive,
        ownerPermissions: () => this.ownerPermissions,
      }),
    }
    this.here = createTestKeys(options)
    const { store, clock, limiter } = this.here
    this.there = createTestKeys({ ...options, store, clock, rateLimiter: limiter })
  }

  async issue(settings: readonly Partial<IssueOptions>[]): Promise<void> {
    const { keys, clock } = this.here
    for (const [i, given] of settings.entries()) {
      const expiresAt = i === 0 ? new Date(clock.now() + 4 * MINUTE) : null
      this.issued.push(await keys.issue({ owner: i === 2 ? BOB : ALICE, name: 'CI', expiresAt, ...given }))
    }
    await keys.import({ format: 'plain-text', key: OLD_KEYS[0], owner: ALICE, name: 'old' })
  }

  async take(step: Step): Promise<void> {
    const { keys, clock } = this.here
    const { key, apiKey } = this.issued['key' in step ? step.key : 0] as IssuedKey
    switch (step.type) {
      case 'ask':
        return this.compare(step)
      case 'spend':
        this.held.push(await this.there.keys.verify(key, { cost: step.cost, ip: '10.0.0.1' }))
        break
      case 'overspend': {
        const result = await keys.verify(key, { ip: '10.0.0.1' })
        if (result.ok) await keys.settle(result, step.units)
        break
      }
      case 'change':
        await this.change(apiKey.id, step)
        await this.hearOf(step)
        break
      case 'set':
        await this.changing(step).update(apiKey.id, step.settings).catch(ignore)
        await this.hearOf(step)
        break
      case 'owner':
        this.isOwnerActive = step.isActive
        this.ownerPermissions = step.permissions
        await keys.invalidateOwner(ALICE)
        break
      case 'release': {
        const result = this.held.pop()
        if (result?.ok) await this.there.keys.release(result)
        break
      }
      case 'pass':
        await clock.advance(step.ms)
    }
    await settle()
  }

  private async change(id: string, step: Extract<Step, { type: 'change' }>): Promise<void> {
    const keys = this.changing(step)
    if (step.how === 'purge') await keys.purge({ ids: [id] })
    else if (step.how === 'rotate') await keys.rotate(id, { graceMs: 2 * MINUTE }).catch(ignore)
    else await keys[step.how](id).catch(ignore)
  }

  private changing({ isElsewhere }: Extract<Step, { isElsewhere: boolean }>): ApiKeys {
    return (isElsewhere ? this.there : this.here).keys
  }

  /** A process may refuse a key by an older record for as long as it holds that, and does not notice a purge before. */
  private async hearOf(step: Extract<Step, { isElsewhere: boolean }>): Promise<void> {
    const isPurge = step.type === 'change' && step.how === 'purge'
    if (step.isElsewhere || isPurge) await this.here.clock.advance(6_000)
  }

  /** Whether an explanation agrees with the verification that follows, and nobody can tell that there was one. */
  private async compare({ key: which, text, options }: Extract<Step, { type: 'ask' }>): Promise<void> {
    const { keys, events } = this.here
    const { key, apiKey } = this.issued[which] as IssuedKey
    const presented = textOf(text, key)
    const before = await this.counts(apiKey.id)
    events.length = 0
    const subject = text === 'id' ? { id: apiKey.id } : { key: presented }
    const explained = await outcomeOf(() => keys.explain(subject, options))
    expect(await outcomeOf(() => keys.explain(subject, options))).toEqual(explained)
    expect(events).toEqual([])
    expect(await this.counts(apiKey.id)).toEqual(before)
    const verified = await outcomeOf(() => keys.verify(presented, options))
    await settle()
    if (text === 'id' && (await keys.get(apiKey.id)) === null) {
      // Of a key that is gone, only its text would tell the prefix.
      expect(explained).toMatchObject({ apiKey: null })
      expect(verified).toMatchObject({ ok: false })
    } else {
      expect(summaryOf(explained)).toEqual(summaryOf(verified))
      expectSameWait(explained, verified)
    }
    requireSteps(explained)
    if (typeof explained !== 'string') seen.add(explained.reason ?? explained.outcome)
    if (typeof verified !== 'string' && 'ok' in verified) await keys.release(verified as never).catch(ignore)
  }

  /** Everything that a verification could have spent or noted. */
  private async counts(id: string): Promise<unknown> {
    // The other process, or this one would hold the record.
    const limits = await this.there.keys.limits(id)
    return { limits, apiKey: await this.here.keys.get(id) }
  }
}

function textOf(text: Text, key: string): string {
  switch (text) {
    case 'wrong':
      return forgeKey(key, { secret: 'x'.repeat(43) })
    case 'unknown':
      return forgeKey(key, { keyId: 'A'.repeat(16) })
    case 'other_prefix':
      return forgeKey(key, { prefix: 'other' })
    case 'cut':
      return key.slice(0, -1)
    case 'padded':
      return ` ${key}`
    case 'old':
      return OLD_KEYS[key.charCodeAt(key.length - 1) % 2] as string
    default:
      return key
  }
}

/** What came of a call; a fault, or a wrong argument, as its message. */
async function outcomeOf<T>(call: () => Promise<T>): Promise<T | string> {
  try {
    return await call()
  } catch (error) {
    return String(error)
  }
}

type Outcome = Explanation | VerifyResult | string

/** What an explanation and a verification have in common, but for how long to wait. */
function summaryOf(outcome: Outcome): unknown {
  if (typeof outcome === 'string') return outcome
  const isExplanation = 'steps' in outcome
  const code = isExplanation ? outcome.outcome : outcome.ok ? 'admitted' : outcome.code
  return {
    code,
    reason: 'reason' in outcome ? outcome.reason : null,
    missing: missingOf(outcome),
    // What is admitted is shown as it stands afterwards.
    limits:
      code === 'rate_limited' && 'limits' in outcome
        ? outcome.limits.filter(({ type }) => type !== 'quota')
        : null,
  }
}

/** Leaking buckets are rounded. */
function expectSameWait(explained: Outcome, verified: Outcome): void {
  const [one, other] = [explained, verified].map((outcome) =>
    typeof outcome !== 'string' && 'retryAfterMs' in outcome ? outcome.retryAfterMs : null,
  )
  if (typeof one !== 'number' || typeof other !== 'number') expect(one).toBe(other)
  else expect(Math.abs(one - other)).toBeLessThanOrEqual(2)
}

function missingOf(outcome: Explanation | VerifyResult): unknown {
  if ('missing' in outcome) return outcome.missing
  if (!('steps' in outcome) || outcome.outcome !== 'insufficient_permissions') return null
  return outcome.steps.find(({ step }) => step === 'permissions')?.read.missing
}

/** Each step once, the first of those that refuse being the one that decides. */
function requireSteps(explained: Explanation | string): void {
  if (typeof explained === 'string') return
  const { outcome, steps } = explained
  expect(new Set(steps.map(({ step }) => step)).size).toBe(14)
  expect(steps).toHaveLength(14)
  expect(steps.some((step) => step.outcome === 'refused')).toBe(outcome !== 'admitted')
}

const ignore = () => {}

/** Every outcome that some run has come to. */
const seen = new Set<string>()

it(`an explanation agrees with the verification after it, and leaves no trace (MODEL_SEED=${seed})`, {
  timeout: 30_000 + 500 * runs,
}, async () => {
  await fc.assert(
    fc.asyncProperty(
      anySetting,
      fc.tuple(anySettings, anySettings, anySettings),
      fc.array(anyStep, { minLength: 5, maxLength: 25 }),
      async (setting, settings, steps) => {
        const world = new World(setting)
        await world.issue(settings)
        for (const step of steps) await world.take(step)
      },
    ),
    { seed, numRuns: runs },
  )
  if (runs < 300) {
    expect(seen.size).toBeGreaterThan(5)
    return
  }
  expect([...seen].sort()).toEqual([
    'address_not_allowed',
    'admitted',
    'disabled',
    'expired',
    'idle',
    'insufficient_permissions',
    'malformed',
    'owner_inactive',
    'prefix_not_accepted',
    'quota_exceeded',
    'rate_limited',
    'revoked',
    'too_many_failures',
    'unknown',
    'wrong_secret',
  ])
})
