import { randomUUID } from 'node:crypto'
import { EventEmitter } from 'node:events'
import { Cluster, Redis, type RedisOptions } from 'ioredis'
import type { InvalidationListener } from 'latchkey'
import { redisInvalidation } from 'latchkey/redis'
import { describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import { createRedisInvalidation } from '../../lib/invalidation/redis.ts'
import { fakeClock } from '../support/fake-clock.ts'
import { startProgram } from '../support/program.ts'
import {
  AFTER_SILENCE,
  CHANGE,
  CLIENTS,
  clientOf,
  listenOn,
  newChannel,
  ownRedis,
  REDISES,
  REVOKED,
  SOON,
  sharedUrls,
  startTwo,
  untilHeard,
  untilSteady,
  withSubscriber,
} from '../support/redis-listeners.ts'
import { watchUnhandled } from '../support/unhandled.ts'

describe.each(Object.entries(CLIENTS))('a change told by %s', (_name, newClient) => {
  it('is heard by every other process promptly', async () => {
    const { here, there, events, channel, key, apiKey } = await startTwo(newClient)
    await untilHeard(channel, 2)
    expect(await there.verify(key)).toMatchObject({ ok: true })
    await here.revoke(apiKey.id)
    await vi.waitFor(async () => expect(await there.verify(key)).toEqual(REVOKED), SOON)
    expect(events.filter(({ type }) => type === 'fault')).toEqual([])
  })

  it('is heard with every key that it is about', async () => {
    const { invalidation, changed, connected } = listenOn(newClient())
    await connected()
    const keys = Array.from({ length: 1_200 }, (_, i) => ({ keyId: `key-${i}`, version: i + 1 }))
    await invalidation.publish(keys)
    await vi.waitFor(() => expect(changed).toHaveBeenCalledTimes(3), SOON)
    const messages = changed.mock.calls.map(([heard]) => heard)
    expect(messages.map(({ length }) => length).sort()).toEqual([200, 500, 500])
    // In a Cluster one message may overtake another.
    expect([...messages.flat()].sort((a, b) => a.version - b.version)).toEqual(keys)
  })

  it('is heard on no other channel', async () => {
    const [one, other] = [listenOn(newClient()), listenOn(newClient())]
    await Promise.all([one.connected(), other.connected()])
    await one.hear(CHANGE)
    const otherChange = [{ keyId: 'other', version: 3 }]
    await other.hear(otherChange)
    expect(one.changed.mock.calls).toEqual([[CHANGE]])
    expect(other.changed.mock.calls).toEqual([[otherChange]])
  })
})

// A Cluster moves a subscription without a word: there a heartbeat has to be missing.
const SINGLE = Object.entries(CLIENTS).filter(([name]) => !name.includes('Cluster'))

describe.each(SINGLE)('a change told by %s', (_name, newClient) => {
  it('may have been lost with the connection: what is held is dropped once there is another', async () => {
    const connectionName = `test-${randomUUID()}`
    const { missed, channel, connected, hear } = listenOn(newClient(connectionName))
    await connected()
    // Between two heartbeats: none of them is lost.
    await untilSteady(channel, 1)
    missed.mockClear()
    expect(await killSubscribers(connectionName)).toBeGreaterThan(0)
    await vi.waitFor(() => expect(missed).toHaveBeenCalledWith(), SOON)
    await connected(AFTER_SILENCE)
    await hear(CHANGE)
  })
})

describe('a client', () => {
  it.each<[string, RedisOptions]>([
    ['that keeps no command until it is connected', { enableOfflineQueue: false }],
    ['that connects when it is first used', { lazyConnect: true }],
    ['that puts a prefix before keys', { keyPrefix: 'app:' }],
    ['of another database', { db: 3 }],
  ])('%s hears of changes', async (_title, options) => {
    const client = clientOf(new Redis(inject('redisUrl'), options))
    if (!options.lazyConnect) await vi.waitFor(() => expect(client.status).toBe('ready'), SOON)
    const { connected, hear, missed } = listenOn(client)
    await connected(AFTER_SILENCE)
    await hear(CHANGE)
    // That it has to connect first is no fault.
    for (const [error] of missed.mock.calls) expect(error).toBeUndefined()
  })

  it.each([
    ['Redis', () => new Redis(inject('redisUrl'), { enableOfflineQueue: false })],
    ['Cluster', () => new Cluster(inject('clusterNodes'), { enableOfflineQueue: false })],
  ])(
    '%s that keeps no command raises no alarm where it is used before it is connected',
    async (_name, connect) => {
      const { connected, hear, missed } = listenOn(clientOf(connect()))
      await connected(AFTER_SILENCE)
      await hear(CHANGE)
      for (const [error] of missed.mock.calls) expect(error).toBeUndefined()
    },
  )

  it('that may publish and run no script hears of changes', async () => {
    const admin = clientOf(new Redis(inject('redisUrl')))
    const username = randomUUID()
    await admin.call(
      'ACL',
      'SETUSER',
      username,
      'on',
      '>secret',
      'allchannels',
      '+@connection',
      '+info',
      '+publish',
      '+subscribe',
    )
    onTestFinished(async () => void (await admin.call('ACL', 'DELUSER', username)))
    const client = clientOf(new Redis(inject('redisUrl'), { username, password: 'secret' }))
    const { connected, hear } = listenOn(client)
    await connected(AFTER_SILENCE)
    await hear(CHANGE)
  })
})

/** Closes, as a failing network does, the connections of that name on which somebody listens; returns how many. */
async function killSubscribers(connectionName: string): Promise<number> {
  let killed = 0
  for (const url of sharedUrls()) {
    const client = clientOf(new Redis(url))
    const list = String(await client.call('CLIENT', 'LIST', 'TYPE', 'pubsub'))
    for (const line of list.split('\n')) {
      const [, id, name] = /^id=(\d+) .* name=(\S*)/.exec(line) ?? []
      if (id && name?.endsWith(connectionName))
        killed += Number(await client.call('CLIENT', 'KILL', 'ID', id))
    }
    client.disconnect()
  }
  return killed
}

describe('a message that is not one of ours', () => {
  it.each([
    ['text', 'hello'],
    ['nothing', ''],
    ['a broken list', '[["k",2]'],
    ['no list', '{"k":2}'],
    ['null', 'null'],
    ['a number', '7'],
    ['a list of something else', '["k",2]'],
    ['a list of objects', '[{"keyId":"k","version":2}]'],
    ['a key without a version', '[["k"]]'],
    ['a key whose id is empty', '[["",2]]'],
    ['a key whose id is no text', '[[7,2]]'],
    ['a key whose id is far too long', JSON.stringify([['k'.repeat(256), 2]])],
    ['the version 0', '[["k",0]]'],
    ['a negative version', '[["k",-1]]'],
    ['a fraction for a version', '[["k",1.5]]'],
    ['a text for a version', '[["k","2"]]'],
    ['a version that is no safe integer', '[["k",9007199254740992]]'],
    ['a version beyond all numbers', '[["k",1e999]]'],
    ['one bad key among good ones', '[["k",2],["l",null],["m",3]]'],
    ['lists without end', `${'['.repeat(10_000)}${']'.repeat(10_000)}`],
    ['a prototype', '{"__proto__":[["k",2]]}'],
  ])('stands for one that was missed, and does no more: %s', async (_what, message) => {
    const { subscriber, invalidation, changed, missed, unhandled } = await listenToFake()
    subscriber.emit('message', 'latchkey:changes', message)
    expect(missed.mock.calls).toEqual([[expect.any(Error)]])
    await invalidation.publish(CHANGE)
    expect(changed.mock.calls).toEqual([[CHANGE]])
    expect(await unhandled()).toEqual([])
  })

  it.each([
    ['text', 'hello'],
    ['bytes that are no text', Buffer.from([0xff, 0xfe, 0x00, 0x5b])],
  ])('is reported, and makes no key invalid: %s', async (_what, message) => {
    const newClient = () => clientOf(new Redis(inject('redisUrl')))
    const { there, events, channel, key } = await startTwo(newClient)
    await untilHeard(channel, 2)
    expect(await there.verify(key)).toMatchObject({ ok: true })
    await newClient().publish(channel, message)
    await vi.waitFor(() => {
      expect(events).toContainEqual(expect.objectContaining({ type: 'fault', operation: 'invalidation' }))
    }, SOON)
    expect(await there.verify(key)).toMatchObject({ ok: true })
  })
})

/** A client and its server in one, by a clock moved by hand: the subscriber hears at once what is published. */
function fakeRedis() {
  const subscriber = new EventEmitter() as EventEmitter & {
    subscribe: (...channels: string[]) => Promise<unknown>
    disconnect: () => void
  }
  let channels: readonly string[] = []
  const state = { isConnected: true }
  const subscribe = vi.fn(async (...to: string[]): Promise<unknown> => {
    channels = to
    return to.length
  })
  const publish = vi.fn(async (channel: string, message: string): Promise<unknown> => {
    if (state.isConnected && channels.includes(channel)) subscriber.emit('message', channel, message)
    return 1
  })
  const disconnect = vi.fn()
  Object.assign(subscriber, { subscribe, disconnect })
  const client = { publish, duplicate: () => subscriber }
  return { client, subscriber, publish, subscribe, disconnect, state }
}

/** Listens to it, with the beginning behind. */
async function listenToFake() {
  const unhandled = watchUnhandled()
  const clock = fakeClock()
  const redis = fakeRedis()
  const changed = vi.fn<InvalidationListener['changed']>()
  const missed = vi.fn<InvalidationListener['missed']>()
  const invalidation = createRedisInvalidation(redis.client, {}, clock)
  const stop = invalidation.listen({ changed, missed })
  redis.subscriber.emit('ready')
  await clock.advance(1_000)
  expect(missed).toHaveBeenCalled()
  missed.mockClear()
  return { ...redis, clock, invalidation, changed, missed, stop, unhandled }
}

describe('silence', () => {
  it('for three seconds is reported once, whatever it is due to', async () => {
    const { clock, state, missed } = await listenToFake()
    state.isConnected = false
    await clock.advance(2_999)
    expect(missed).not.toHaveBeenCalled()
    await clock.advance(1)
    expect(missed.mock.calls).toEqual([[expect.any(Error)]])
    expect(missed.mock.calls[0]?.[0]).toMatchObject({
      message: 'received nothing on the invalidation channel for 3000 milliseconds',
    })
    await clock.advance(3_600_000)
    expect(missed).toHaveBeenCalledTimes(1)
  })

  it('of a client that is not connected leaves it nothing to queue', async () => {
    const { client, clock, publish, state, missed } = await listenToFake()
    const changing = Object.assign(client, { status: 'reconnecting' })
    state.isConnected = false
    publish.mockClear()
    await clock.advance(3_600_000)
    expect(publish).not.toHaveBeenCalled()
    expect(missed.mock.calls).toEqual([[expect.any(Error)]])
    changing.status = 'ready'
    state.isConnected = true
    await clock.advance(2_000)
    expect(publish).toHaveBeenCalledTimes(2)
    expect(missed.mock.calls).toEqual([[expect.any(Error)], []])
  })

  it('that ends is followed by one word that what is held may be old, and silence is heard anew', async () => {
    const { clock, state, missed } = await listenToFake()
    state.isConnected = false
    await clock.advance(10_000)
    missed.mockClear()
    state.isConnected = true
    await clock.advance(10_000)
    expect(missed.mock.calls).toEqual([[]])
    state.isConnected = false
    await clock.advance(3_000)
    expect(missed.mock.calls).toEqual([[], [expect.any(Error)]])
  })

  it('is due as well to a client that cannot publish', async () => {
    const { clock, publish, missed, unhandled } = await listenToFake()
    publish.mockImplementation(() => Promise.reject(new Error('connection refused')))
    await clock.advance(3_000)
    expect(missed.mock.calls).toEqual([[expect.any(Error)]])
    expect(await unhandled()).toEqual([])
  })

  it('is not what a channel is on which nobody makes a change', async () => {
    const { clock, missed } = await listenToFake()
    await clock.advance(3_600_000)
    expect(missed).not.toHaveBeenCalled()
  })
})

describe('a heartbeat', () => {
  it('that is missing stands for a message that was missed', async () => {
    const { clock, state, missed } = await listenToFake()
    state.isConnected = false
    await clock.advance(1_000)
    state.isConnected = true
    expect(missed).not.toHaveBeenCalled()
    await clock.advance(1_000)
    expect(missed.mock.calls).toEqual([[]])
    await clock.advance(60_000)
    expect(missed).toHaveBeenCalledTimes(1)
  })

  it('goes over a channel of its own, under the channel of changes, once a second', async () => {
    const { clock, publish } = await listenToFake()
    publish.mockClear()
    await clock.advance(3_000)
    const channels = publish.mock.calls.map(([channel]) => channel)
    expect(channels).toHaveLength(3)
    for (const channel of channels) expect(channel).toMatch(/^latchkey:changes:[0-9a-f-]{36}$/)
    expect(new Set(channels).size).toBe(1)
  })

  it('that is junk changes nothing but what a missing one would', async () => {
    const { clock, publish, subscriber, missed, changed, unhandled } = await listenToFake()
    const [channel = ''] = publish.mock.calls[0] ?? []
    for (const junk of ['', 'junk', '-1', '1e999', '[["k",2]]']) subscriber.emit('message', channel, junk)
    await clock.advance(5_000)
    missed.mockClear()
    await clock.advance(60_000)
    expect(missed).not.toHaveBeenCalled()
    expect(changed).not.toHaveBeenCalled()
    expect(await unhandled()).toEqual([])
  })
})

describe('a connection', () => {
  it('that is made anew drops what is held, each time', async () => {
    const { clock, subscriber, missed } = await listenToFake()
    subscriber.emit('close')
    expect(missed).not.toHaveBeenCalled()
    for (const calls of [[[]], [[], []]]) {
      subscriber.emit('ready')
      await clock.advance(0)
      expect(missed.mock.calls).toEqual(calls)
    }
  })

  it('that is made anew drops what is held once more when it hears again: ready is not subscribed', async () => {
    const { clock, subscriber, subscribe, state, missed, invalidation, changed } = await listenToFake()
    state.isConnected = false
    const subscribed = new Promise((resolve) => subscriber.once('subscribed', resolve))
    subscribe.mockImplementation(() => subscribed)
    subscriber.emit('ready')
    await clock.advance(1)
    missed.mockClear()
    // What is read from here on is held, and what is told is not heard.
    await invalidation.publish(CHANGE)
    expect(changed).not.toHaveBeenCalled()
    state.isConnected = true
    subscriber.emit('subscribed')
    await clock.advance(999)
    expect(missed).toHaveBeenCalled()
  })

  it('whose subscription is refused is reported, and subscribes again when it is made anew', async () => {
    const clock = fakeClock()
    const { client, subscriber, subscribe } = fakeRedis()
    const failure = new Error('NOPERM')
    for (let i = 0; i < 2; i++) subscribe.mockImplementationOnce(() => Promise.reject(failure))
    const [changed, missed] = [vi.fn(), vi.fn()]
    const invalidation = createRedisInvalidation(client, {}, clock)
    invalidation.listen({ changed, missed })
    await clock.advance(0)
    // What fails before it is connected is tried again then.
    expect(missed).not.toHaveBeenCalled()
    subscriber.emit('ready')
    await clock.advance(0)
    expect(missed.mock.calls).toEqual([[failure]])
    subscriber.emit('ready')
    await clock.advance(0)
    await invalidation.publish(CHANGE)
    expect(changed).toHaveBeenCalledWith(CHANGE)
  })

  it('that fails is no error of the process', async () => {
    const { subscriber, missed } = await listenToFake()
    subscriber.emit('error', new Error('connection refused'))
    expect(missed).not.toHaveBeenCalled()
  })
})

describe('the end of listening', () => {
  it('leaves no timer, no connection and nobody who is told', async () => {
    const { clock, subscriber, disconnect, publish, state, changed, missed, invalidation, stop } =
      await listenToFake()
    stop()
    expect(clock.waiting).toBe(0)
    expect(disconnect).toHaveBeenCalledTimes(1)
    publish.mockClear()
    await invalidation.publish(CHANGE)
    subscriber.emit('message', 'latchkey:changes', 'hello')
    subscriber.emit('ready')
    state.isConnected = false
    await clock.advance(60_000)
    expect(changed).not.toHaveBeenCalled()
    expect(missed).not.toHaveBeenCalled()
    expect(publish).toHaveBeenCalledTimes(1)
  })

  it('before there was a connection is no fault', async () => {
    const unhandled = watchUnhandled()
    const server = await ownRedis()
    await server.kill()
    const { stop, missed } = listenOn(clientOf(new Redis(server.url, { retryStrategy: () => 10_000 })))
    await stop()
    expect(await unhandled()).toEqual([])
    expect(missed).not.toHaveBeenCalled()
  })

  it.each(REDISES)('while the connection is made anew is no fault either, by %s', async (_name, Client) => {
    const unhandled = watchUnhandled()
    const server = await ownRedis()
    const { client, subscriber } = withSubscriber(
      clientOf(new Client(server.url, { retryStrategy: () => 50 })),
    )
    const { stop, connected } = listenOn(client)
    await connected()
    const ended = new Promise((resolve) => subscriber().once('end', resolve))
    subscriber().once('ready', () => void stop())
    await server.restart()
    await ended
    expect(await unhandled()).toEqual([])
  })

  it('lets the process end', async () => {
    const program = startProgram(
      [
        '--input-type=module',
        '--eval',
        `import { Redis } from 'ioredis'
         import { createApiKeys, memoryRateLimiter, memoryStore } from './lib/index.ts'
         import { redisInvalidation } from './lib/redis.ts'
         const client = new Redis(process.env.URL)
         const invalidation = redisInvalidation(client, { channel: process.env.CHANNEL })
         const [store, rateLimiter] = [memoryStore(), memoryRateLimiter()]
         const keys = createApiKeys({ store, rateLimiter, invalidation, prefix: 'acme_test' })
         const { key, apiKey } = await keys.issue({ owner: { type: 'user', id: 'u' }, name: 'CI' })
         await keys.revoke(apiKey.id)
         await keys.close()
         await client.quit()
         console.log('closed')`,
      ],
      { URL: inject('redisUrl'), CHANNEL: newChannel() },
    )
    await program.waitFor(/closed/)
    const closedAt = performance.now()
    expect(await program.ended()).toBe(0)
    expect(performance.now() - closedAt).toBeLessThan(900)
    expect(program.stderr).toBe('')
  })
})

describe('redisInvalidation', () => {
  const client = { publish: async () => 1, duplicate: () => new EventEmitter() } as never

  it.each<[unknown, unknown, string]>([
    [undefined, undefined, 'node-redis 5 or 6: it has no method "publish"'],
    [null, {}, 'node-redis 5 or 6: it has no method "publish"'],
    [{}, {}, 'node-redis 5 or 6: it has no method "publish"'],
    ['redis://localhost', {}, 'node-redis 5 or 6: it has no method "publish"'],
    [{ publish() {} }, {}, 'node-redis 5 or 6: it has no method "duplicate"'],
    [client, null, '"options" must be an object, received null'],
    [client, 'changes', '"options" must be an object, received a string'],
    [client, { channels: 'a' }, '"options" has no option "channels"; did you mean "channel"?'],
    [client, { channel: '' }, '"channel" must be a non-empty string, received an empty string'],
    [client, { channel: 7 }, '"channel" must be a non-empty string, received 7'],
    [client, { channel: null }, '"channel" must be a non-empty string, received null'],
    [client, { channel: 'c'.repeat(101) }, '"channel" must be at most 100 characters long'],
  ])('refuses what is wrong, by name: %o, %o', (given, options, message) => {
    const make = () => redisInvalidation(given as never, options as never)
    expect(make).toThrow(TypeError)
    expect(make).toThrow(message)
  })

  it.each([
    [{ changed() {} }, '"listener.missed" must be a function'],
    [{ missed() {} }, '"listener.changed" must be a function'],
    [undefined, '"listener.changed" must be a function'],
  ])('refuses a listener that lacks a method: %o', (listener, message) => {
    expect(() => redisInvalidation(client).listen(listener as never)).toThrow(message)
  })

  it('tells of changes on latchkey:changes unless told otherwise', async () => {
    const publish = vi.fn(async () => 1)
    await redisInvalidation({ publish, duplicate: vi.fn() }).publish(CHANGE)
    expect(publish.mock.calls).toEqual([['latchkey:changes', '[["k",2]]']])
  })

  it('rejects where a change cannot be told', async () => {
    const failure = new Error('connection refused')
    const publish = vi.fn(async () => 1).mockRejectedValueOnce(failure)
    const keys = Array.from({ length: 501 }, (_, i) => ({ keyId: `k${i}`, version: 1 }))
    await expect(redisInvalidation({ publish, duplicate: vi.fn() }).publish(keys)).rejects.toBe(failure)
  })
})
