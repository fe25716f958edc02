import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { Cluster, type ClusterOptions, Redis, type RedisOptions } from 'ioredis'
import { describe, expect, inject, it, onTestFinished } from 'vitest'
import { fakeMachine } from '../support/fake-machine.ts'
import { startProgram } from '../support/program.ts'
import { isReachable } from '../support/reachable.ts'
import { findRedisServer } from '../support/redis-binary.ts'
import { type ClusterNode, type RedisServer, startCluster, startRedis } from '../support/redis-server.ts'

const binary = inject('redisBinary')

function clientOf(url: string, options: RedisOptions = {}): Redis {
  const client = new Redis(url, options)
  client.on('error', expectLoss)
  onTestFinished(() => client.disconnect())
  return client
}

function clusterClientOf(nodes: { host: string; port: number }[], options: ClusterOptions = {}): Cluster {
  const client = new Cluster(nodes, options)
  client.on('error', expectLoss)
  onTestFinished(() => client.disconnect())
  return client
}

/** Connections are lost here on purpose; the client would print each loss that nobody listens for. */
function expectLoss(): void {}

async function ownRedis(...args: string[]): Promise<RedisServer> {
  const server = await startRedis({ binary, args })
  onTestFinished(() => server.stop())
  return server
}

describe('the shared services', () => {
  it('include a Redis', async () => {
    expect(await clientOf(inject('redisUrl')).ping()).toBe('PONG')
  })

  it('include a Cluster that serves the slots of all its nodes', async () => {
    const nodes = inject('clusterNodes')
    const cluster = clusterClientOf(nodes)
    const keys = Array.from({ length: 50 }, (_, i) => `redis-server-test:${i}`)
    for (const key of keys) expect(await cluster.set(key, key)).toBe('OK')
    for (const key of keys) expect(await cluster.get(key)).toBe(key)
    const held = await Promise.all(
      nodes.map(({ port }) => clientOf(`redis://127.0.0.1:${port}`).keys('redis-server-test:*')),
    )
    expect(held.map((some) => some.length > 0)).toEqual([true, true, true])
    expect(held.flat().sort()).toEqual([...keys].sort())
    for (const key of keys) await cluster.del(key)
  })
})

describe('a server of one’s own', () => {
  it('answers nothing while it is paused, and goes on when it is resumed', async () => {
    const server = await ownRedis()
    const client = clientOf(server.url, { commandTimeout: 500 })
    await client.set('k', 'kept')
    server.pause()
    await expect(client.get('k')).rejects.toThrow('Command timed out')
    server.resume()
    expect(await client.get('k')).toBe('kept')
  })

  it('is killed, and starts again empty at the same port', async () => {
    const server = await ownRedis()
    const before = server.pid
    const client = clientOf(server.url)
    await client.set('k', 'lost')
    // Not even a dump comes back.
    await client.save()
    await server.kill()
    expect(await isReachable(server.port)).toBe(false)
    expect(() => server.pause()).toThrow('does not run')
    await server.restart()
    expect(server.pid).not.toBe(before)
    expect(await clientOf(server.url).get('k')).toBeNull()
  })

  it('takes further arguments, and lets a test make it sleep', async () => {
    const client = clientOf((await ownRedis('--maxmemory', '2mb')).url)
    expect(await client.config('GET', 'maxmemory')).toEqual(['maxmemory', '2097152'])
    expect(await client.call('DEBUG', 'SLEEP', '0')).toBe('OK')
  })

  it('says what the server said where it does not start', async () => {
    await expect(startRedis({ binary, args: ['--no-such-setting', 'yes'] })).rejects.toThrow(
      /ended before it was ready:[\s\S]*Bad directive or wrong number of arguments/,
    )
  })

  it('is killed with the process that started it, even if that is killed itself', async () => {
    const program = startProgram([
      '--input-type=module',
      '--eval',
      `import { startRedis } from './test/support/redis-server.ts'
       console.log((await startRedis({ binary: ${JSON.stringify(binary)} })).port + '!')`,
    ])
    const port = Number.parseInt(await program.waitFor(/!/), 10)
    expect(await isReachable(port)).toBe(true)
    program.signal('SIGKILL')
    await expect.poll(() => isReachable(port), { timeout: 5_000 }).toBe(false)
  })
})

describe('a Cluster with replicas', () => {
  it('lets a replica take over from a primary that was killed, and takes that back as a replica', async () => {
    const { nodes, stop } = await startCluster({ binary, replicas: 1 })
    onTestFinished(stop)
    expect(nodes.map(({ role }) => role)).toEqual([
      ...['primary', 'primary', 'primary'],
      ...['replica', 'replica', 'replica'],
    ])
    const cluster = clusterClientOf(nodes.map(({ host, port }) => ({ host, port })))
    const [killed, heir] = [nodes[0], nodes[3]] as [ClusterNode, ClusterNode]
    // Slot 0, and so kept by the first primary: CLUSTER KEYSLOT.
    const key = '3560'
    expect(await cluster.cluster('KEYSLOT', key)).toBe(0)
    await cluster.set(key, 'before')
    await killed.server.kill()
    await expect.poll(() => cluster.set(key, 'after').catch(String), { timeout: 10_000 }).toBe('OK')
    expect(await roleOf(heir)).toBe('master')
    await killed.server.restart()
    await expect.poll(() => roleOf(killed), { timeout: 10_000 }).toBe('slave')
    expect(await cluster.get(key)).toBe('after')
  })

  async function roleOf({ server }: ClusterNode): Promise<unknown> {
    const client = clientOf(server.url)
    const [role] = await client.role()
    client.disconnect()
    return role
  }
})

describe('the search for a server', () => {
  it('takes the program that REDIS_SERVER_BIN names, and nothing else', async () => {
    expect(await findRedisServer({ env: { REDIS_SERVER_BIN: binary } })).toBe(binary)
    await expect(findRedisServer({ env: { REDIS_SERVER_BIN: '/nowhere/redis-server' } })).rejects.toThrow(
      'REDIS_SERVER_BIN names no program: /nowhere/redis-server',
    )
  })

  it.each(['redis-server', 'valkey-server'])('finds %s on the PATH', async (name) => {
    const machine = fakeMachine({ [name]: '' })
    expect(await findRedisServer({ env: machine.env })).toBe(machine.path(name))
  })

  it('says what to install or to set where there is none and nothing can be installed', async () => {
    await expect(findRedisServer({ env: { PATH: '/nowhere' } })).rejects.toThrow(
      'No Redis server was found, and these tests run against a real one. Put redis-server or valkey-server on ' +
        'the PATH (Debian and Ubuntu: apt-get install redis-server; macOS: brew install redis), or name the ' +
        'program in REDIS_SERVER_BIN.',
    )
  })

  it('installs the package as root, after reading the lists anew where they are old', async () => {
    const machine = fakeMachine({
      dpkg: '',
      'apt-get': `
        echo "$DEBIAN_FRONTEND $*" >> "$HERE/log"
        [ "$1" = update ] && exec /bin/touch "$HERE/updated"
        [ -e "$HERE/updated" ] || exit 100
        /bin/cp "$HERE/dpkg" "$HERE/redis-server"`,
    })
    expect(await findRedisServer({ env: machine.env, isRoot: true })).toBe(machine.path('redis-server'))
    const install =
      'noninteractive install -o DPkg::Lock::Timeout=120 -y --no-install-recommends redis-server\n'
    expect(readFileSync(machine.path('log'), 'utf8')).toBe(`${install}noninteractive update\n${install}`)
  })

  it('unpacks the package as anybody else, once', async () => {
    const machine = fakeMachine({
      'apt-get': 'echo "$*" >> "$HERE/log"; : > redis-tools.deb',
      dpkg: '/bin/mkdir -p usr/bin usr/lib/any-linux && /bin/cp "$HERE/program" usr/bin/redis-check-rdb',
      program: 'echo "$0 $* $LD_LIBRARY_PATH"',
    })
    const cache = machine.path('cache')
    const search = () => findRedisServer({ env: machine.env, isRoot: false, cache })
    const found = await search()
    expect(execFileSync(found, ['--port', '1'], { encoding: 'utf8' })).toBe(
      `${cache}/redis/usr/bin/redis-server --port 1 ${cache}/redis/usr/lib/any-linux\n`,
    )
    expect(await search()).toBe(found)
    expect(readFileSync(machine.path('log'), 'utf8')).toBe('download redis-tools libjemalloc2 liblzf1\n')
    expect(readdirSync(cache)).toEqual(['redis'])
  })

  it.each([true, false])('says why the package could not be had, as root: %s', async (isRoot) => {
    const machine = fakeMachine({ dpkg: '', 'apt-get': 'echo "E: no route to the mirror" >&2; exit 100' })
    const search = findRedisServer({ env: machine.env, isRoot, cache: machine.path('cache') })
    await expect(search).rejects.toThrow(
      /^No Redis server was found[\s\S]*Installing it failed: [\s\S]*E: no route to the mirror$/,
    )
  })
})
