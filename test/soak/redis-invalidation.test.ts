import { Redis, type RedisOptions } from 'ioredis'
import { describe, expect, it, vi } from 'vitest'
import {
  AFTER_SILENCE,
  CHANGE,
  clientOf,
  listenOn,
  ownRedis,
  REDISES,
  REVOKED,
  SOON,
  startTwo,
  untilHeard,
  untilSteady,
  withSubscriber,
} from '../support/redis-listeners.ts'
import { watchUnhandled } from '../support/unhandled.ts'

describe('a Redis that is away', () => {
  it('from the beginning ends nothing and stops nobody, and is made use of when it comes', async () => {
    const unhandled = watchUnhandled()
    const server = await ownRedis()
    await server.kill()
    const options = { retryStrategy: () => 50 }
    const { here, there, events, channel, key, apiKey } = await startTwo(() =>
      clientOf(new Redis(server.url, options)),
    )
    expect(await there.verify(key)).toMatchObject({ ok: true })
    await vi.waitFor(() => {
      expect(events).toContainEqual(expect.objectContaining({ type: 'fault', operation: 'invalidation' }))
    }, AFTER_SILENCE)
    await server.restart()
    await untilHeard(channel, 2, [server.url])
    expect(await there.verify(key)).toMatchObject({ ok: true })
    await here.revoke(apiKey.id)
    await vi.waitFor(async () => expect(await there.verify(key)).toEqual(REVOKED), SOON)
    expect(await unhandled()).toEqual([])
  })

  it.each<[string, RedisOptions]>([
    ['gives up a command at once', { maxRetriesPerRequest: 0 }],
    ['never gives a command up', { maxRetriesPerRequest: null }],
    ['keeps no command until it is connected', { enableOfflineQueue: false }],
  ])('from the beginning is made use of when it comes by a client that %s', async (_title, options) => {
    const unhandled = watchUnhandled()
    const server = await ownRedis()
    await server.kill()
    const client = clientOf(new Redis(server.url, { retryStrategy: () => 50, ...options }))
    const failed = new Promise((resolve) => client.once('close', resolve))
    const { connected, hear } = listenOn(client)
    await failed
    await server.restart()
    await connected(AFTER_SILENCE)
    await hear(CHANGE)
    expect(await unhandled()).toEqual([])
  })

  it.each<[string, RedisOptions]>([
    ['by itself', {}],
    ['only where it is told to', { autoResubscribe: false }],
  ])('and comes back is heard again by a client that subscribes again %s', async (_title, options) => {
    const server = await ownRedis()
    const client = clientOf(new Redis(server.url, { retryStrategy: () => 50, ...options }))
    const { connected, hear, missed } = listenOn(client)
    await connected()
    missed.mockClear()
    await server.restart()
    await vi.waitFor(() => expect(missed).toHaveBeenCalled(), SOON)
    await connected(AFTER_SILENCE)
    await hear(CHANGE)
  })

  it('and comes back has what is held dropped', async () => {
    const server = await ownRedis()
    const { store, there, channel, key, apiKey } = await startTwo(() =>
      clientOf(new Redis(server.url, { retryStrategy: () => 50 })),
    )
    await untilSteady(channel, 2, [server.url])
    expect(await there.verify(key)).toMatchObject({ ok: true })
    // By a process that was cut off in the meantime.
    await store.update(apiKey.id, 1, { revokedAt: new Date(), updatedAt: new Date() })
    expect(await there.verify(key)).toMatchObject({ ok: true })
    await server.restart()
    await vi.waitFor(async () => expect(await there.verify(key)).toEqual(REVOKED), AFTER_SILENCE)
  })

  it('without a word is noticed after three seconds, and when it speaks again', async () => {
    const server = await ownRedis()
    const { missed, channel } = listenOn(clientOf(new Redis(server.url)))
    await untilSteady(channel, 1, [server.url])
    missed.mockClear()
    server.pause()
    const pausedAt = performance.now()
    await vi.waitFor(() => expect(missed).toHaveBeenCalledWith(expect.any(Error)), AFTER_SILENCE)
    expect(performance.now() - pausedAt).toBeGreaterThan(1_900)
    missed.mockClear()
    server.resume()
    await vi.waitFor(() => expect(missed).toHaveBeenCalledWith(), SOON)
  })

  it.each(REDISES)(
    'when a connection is made anew ends no process, with commandTimeout and %s',
    async (_name, Client) => {
      const unhandled = watchUnhandled()
      const server = await ownRedis()
      const options = { commandTimeout: 50, enableReadyCheck: false, retryStrategy: () => 50 }
      const { client, subscriber } = withSubscriber(clientOf(new Client(server.url, options)))
      const { connected, missed } = listenOn(client)
      await connected()
      server.pause()
      subscriber().disconnect(true)
      await vi.waitFor(() => expect(missed).toHaveBeenCalledWith(expect.any(Error)), AFTER_SILENCE)
      expect(await unhandled()).toEqual([])
    },
  )
})
