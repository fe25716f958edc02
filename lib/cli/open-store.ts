import { access } from 'node:fs/promises'
import { resolve } from 'node:path'
import { systemClock } from '../core/clock.ts'
import { createDependencyRunner } from '../core/faults.ts'
import type { KeyStore } from '../core/keys/key-store.ts'
import { createStoreAccess } from '../core/store-access.ts'
import { checkObject } from '../internal/options.ts'
import { redisStore } from '../stores/redis/redis-store.ts'
import { mysqlStore } from '../stores/sql/mysql.ts'
import { postgresStore } from '../stores/sql/postgres.ts'
import { sqliteStore } from '../stores/sql/sqlite.ts'
import { type Address, readStoreAddress, type StoreKind } from './addresses.ts'
import { CliError, usageError } from './cli-error.ts'
import type { LatchkeyConfig, StoreAddress } from './config.ts'
import { firstLine } from './describe-error.ts'
import { EXIT } from './exit-codes.ts'
import type { CliIo } from './io.ts'
import { addressOf, type Configuration, isAddress } from './load-config.ts'
import { loadDriver } from './load-driver.ts'
import { openRedis } from './open-redis.ts'
import type { Output } from './output.ts'

/** A store, and what `doctor` asks of its database. */
export interface OpenStore {
  /** The store with a deadline, and its failures as `unavailable`. */
  readonly store: KeyStore
  /** The store itself. */
  readonly raw: KeyStore
  /** `given` for one that the configuration has made itself. */
  readonly kind: StoreKind | 'given'
  /** For people, without a password. */
  readonly shown: string
  /** Runs SQL; null where that is not possible. */
  readonly query: ((sql: string) => Promise<Record<string, unknown>>) | null
  /** Sends a command to Redis; null for other stores. */
  readonly command: ((...words: string[]) => Promise<unknown>) | null
  close(): Promise<void>
}

/**
 * Opens a store of the configuration: the usual one, or one by its name in `stores`, or by `env:NAME`.
 *
 * @throws CliError
 */
export async function openStore(
  io: CliIo,
  output: Output,
  configuration: Configuration,
  name: string | undefined,
  mayCreate = false,
): Promise<OpenStore> {
  const value = name === undefined ? configuration.store : storeByName(configuration, name)
  if (value === undefined) throw usageError(missingStore(configuration))
  if (!isAddress(value)) return guarded(givenStore(value as KeyStore, name))
  const given = addressOf<StoreAddress>(value)
  const address = readStoreAddress(given, io, output)
  try {
    checkObject('store', given, ['address', 'table', 'schema', 'keyPrefix'])
    return guarded(await OPENERS[address.kind]({ io, address, given, mayCreate }))
  } catch (error) {
    // Of a wrong table or schema.
    if (error instanceof CliError) throw error
    throw usageError(`store: ${firstLine(error)}`)
  }
}

type Opened = Omit<OpenStore, 'store'>

/** Long enough for a batch of thousands of keys. */
const TIMEOUT_MS = 60_000

function guarded(opened: Opened): OpenStore {
  const guard = createDependencyRunner(systemClock, TIMEOUT_MS, () => {})
  return { ...opened, store: createStoreAccess(opened.raw, guard) }
}

function storeByName({ given }: Configuration, name: string): LatchkeyConfig['store'] {
  if (/^env:/.test(name)) return name
  const named = given.stores && Object.hasOwn(given.stores, name) ? given.stores[name] : undefined
  if (named !== undefined) return named
  const known = Object.keys(given.stores ?? {})
  const hint = known.length > 0 ? `it names ${known.join(', ')}` : 'it has no "stores"'
  throw usageError(
    `the configuration has no store of this name (${hint}); env:NAME reads an address from the environment`,
  )
}

function missingStore({ file, given }: Configuration): string {
  if (given.keys)
    return 'this command works on the store itself: add "store" to the configuration, beside "keys"'
  if (file) return 'the configuration has no "store", and LATCHKEY_STORE is not set'
  return 'no store is configured: write latchkey.config.ts, or set LATCHKEY_STORE to its address'
}

function givenStore(store: KeyStore, name: string | undefined): Opened {
  const isStore = typeof store?.find === 'function' && typeof store.list === 'function'
  if (!isStore) throw usageError(`"${name ?? 'store'}" must be an address or a store`)
  const shown = name ?? 'the store of the configuration'
  return { raw: store, kind: 'given', shown, query: null, command: null, close: async () => {} }
}

interface Opening {
  readonly io: CliIo
  readonly address: Address
  readonly given: StoreAddress
  /** Whether a file that does not exist is created. */
  readonly mayCreate: boolean
}

const CONNECT_MS = 5_000
const OPENERS: Readonly<Record<StoreKind, (opening: Opening) => Promise<Opened>>> = {
  postgres: openPostgres,
  mysql: openMysql,
  sqlite: openSqlite,
  redis: openRedisStore,
}

async function openPostgres({ io, address, given }: Opening): Promise<Opened> {
  const { name, module } = loadDriver<never>(io, 'PostgreSQL', ['pg', 'postgres'])
  const { pool, query, end } = name === 'pg' ? openPg(module, address) : openPostgresJs(module, address)
  const store = postgresStore(pool, tableOf(given, ['table', 'schema']))
  return { raw: store, kind: 'postgres', shown: address.shown, query, command: null, close: end }
}

interface OpenPool {
  readonly pool: never
  query(sql: string): Promise<Record<string, unknown>>
  end(): Promise<void>
}

interface Pg {
  Pool: new (
    options: object,
  ) => {
    query(sql: string): Promise<{ rows: Record<string, unknown>[] }>
    end(): Promise<void>
    on(event: 'error', listener: () => void): unknown
  }
}

function openPg({ Pool }: Pg, { target }: Address): OpenPool {
  const pool = new Pool({
    connectionString: target,
    max: 2,
    connectionTimeoutMillis: CONNECT_MS,
    application_name: 'latchkey',
  })
  // The next statement reports it.
  pool.on('error', () => {})
  return {
    pool: pool as never,
    query: async (sql) => (await pool.query(sql)).rows[0] ?? {},
    end: () => pool.end(),
  }
}

type PostgresJs = (
  url: string,
  options: object,
) => {
  unsafe(sql: string): Promise<Record<string, unknown>[]>
  end(options: object): Promise<void>
}

function openPostgresJs(module: PostgresJs | { default: PostgresJs }, { target }: Address): OpenPool {
  const connect = typeof module === 'function' ? module : module.default
  const sql = connect(target, { max: 2, connect_timeout: CONNECT_MS / 1_000, onnotice: () => {} })
  return {
    pool: sql as never,
    query: async (text) => (await sql.unsafe(text))[0] ?? {},
    end: () => sql.end({ timeout: 1 }),
  }
}

interface Mysql {
  createPool(options: object): {
    promise(): { query(sql: string): Promise<[Record<string, unknown>[], unknown]>; end(): Promise<void> }
  }
}

async function openMysql({ io, address, given }: Opening): Promise<Opened> {
  const { module } = loadDriver<Mysql>(io, 'MySQL or MariaDB', ['mysql2'])
  const pool = module.createPool({ uri: address.target, connectionLimit: 2, connectTimeout: CONNECT_MS })
  const store = mysqlStore(pool as never, tableOf(given, ['table', 'schema']))
  const query = async (sql: string) => (await pool.promise().query(sql))[0][0] ?? {}
  return {
    raw: store,
    kind: 'mysql',
    shown: address.shown,
    query,
    command: null,
    close: () => pool.promise().end(),
  }
}

async function openSqlite({ io, address, given, mayCreate }: Opening): Promise<Opened> {
  const file = resolve(io.cwd, address.target)
  if (!mayCreate) await refuseMissing(file, address)
  const store = sqliteStore(file, tableOf(given, ['table']))
  return {
    raw: store,
    kind: 'sqlite',
    shown: address.shown,
    query: null,
    command: null,
    close: () => store.close(),
  }
}

/** SQLite would create an empty file, and a wrong name would look like a database without keys. */
async function refuseMissing(file: string, { shown }: Address): Promise<void> {
  await access(file).catch(() => {
    throw new CliError(`there is no database ${shown}: latchkey migrate creates it`, EXIT.unavailable)
  })
}

async function openRedisStore({ io, address, given }: Opening): Promise<Opened> {
  const redis = await openRedis(io, address)
  // By itself, the store would only say that the connection is closed.
  await redis.command('PING')
  const store = redisStore(redis.client, given.keyPrefix === undefined ? {} : { keyPrefix: given.keyPrefix })
  const { shown, command } = redis
  return { raw: store, kind: 'redis', shown, query: null, command, close: async () => redis.close() }
}

function tableOf(given: StoreAddress, known: readonly ('table' | 'schema')[]): Partial<StoreAddress> {
  const options: Partial<StoreAddress> = {}
  for (const name of known) if (given[name] !== undefined) options[name] = given[name]
  return options
}
