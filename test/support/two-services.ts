import { randomUUID } from 'node:crypto'
import {
  type ApiKeysClient,
  createApiKeysClient,
  type IssuedKey,
  type IssueKeyRequest,
} from 'latchkey/client'
import { migrate } from 'latchkey/sql'
import { inject } from 'vitest'
import type { AuthTasks } from './auth-service.ts'
import type { ConsumerTasks } from './consumer.ts'
import { findFreePort } from './free-port.ts'
import { type HeldProxy, startHeldProxy } from './held-proxy.ts'
import { createPostgres } from './sql-databases.ts'
import { startTaskProcess, type TaskProcess } from './task-process.ts'
import { ALICE } from './test-keys.ts'

/** A process that has the keys. */
export interface AuthService {
  /** Manages them as an administrator, over HTTP. */
  readonly admin: ApiKeysClient
  readonly port: number
  /** Ends it as a crash does. */
  kill(): Promise<void>
  /** Starts it again at the same port, after killing it if it still runs. */
  restart(): Promise<void>
  /** Stops it where it is. */
  pause(): void
  resume(): void
  closePort(): Promise<void>
  openPort(): Promise<void>
}

/** A process that asks a service about keys. */
export interface Consumer extends TaskProcess<ConsumerTasks> {
  readonly port: number
  /** The service that it asks. */
  readonly service: AuthService
  /** Its own key. */
  readonly own: IssuedKey
}

export interface TwoServicesOptions {
  /** @default 1 */
  readonly services?: number
  /** They ask the services in turn. @default 1 */
  readonly consumers?: number
  readonly cacheMs: number
  readonly timeoutMs: number
}

/** Services that share a PostgreSQL and a Redis, and those that ask them: each a process of its own. */
export interface TwoServices extends Pick<TwoServicesOptions, 'cacheMs' | 'timeoutMs'> {
  readonly services: readonly [AuthService, ...AuthService[]]
  readonly consumers: readonly [Consumer, ...Consumer[]]
  /** The last of them, which asks the first service through a proxy. */
  readonly behindProxy: Consumer & { readonly proxy: HeldProxy }
  issue(settings?: Partial<IssueKeyRequest>): Promise<IssuedKey>
  stop(): Promise<void>
}

/** So many ticks make up the time that a client may take. */
const TICKS = 8
/** What a request may see of them: one more for the part of a tick at both ends, and one for what is done after the last. */
export const MOST_TICKS = TICKS + 2

/** What a consumer may do at a service. */
const MAY_VERIFY = { 'api-keys': ['verify'] }

export async function startTwoServices({
  services: serviceCount = 1,
  consumers: consumerCount = 1,
  cacheMs,
  timeoutMs,
}: TwoServicesOptions): Promise<TwoServices> {
  const database = await createPostgres()
  await migrate(database.open())
  const shared = { databaseUrl: database.url, redisUrl: inject('redisUrl'), name: `two-${randomUUID()}` }
  const services = await all(serviceCount, () => startService(shared))
  const [first] = services
  const proxy = await startHeldProxy(first.port)
  const issue = (settings: Partial<IssueKeyRequest> = {}) =>
    first.admin.issue({ owner: ALICE, name: 'CI', ...settings })

  async function startConsumer(service: AuthService, port: number) {
    const own = await issue({ name: 'consumer', permissions: MAY_VERIFY })
    const settings = { baseUrl: baseUrl(port), key: own.key, cacheMs, timeoutMs, tickMs: timeoutMs / TICKS }
    const started = startTaskProcess<ConsumerTasks>('consumer.ts', settings)
    return { ...started, port: await started.run('listen'), service, own }
  }

  const consumers = await all(consumerCount, (i) => {
    const service = services[i % serviceCount] ?? first
    return i === consumerCount - 1 ? startConsumer(first, proxy.port) : startConsumer(service, service.port)
  })
  return {
    cacheMs,
    timeoutMs,
    services,
    consumers,
    behindProxy: { ...(consumers.at(-1) as Consumer), proxy },
    issue,
    async stop() {
      proxy.stop()
      await Promise.all([...consumers, ...services].map((process) => process.kill()))
      await database.remove()
    },
  }
}

async function startService(shared: object): Promise<AuthService> {
  const [port, adminToken] = [await findFreePort(), randomUUID()]
  const launch = () => startTaskProcess<AuthTasks>('auth-service.ts', { ...shared, port, adminToken })
  let running = launch()
  await running.run('openPort')
  return {
    admin: createApiKeysClient({
      baseUrl: baseUrl(port),
      headers: { Authorization: `Bearer ${adminToken}` },
      timeoutMs: 60_000,
    }),
    port,
    kill: () => running.kill(),
    async restart() {
      await running.kill()
      running = launch()
      await running.run('openPort')
    },
    pause: () => running.pause(),
    resume: () => running.resume(),
    closePort: () => running.run('closePort'),
    openPort: () => running.run('openPort'),
  }
}

function baseUrl(port: number): string {
  return `http://127.0.0.1:${port}/api-keys`
}

async function all<T>(count: number, start: (i: number) => Promise<T>): Promise<[T, ...T[]]> {
  return (await Promise.all(Array.from({ length: count }, (_, i) => start(i)))) as [T, ...T[]]
}
