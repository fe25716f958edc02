import { execFile } from 'node:child_process'
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Redis } from 'ioredis'
import { temporaryFolder } from './cleaner.ts'
import { findRedisServer } from './redis-binary.ts'
import { HOST, launch, launchAnywhere, pauseServer, resumeServer } from './server-process.ts'

const CLUSTER_LIMIT_MS = 20_000
const SLOTS = 16_384
/** Where a node of a Cluster keeps what it knows of the others. */
const NODES_FILE = 'nodes.conf'

export interface RedisOptions {
  /**
   * The program to run; a test has it from `inject('redisBinary')`.
   *
   * @default what `findRedisServer` finds
   */
  binary?: string
  /** More of its command line, as `['--maxmemory', '2mb']`. It comes last, and so prevails. */
  args?: readonly string[]
}

/** A server of our own on a loopback port, which keeps nothing on disk. It never outlives this process. */
export interface RedisServer {
  readonly port: number
  /** `redis://127.0.0.1:<port>` */
  readonly url: string
  /** Of the process that runs now or, after `kill`, ran last. */
  readonly pid: number
  /** Stops the process where it is: connections stay open, and nothing is answered. */
  pause(): void
  resume(): void
  /** Ends the process at once, as a crash does, and resolves when it is gone. */
  kill(): Promise<void>
  /**
   * Starts it at the same port with no data, after killing it if it still runs. A node of a Cluster still knows the
   * others and its slots.
   */
  restart(): Promise<void>
  /** Kills it and removes its folder. */
  stop(): Promise<void>
}

export interface ClusterOptions extends RedisOptions {
  /**
   * How many nodes share the slots.
   *
   * @default 3
   */
  primaries?: number
  /**
   * How many replicas each primary has.
   *
   * @default 0
   */
  replicas?: 0 | 1
}

export interface ClusterNode {
  readonly host: string
  readonly port: number
  readonly server: RedisServer
  /** What it was when the Cluster came up; a failover does not change it. */
  readonly role: 'primary' | 'replica'
}

export interface RedisCluster {
  /** The primaries in the order of their slots, then the replicas in the order of their primaries. */
  readonly nodes: readonly ClusterNode[]
  stop(): Promise<void>
}

/** Starts a server and resolves once it accepts connections. */
export async function startRedis({ binary, args = [] }: RedisOptions = {}): Promise<RedisServer> {
  const program = binary ?? (await findRedisServer())
  const folder = temporaryFolder('redis')
  const settings = [
    ['--bind', HOST],
    ['--save', ''],
    ['--appendonly', 'no'],
    ['--dir', folder],
    await debugSetting(program),
    args,
  ].flat()
  const launchAt = (port: number) =>
    launch(program, ['--port', String(port), ...settings], { ready: 'Ready to accept connections' })
  let { port, running } = await launchAnywhere(launchAt)

  async function kill(): Promise<void> {
    running.child.kill('SIGKILL')
    await running.ended
  }

  return {
    port,
    url: `redis://${HOST}:${port}`,
    get pid() {
      return running.child.pid as number
    },
    pause: () => pauseServer(running, port),
    resume: () => resumeServer(running, port),
    kill,
    async restart() {
      await kill()
      forgetData(folder)
      running = await launchAt(port)
    },
    async stop() {
      await kill()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Starts a Cluster and resolves once every node can serve and every replica has caught up with its primary. */
export async function startCluster({
  primaries = 3,
  replicas = 0,
  binary,
  args = [],
}: ClusterOptions = {}): Promise<RedisCluster> {
  const program = binary ?? (await findRedisServer())
  const settings = [
    ['--cluster-enabled', 'yes'],
    ['--cluster-node-timeout', '1000'],
    ['--cluster-config-file', NODES_FILE],
    // Otherwise the node that introduces the others never learns its own address.
    ['--cluster-announce-ip', HOST],
    // A first synchronisation would wait five seconds for more replicas to come.
    ['--repl-diskless-sync-delay', '0'],
    args,
  ].flat()
  const servers = await startAll(primaries * (1 + replicas), { binary: program, args: settings })
  const nodes = servers.map((server, i) => {
    const role = i < primaries ? ('primary' as const) : ('replica' as const)
    return { host: HOST, port: server.port, server, role }
  })
  const stop = async () => void (await Promise.all(servers.map((server) => server.stop())))
  try {
    await formCluster(nodes)
  } catch (error) {
    await stop()
    throw error
  }
  return { nodes, stop }
}

/** DEBUG SLEEP and the like are refused since Redis 7 unless they are asked for; before, the setting is unknown. */
async function debugSetting(program: string): Promise<string[]> {
  const { stdout } = await promisify(execFile)(program, ['--version'])
  const [, major = ''] = /v=(\d+)\./.exec(stdout) ?? []
  return Number(major) >= 7 ? ['--enable-debug-command', 'yes'] : []
}

/** A full synchronisation leaves a dump behind, which the next start would load. */
function forgetData(folder: string): void {
  for (const name of readdirSync(folder)) {
    if (name !== NODES_FILE) rmSync(join(folder, name), { recursive: true, force: true })
  }
}

/** All of them or none. */
async function startAll(count: number, options: RedisOptions): Promise<RedisServer[]> {
  const starts = await Promise.allSettled(Array.from({ length: count }, () => startRedis(options)))
  const servers = starts.flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []))
  const failure = starts.find((start) => start.status === 'rejected')
  if (failure === undefined) return servers
  await Promise.all(servers.map((server) => server.stop()))
  throw failure.reason
}

async function formCluster(nodes: readonly ClusterNode[]): Promise<void> {
  const clients = nodes.map(({ host, port }) => new Redis({ host, port }))
  const primaries = clients.filter((_client, i) => nodes[i]?.role === 'primary')
  const replicas = clients.slice(primaries.length)
  try {
    await Promise.all(clients.map((client, i) => cluster(client, 'SET-CONFIG-EPOCH', i + 1)))
    await Promise.all(
      primaries.map((client, i) => cluster(client, 'ADDSLOTS', ...slotsOf(i, primaries.length))),
    )
    const [introducer, ...others] = clients as [Redis, ...Redis[]]
    for (const { options } of others) await cluster(introducer, 'MEET', HOST, options.port as number)
    await untilAll(clients, (client) => knowsAll(client, nodes.length))
    const ids = await Promise.all(primaries.map((client) => cluster(client, 'MYID')))
    await Promise.all(
      replicas.map((client, i) => cluster(client, 'REPLICATE', ids[i % ids.length] as string)),
    )
    await untilAll(clients, (client) => isComplete(client, replicas.length))
  } finally {
    for (const client of clients) client.disconnect()
  }
}

async function cluster(client: Redis, subcommand: string, ...args: (string | number)[]): Promise<string> {
  return String(await client.call('CLUSTER', subcommand, ...args))
}

/** An equal share for each; the last one takes what remains. */
function slotsOf(i: number, primaries: number): number[] {
  const [from, to] = [i, i + 1].map((share) => Math.floor((share * SLOTS) / primaries)) as [number, number]
  return Array.from({ length: to - from }, (_, slot) => from + slot)
}

async function knowsAll(client: Redis, count: number): Promise<boolean> {
  const nodes = await cluster(client, 'NODES')
  return nodes.trim().split('\n').length === count && !nodes.includes('handshake')
}

async function isComplete(client: Redis, replicas: number): Promise<boolean> {
  const [info, nodes, replication] = [
    await cluster(client, 'INFO'),
    await cluster(client, 'NODES'),
    await client.info('replication'),
  ]
  const isLinked = replication.includes('role:master') || replication.includes('master_link_status:up')
  const replicasSeen = [...nodes.matchAll(/\bslave\b/g)].length
  return info.includes('cluster_state:ok') && replicasSeen === replicas && isLinked
}

async function untilAll(
  clients: readonly Redis[],
  check: (client: Redis) => Promise<boolean>,
): Promise<void> {
  const giveUpAt = performance.now() + CLUSTER_LIMIT_MS
  for (const client of clients) {
    while (!(await check(client))) {
      if (performance.now() > giveUpAt) {
        throw new Error(`no Cluster after ${CLUSTER_LIMIT_MS} ms:\n${await cluster(client, 'NODES')}`)
      }
      await setTimeout(25)
    }
  }
}
