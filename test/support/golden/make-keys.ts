import { createHash } from 'node:crypto'
import bcrypt from 'bcrypt'
import {
  type ApiKeys,
  type ApiKeysOptions,
  createApiKeys,
  type ImportedDigest,
  type ImportedKey,
  type IssuedKey,
  type IssueOptions,
  type KeyStore,
  memoryRateLimiter,
  memoryStore,
  type VerifyOptions,
} from 'latchkey'
import imports from '../../golden/imports.json' with { type: 'json' }
import { type FakeClock, fakeClock } from '../fake-clock.ts'
import { askKey } from './ask-key.ts'
import { GOLDEN_FORMATS } from './golden-formats.ts'
import { asJson, compareVersions, type FrozenKeys, type FrozenOptions, toRecord } from './releases.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR
const FAR = 20 * 366 * DAY
/** Half past eleven at night in Berlin, so that a day ends there soon. */
const BEGIN = Date.UTC(2026, 10, 20, 22, 30, 15, 123)

const USER = { type: 'user', id: 'u_1' }
const OLDER = { id: '2025-old', secret: 'the pepper before it, which still has to be accepted' }
const OPTIONS: FrozenOptions = {
  prefix: 'golden',
  peppers: [{ id: '2026', secret: 'a pepper for golden keys, not for anything that is secret' }, OLDER],
  rateLimits: [{ name: 'default', limit: 3, windowMs: MINUTE }],
}
const FORMATS = Object.keys(GOLDEN_FORMATS)

/** Who makes a key. */
type Maker = 'sha256' | 'current' | 'older' | 'bcrypt'

interface Plan {
  readonly title: string
  readonly by?: Maker
  readonly settings?: Omit<Partial<IssueOptions>, 'name'> & { name?: string }
  /** What happens to it afterwards; a successor takes its place. */
  readonly afterwards?: (keys: ApiKeys, issued: IssuedKey) => Promise<unknown>
  /** Which key is asked about. */
  readonly asked?: 'issued' | 'successor'
  readonly asks: readonly Ask[]
}

interface Ask {
  /** Milliseconds after everything was made. */
  readonly after?: number
  readonly ask?: VerifyOptions
  /** What must come of it: `ok`, or the code or reason of the refusal. */
  readonly wanted: string
}

const OK: Ask = { wanted: 'ok' }
const OK_FOREVER: readonly Ask[] = [OK, { after: FAR, wanted: 'ok' }]

/** `n` calls that pass and one that does not. */
const passes = (n: number, refusal: string, ask: VerifyOptions = {}): Ask[] => [
  ...Array.from({ length: n }, () => ({ ask, wanted: 'ok' })),
  { ask, wanted: refusal },
]

const PLANS: readonly Plan[] = [
  { title: 'sha256', by: 'sha256', asks: OK_FOREVER },
  { title: 'hmac under the current pepper', asks: OK_FOREVER },
  { title: 'hmac under the older pepper', by: 'older', asks: OK_FOREVER },
  { title: 'bcrypt', by: 'bcrypt', asks: OK_FOREVER },
  { title: 'another prefix', settings: { prefix: 'Other_2' }, asks: OK_FOREVER },
  {
    title: 'another prefix than the one asked for',
    asks: [
      { ask: { prefix: ['golden'] }, wanted: 'ok' },
      { ask: { prefix: 'Other_2' }, wanted: 'prefix_not_accepted' },
    ],
  },
  {
    title: 'revoked',
    afterwards: (keys, { apiKey }) =>
      keys.revoke(apiKey.id, { by: 'admin_1', reason: 'leaked — «so it goes»' }),
    asks: [{ wanted: 'revoked' }, { after: FAR, wanted: 'revoked' }],
  },
  {
    title: 'disabled',
    afterwards: (keys, { apiKey }) => keys.disable(apiKey.id),
    asks: [{ wanted: 'disabled' }, { after: FAR, wanted: 'disabled' }],
  },
  {
    title: 'enabled again',
    async afterwards(keys, { apiKey }) {
      await keys.disable(apiKey.id)
      await keys.enable(apiKey.id)
    },
    asks: OK_FOREVER,
  },
  {
    title: 'expires in an hour',
    settings: { expiresAt: new Date(BEGIN + HOUR) },
    asks: [OK, { after: HOUR, wanted: 'expired' }],
  },
  {
    title: 'idle after an hour, never used',
    settings: { idleExpiryMs: HOUR },
    asks: [
      { after: HOUR - MINUTE, wanted: 'ok' },
      { after: 3 * HOUR, wanted: 'idle' },
    ],
  },
  {
    title: 'idle after a day, used',
    settings: { idleExpiryMs: DAY },
    afterwards: (keys, { key }) => keys.verify(key, { ip: '192.0.2.7' }),
    asks: [OK, { after: DAY - MINUTE, wanted: 'ok' }, { after: 3 * DAY, wanted: 'idle' }],
  },
  {
    title: 'used',
    afterwards: (keys, { key }) => keys.verify(key, { ip: '2001:db8::7', cost: 0 }),
    asks: OK_FOREVER,
  },
  {
    title: 'rotated, with a grace of an hour',
    afterwards: (keys, { apiKey }) => keys.rotate(apiKey.id, { graceMs: HOUR }),
    asks: [OK, { after: HOUR, wanted: 'expired' }],
  },
  {
    title: 'the successor of a rotated key',
    afterwards: (keys, { apiKey }) => keys.rotate(apiKey.id),
    asked: 'successor',
    asks: OK_FOREVER,
  },
  {
    title: 'changed, twice',
    async afterwards(keys, { apiKey }) {
      await keys.update(apiKey.id, { name: 'renamed', metadata: { plan: 'pro' } })
      await keys.update(apiKey.id, { permissions: { projects: ['read'] }, allowedIps: null })
    },
    asks: [{ ask: { permissions: { projects: ['read'] } }, wanted: 'ok' }],
  },
  {
    title: 'a quota of three',
    settings: { quota: { remaining: 3 }, rateLimits: [] },
    asks: [...passes(3, 'quota_exceeded'), { after: FAR, wanted: 'quota_exceeded' }],
  },
  {
    title: 'a quota, in part with a limiter that is gone',
    settings: { quota: { remaining: 150 } },
    afterwards: (keys, { key }) => keys.verify(key),
    asks: [{ ask: { cost: 1 }, wanted: 'ok' }],
  },
  {
    title: 'a quota that is refilled every hour',
    settings: { quota: { remaining: 1, refill: { amount: 2, everyMs: HOUR } }, rateLimits: [] },
    asks: [...passes(1, 'quota_exceeded'), { after: HOUR, wanted: 'ok' }],
  },
  {
    title: 'a quota that is refilled every month in New York',
    settings: {
      quota: { remaining: 0, refill: { amount: 5, per: 'month', timeZone: 'America/New_York' } },
    },
    asks: [{ wanted: 'quota_exceeded' }, { after: 11 * DAY, wanted: 'ok' }],
  },
  {
    title: 'a quota that was removed',
    settings: { quota: { remaining: 0 } },
    afterwards: removeQuota,
    asks: [OK],
  },
  {
    title: 'rateLimits null: the default holds',
    settings: { rateLimits: null },
    asks: passes(3, 'rate_limited'),
  },
  {
    title: 'rateLimits []: none hold',
    settings: { rateLimits: [] },
    asks: Array.from({ length: 5 }, () => OK),
  },
  {
    title: 'a window',
    settings: { rateLimits: [{ name: 'minute', limit: 2, windowMs: MINUTE }] },
    asks: [...passes(2, 'rate_limited'), { after: MINUTE, wanted: 'ok' }],
  },
  {
    title: 'a token bucket',
    settings: { rateLimits: [{ name: 'burst', limit: 30, windowMs: MINUTE, burst: 2 }] },
    asks: [
      ...passes(2, 'rate_limited'),
      { after: 2_000, wanted: 'ok' },
      { after: 2_000, wanted: 'rate_limited' },
    ],
  },
  {
    title: 'a calendar day',
    settings: { rateLimits: [{ name: 'day', limit: 1, per: 'day' }] },
    asks: [...passes(1, 'rate_limited'), { after: DAY, wanted: 'ok' }],
  },
  {
    title: 'a calendar day in Berlin',
    settings: { rateLimits: [{ name: 'day', limit: 1, per: 'day', timeZone: 'Europe/Berlin' }] },
    asks: [...passes(1, 'rate_limited'), { after: 30 * MINUTE, wanted: 'ok' }],
  },
  {
    title: 'a calendar month at an offset',
    settings: { rateLimits: [{ name: 'month', limit: 1, per: 'month', timeZone: '+05:30' }] },
    asks: [...passes(1, 'rate_limited'), { after: 10 * DAY, wanted: 'ok' }],
  },
  {
    title: 'several limits at once',
    settings: {
      rateLimits: [
        { name: 'second', limit: 10, windowMs: 1_000 },
        { name: 'minute', limit: 2, windowMs: MINUTE },
        { name: 'month', limit: 1_000_000, per: 'month' },
      ],
    },
    asks: passes(2, 'rate_limited'),
  },
  {
    title: 'addresses and blocks',
    settings: { allowedIps: ['192.0.2.0/24', '2001:db8::/32', '198.51.100.7'] },
    asks: [
      { ask: { ip: '192.0.2.200' }, wanted: 'ok' },
      { ask: { ip: '2001:db8:1::1' }, wanted: 'ok' },
      { ask: { ip: '198.51.100.8' }, wanted: 'address_not_allowed' },
      { wanted: 'address_not_allowed' },
    ],
  },
  {
    title: 'permissions',
    settings: { permissions: { projects: ['read', 'write'], 'reports:monthly': ['*'] }, rateLimits: [] },
    asks: [
      { ask: { permissions: { projects: ['write'] } }, wanted: 'ok' },
      { ask: { permissions: { 'reports:monthly': ['export'] } }, wanted: 'ok' },
      { ask: { permissions: [{ users: ['read'] }, { projects: ['read'] }] }, wanted: 'ok' },
      { ask: { permissions: { projects: ['delete'], users: ['read'] } }, wanted: 'insufficient_permissions' },
    ],
  },
  {
    title: 'every permission',
    settings: { permissions: { '*': ['*'] } },
    asks: [{ ask: { permissions: { anything: ['at', 'all'] } }, wanted: 'ok' }],
  },
  {
    title: 'of an organisation, issued by a person',
    settings: { owner: { type: 'organization', id: 'org_1' }, createdBy: 'u_2' },
    asks: OK_FOREVER,
  },
  { title: 'of a service', settings: { owner: { type: 'service', id: 'billing' } }, asks: OK_FOREVER },
  {
    title: 'of a kind of owner of its own',
    settings: { owner: { type: 'Büro', id: 'N° 7' } },
    asks: OK_FOREVER,
  },
  {
    title: 'Unicode',
    settings: {
      name: 'ключ 鍵 🔑 é é “”\t\\ \'"',
      owner: { type: 'user', id: 'ünï-😀-用户' },
      createdBy: 'Ωmega',
      metadata: { ключ: ['鍵', { '🔑': 'é vs é', nul: '\u0000', line: '\u2028' }], '': '' },
    },
    asks: OK_FOREVER,
  },
  {
    title: 'metadata of every kind',
    settings: {
      metadata: {
        z: 1,
        a: [1.5, -0.25, 1e21, true, false, null, ''],
        createdAt: '2026-01-01T00:00:00.000Z',
        deep: { deeper: { deepest: [] } },
        __proto_like: {},
        '10': 'a number as a name',
      },
    },
    asks: OK_FOREVER,
  },
  {
    title: 'everything at once',
    settings: {
      createdBy: 'u_9',
      permissions: { projects: ['read'] },
      rateLimits: [{ name: 'hour', limit: 100, windowMs: HOUR }],
      quota: { remaining: 1_000, refill: { amount: 1_000, per: 'month' } },
      allowedIps: ['10.0.0.0/8'],
      expiresAt: new Date(BEGIN + 365 * DAY),
      idleExpiryMs: 90 * DAY,
      metadata: { team: 'loom' },
    },
    asks: [{ ask: { ip: '10.1.2.3', permissions: { projects: ['read'] } }, wanted: 'ok' }],
  },
]

/** Issues keys of every kind with the release that runs, and writes down how it answers for them. */
export async function makeGoldenKeys(release: string, store: KeyStore = memoryStore()): Promise<FrozenKeys> {
  const clock = fakeClock(BEGIN)
  const hasImports = compareVersions(release, '0.2.0') >= 0
  const options = hasImports ? { ...OPTIONS, formats: FORMATS } : OPTIONS
  const made = await issueAll(store, clock)
  const imported = hasImports ? await importAll(store, clock) : []
  const madeAt = new Date(clock.now()).toISOString()
  const records = asJson<FrozenKeys['records']>(await store.list({}, { limit: 1_000 }))
  const keys: FrozenKeys['keys'][number][] = []
  for (const { title, id, key, asks } of [...made, ...imported]) {
    const questions = asks.map(({ after = 0, ask = {} }) => ({
      at: new Date(clock.now() + after).toISOString(),
      ask,
    }))
    // Each on a store of its own: being asked is a use.
    const copy = memoryStore()
    await copy.insert(records.map(toRecord))
    const answers = await askKey(copy, options, key, questions)
    const got = answers.map((answer) => (answer.ok ? 'ok' : (answer.reason ?? answer.code)))
    const wanted = asks.map((ask) => ask.wanted)
    if (String(got) !== String(wanted)) throw new Error(`"${title}" was answered ${got}, not ${wanted}`)
    const answered = questions.map((question, i) => ({ ...question, answer: answers[i] as object }))
    keys.push({ title, id, key, answers: answered as never })
  }
  return { release, madeAt, options, keys, records }
}

interface Made {
  readonly title: string
  readonly id: string
  readonly key: string
  readonly asks: readonly Ask[]
}

async function issueAll(store: KeyStore, clock: FakeClock): Promise<Made[]> {
  const shared = { store, clock, rateLimiter: memoryRateLimiter({ clock }), prefix: OPTIONS.prefix }
  const makers: Record<Maker, ApiKeys> = {
    sha256: createApiKeys(shared),
    current: createApiKeys({ ...shared, peppers: OPTIONS.peppers }),
    older: createApiKeys({ ...shared, peppers: [OLDER] }),
    bcrypt: createApiKeys({ ...shared, digest: { scheme: 'bcrypt', cost: 4 } }),
  }
  const made: Made[] = []
  for (const { title, by = 'current', settings, afterwards, asked = 'issued', asks } of PLANS) {
    // No two at one moment, but for those of one rotation.
    clock.set(clock.now() + 1)
    const issued = await makers[by].issue({ owner: USER, name: title, ...settings })
    const result = (await afterwards?.(makers[by], issued)) as IssuedKey | undefined
    const { key, apiKey } = asked === 'successor' ? (result as IssuedKey) : issued
    made.push({ title, key, id: apiKey.id, asks })
  }
  for (const keys of Object.values(makers)) await keys.close()
  return made
}

async function removeQuota(keys: ApiKeys, { apiKey }: IssuedKey): Promise<void> {
  await keys.update(apiKey.id, { quota: null })
}

/** Keys that other products issued: digests of every scheme, of whole keys and of parts, as they were and upgraded. */
async function importAll(store: KeyStore, clock: FakeClock): Promise<Made[]> {
  const shared = { store, clock, rateLimiter: memoryRateLimiter({ clock }), prefix: OPTIONS.prefix }
  const formats = FORMATS.map((name) => (GOLDEN_FORMATS[name] as () => never)())
  const open = (options: Partial<ApiKeysOptions>) => createApiKeys({ ...shared, formats, ...options })
  const keys = open({ peppers: OPTIONS.peppers })
  const made: Made[] = []

  async function take(title: string, key: string, imported: Omit<ImportedKey, 'owner' | 'name'>) {
    clock.set(clock.now() + 1)
    const { id } = await keys.import({ owner: USER, name: title, ...imported })
    made.push({ title, id, key, asks: OK_FOREVER })
  }

  for (const [title, separator, digestOf] of await foreignDigests()) {
    const lookup = createHash('sha256').update(title).digest('hex').slice(0, 8)
    const key = `old_${lookup}${separator}${createHash('sha256').update(`secret of ${title}`).digest('hex').slice(0, 32)}`
    await take(`imported: ${title}`, key, { format: 'legacy', lookup, digest: await digestOf(key) })
    const upgrade = /upgraded to (.+)$/.exec(title)?.[1]
    if (upgrade === undefined) continue
    const upgrading = open({
      upgradeDigests: true,
      ...(upgrade === 'hmac' ? { peppers: OPTIONS.peppers } : { digest: { scheme: 'bcrypt', cost: 4 } }),
    })
    await upgrading.verify(key, { cost: 0 })
    await upgrading.close()
  }
  await take('imported: its text', 'old_itstext1.abcdefghijklmnopqrstuvwxyz012345', {
    format: 'legacy',
    key: 'old_itstext1.abcdefghijklmnopqrstuvwxyz012345',
  })
  for (const [title, key, imported] of vectors()) await take(`imported: ${title}`, key, imported)
  await keys.close()
  return made
}

async function foreignDigests() {
  const after = (separator: string, key: string) => key.slice(key.indexOf(separator) + 1)
  const hash = (name: 'sha256' | 'sha512', text: string) => createHash(name).update(text).digest('hex')
  const crypt = (text: string) => bcrypt.hash(text, 4)
  type DigestOf = (key: string) => Promise<ImportedDigest>
  const rows: [string, '|' | '.' | '_', DigestOf][] = [
    ['sha256', '.', async (key) => ({ hash: 'sha256', value: hash('sha256', key) })],
    ['sha512', '.', async (key) => ({ hash: 'sha512', value: hash('sha512', key) })],
    ['bcrypt', '.', async (key) => ({ hash: 'bcrypt', value: await crypt(key) })],
    [
      'sha256 of a part',
      '|',
      async (key) => ({ hash: 'sha256', value: hash('sha256', after('|', key)), of: { afterFirst: '|' } }),
    ],
    [
      'sha512 of a part',
      '_',
      async (key) => ({
        hash: 'sha512',
        value: hash('sha512', key.slice(key.lastIndexOf('_') + 1)),
        of: { afterLast: '_' },
      }),
    ],
    [
      'bcrypt of a part',
      '.',
      async (key) => ({ hash: 'bcrypt', value: await crypt(after('.', key)), of: { afterLast: '.' } }),
    ],
    [
      'sha256 of a part, upgraded to hmac',
      '|',
      async (key) => ({ hash: 'sha256', value: hash('sha256', after('|', key)), of: { afterFirst: '|' } }),
    ],
    [
      'sha512 of a part, upgraded to bcrypt',
      '.',
      async (key) => ({ hash: 'sha512', value: hash('sha512', after('.', key)), of: { afterLast: '.' } }),
    ],
  ]
  return rows
}

/** The first key of each product, by the lookup and the digest that its format reads. */
function vectors(): [string, string, Omit<ImportedKey, 'owner' | 'name'>][] {
  const digests: Record<string, (row: Record<string, unknown>) => ImportedDigest> = {
    'better-auth': (row) => ({ hash: 'sha256', value: String(row.key) }),
    sanctum: (row) => ({ hash: 'sha256', value: String(row.token), of: { afterFirst: '|' } }),
    'prefixed-api-key': (row) => ({
      hash: 'sha256',
      value: String(row.long_token_hash),
      of: { afterLast: '_' },
    }),
    'django-api-key': (row) => ({ hash: 'sha512', value: String(row.hashed_key).slice('sha512$$'.length) }),
    bcrypt: (row) => ({ hash: 'bcrypt', value: String(row.secret_hash), of: { afterFirst: '.' } }),
  }
  return Object.entries(digests).map(([format, digestOf]) => {
    const [vector] = imports.formats[format as 'sanctum'].vectors
    if (!vector) throw new Error(`there is no key of ${format}`)
    const { key, lookup, row } = vector
    return [`a key of ${format}`, key, { format, lookup, digest: digestOf(row) }]
  })
}
