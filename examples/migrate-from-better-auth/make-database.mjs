/**
 * Makes the databases that the migration is tried on, each with better-auth itself:
 *
 *     npm ci && node make-database.mjs [directory]
 *
 * - `1.7.1.sqlite` by better-auth and @better-auth/api-key 1.7.1, with several configurations and owners
 * - `1.7.1-plain.sqlite` by the same with `disableKeyHashing`: the column `key` holds the keys
 * - `1.4.6.sqlite` by better-auth 1.4.6: column `userId`, no `referenceId` and `configId`, metadata stringified twice
 * - `keys.json` with the text of every key, what it was made from, and what better-auth answers to it
 *
 * Every key and every date is new each time. Without a directory they go to test/golden/better-auth, where
 * tests read them.
 */
import { randomUUID } from 'node:crypto'
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { apiKey } from '@better-auth/api-key'
import { betterAuth } from 'better-auth'
import { getMigrations } from 'better-auth/db/migration'
import { organization } from 'better-auth/plugins'
import { betterAuth as betterAuth14 } from 'better-auth-1.4'
import { getMigrations as getMigrations14 } from 'better-auth-1.4/db'
import { apiKey as apiKey14 } from 'better-auth-1.4/plugins'
import { Kysely, SqliteDialect } from 'kysely'
import Database from 'libsql'

const DAY = 86_400_000
const directory = process.argv[2] ?? fileURLToPath(new URL('../../test/golden/better-auth/', import.meta.url))

/** Neither bound of an expiry matters here. */
const anyExpiry = { keyExpiration: { minExpiresIn: 0, maxExpiresIn: 100_000 } }
/** The longest that fits the fixtures' purpose: they must not expire. */
const inFiftyYears = 50 * 365 * 86_400

const current = (plugin, rest = {}) => ({
  make: (database) =>
    betterAuth({ ...options(database), plugins: [organization(), apiKey(plugin)], ...rest }),
  migrations: getMigrations,
})

const databases = {
  '1.7.1.sqlite': {
    ...current([
      { configId: 'default', enableMetadata: true, ...anyExpiry },
      { configId: 'organizations', references: 'organization', enableMetadata: true },
      { configId: 'short', defaultKeyLength: 24, startingCharactersConfig: { shouldStore: false } },
      { configId: 'uuid', customKeyGenerator: () => randomUUID() },
      { configId: 'unlimited', rateLimit: { enabled: false } },
    ]),
    keys: [
      { title: 'nothing but defaults' },
      { title: 'a prefix', body: { prefix: 'acme_live_', name: 'CI' } },
      {
        title: 'a name and metadata',
        body: {
          name: 'Zürich — 東京 🗝',
          metadata: { plan: 'pro', tags: ['a', 'b'], nested: { quote: '"\\', n: 1.5, none: null } },
        },
      },
      {
        title: 'permissions',
        body: { permissions: { projects: ['read', 'write'], billing: ['read'] } },
        permissions: { projects: ['read'] },
      },
      { title: 'a quota', body: { remaining: 100 }, used: 2 },
      {
        title: 'a quota with refill',
        body: { remaining: 5, refillAmount: 100, refillInterval: 3_600_000 },
        used: 1,
      },
      { title: 'a quota that is used up', body: { remaining: 2 }, used: 2 },
      {
        title: 'a quota that is used up until its refill',
        body: { remaining: 1, refillAmount: 50, refillInterval: 30 * DAY },
        used: 1,
      },
      {
        title: 'a refill without a quota',
        body: { refillAmount: 3, refillInterval: DAY, remaining: null },
        used: 4,
      },
      {
        title: 'limits of its own',
        body: { rateLimitEnabled: true, rateLimitMax: 5, rateLimitTimeWindow: 60_000 },
      },
      { title: 'the rate limit switched off', body: { rateLimitEnabled: false } },
      { title: 'used before', used: 3 },
      { title: 'expires', body: { expiresIn: inFiftyYears } },
      { title: 'disabled', update: { enabled: false } },
      {
        title: 'of an organisation',
        owner: 'organization',
        body: { configId: 'organizations', prefix: 'org_' },
      },
      { title: 'shorter, and its beginning not stored', body: { configId: 'short' } },
      { title: 'made by a generator of the application', body: { configId: 'uuid' } },
      { title: 'a configuration without limits', body: { configId: 'unlimited' } },
      { title: 'of a user who was deleted', owner: 'deleted' },
      // Last: better-auth deletes expired keys whenever it makes another.
      { title: 'expired', body: { expiresIn: 1, name: 'gone' } },
    ],
  },
  '1.7.1-plain.sqlite': {
    ...current({ disableKeyHashing: true, enableMetadata: true, ...anyExpiry }),
    keys: [
      { title: 'nothing but defaults' },
      { title: 'a prefix', body: { prefix: 'sk-' } },
      { title: 'a quota and metadata', body: { remaining: 7, metadata: { team: 'ops' } }, used: 1 },
      { title: 'disabled', update: { enabled: false } },
      { title: 'expired', body: { expiresIn: 1 } },
    ],
  },
  '1.4.6.sqlite': {
    make: (database) =>
      betterAuth14({ ...options(database), plugins: [apiKey14({ enableMetadata: true, ...anyExpiry })] }),
    migrations: getMigrations14,
    keys: [
      { title: 'nothing but defaults' },
      { title: 'metadata', body: { metadata: { plan: 'pro', quote: '"\\', nested: { deep: ['ü'] } } } },
      {
        title: 'a prefix and permissions',
        body: { prefix: 'old_', name: 'old', permissions: { files: ['read'] } },
        permissions: { files: ['read'] },
      },
      {
        title: 'a quota with refill',
        body: { remaining: 10, refillAmount: 10, refillInterval: DAY },
        used: 3,
      },
      { title: 'the rate limit switched off', body: { rateLimitEnabled: false } },
      { title: 'expires', body: { expiresIn: inFiftyYears } },
      { title: 'disabled', update: { enabled: false } },
      { title: 'expired', body: { expiresIn: 1 } },
    ],
  },
}

mkdirSync(directory, { recursive: true })
const keys = []
for (const [name, database] of Object.entries(databases)) keys.push(...(await makeDatabase(name, database)))
writeFileSync(
  join(directory, 'keys.json'),
  `${JSON.stringify({ about: about(), madeAt: new Date(), keys }, null, 2)}\n`,
)
console.log(`${keys.length} keys in ${Object.keys(databases).length} databases in ${directory}`)

/** Makes the database file and answers with its keys. */
async function makeDatabase(name, { make, migrations, keys }) {
  const file = join(directory, name)
  rmSync(file, { force: true })
  const database = new Database(file)
  database.exec('pragma page_size = 1024') // most pages of a small database are empty
  const auth = make(database)
  await (await migrations(auth.options)).runMigrations()
  const owners = await makeOwners(auth)
  const made = []
  for (const key of keys) made.push(await makeKey(auth, owners, key))
  database.prepare('delete from user where id = ?').run(owners.deleted)
  // What needs a second, and the refill of an hour, must not depend on when the questions are asked.
  await delay(1_500)
  database.close()

  const answered = []
  for (const key of made) answered.push({ database: name, ...key, answer: await askACopy(file, make, key) })
  return answered
}

function options(database) {
  return {
    baseURL: 'http://localhost:3000',
    secret: 'only for databases that tests read, and nowhere else',
    database: { db: new Kysely({ dialect: new SqliteDialect({ database }) }), type: 'sqlite' },
    emailAndPassword: { enabled: true },
    telemetry: { enabled: false },
    logger: { disabled: true },
  }
}

async function makeOwners(auth) {
  const signUp = async (name) => {
    const body = { name, email: `${name}@users.example`, password: randomUUID() }
    return (await auth.api.signUpEmail({ body })).user.id
  }
  const owners = { user: await signUp('ada'), deleted: await signUp('former') }
  if (!auth.api.createOrganization) return owners
  const body = { name: 'Engines', slug: 'engines', userId: owners.user }
  return { ...owners, organization: (await auth.api.createOrganization({ body })).id }
}

async function makeKey(auth, owners, { title, owner = 'user', body = {}, update, used = 0, permissions }) {
  const userId = owner === 'deleted' ? owners.deleted : owners.user
  const whose = owner === 'organization' ? { userId, organizationId: owners.organization } : { userId }
  const { id, key } = await auth.api.createApiKey({ body: { ...whose, ...body } })
  const { configId } = body
  if (update) await auth.api.updateApiKey({ body: { keyId: id, userId, configId, ...update } })
  for (let i = 0; i < used; i += 1) {
    const { valid } = await auth.api.verifyApiKey({ body: { key, configId } })
    if (!valid) throw new Error(`use ${i + 1} of "${title}" was refused`)
  }
  const ownerIs =
    owner === 'organization'
      ? { type: 'organization', id: owners.organization }
      : { type: 'user', id: userId }
  return { title, id, key, owner: ownerIs, given: { ...body, ...update }, used, permissions }
}

/** What better-auth answers to the key. It writes with every answer, and deletes: so it is asked about a copy. */
async function askACopy(file, make, { key, given, permissions }) {
  const copy = join(tmpdir(), `${randomUUID()}.sqlite`)
  copyFileSync(file, copy)
  const database = new Database(copy)
  try {
    const body = { key, configId: given.configId, permissions }
    const { valid, error } = await make(database).api.verifyApiKey({ body })
    return { valid, code: error?.code ?? null }
  } finally {
    database.close()
    rmSync(copy)
  }
}

function about() {
  return [
    'Made by examples/migrate-from-better-auth/make-database.mjs, with better-auth itself and none of our code.',
    'Each of `keys` was made by createApiKey of the release that `database` is named after, with the options `given`,',
    'changed by updateApiKey where a member of `given` is no option of createApiKey, and used `used` times by',
    'verifyApiKey. `answer` is what verifyApiKey of the same release answers afterwards, asked about a copy of the',
    'file, with `permissions` where they are named. Of each file one user was deleted afterwards; nothing else of what',
    'better-auth wrote is altered.',
  ].join(' ')
}
