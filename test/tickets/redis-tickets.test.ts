import { randomUUID } from 'node:crypto'
import express from 'express'
import { Cluster, Redis } from 'ioredis'
import { createTickets } from 'latchkey'
import { apiKeyAuth } from 'latchkey/express'
import { type RedisTicketClient, redisTicketStore } from 'latchkey/redis'
import { createClient } from 'redis'
import { afterAll, describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import { issueKey } from '../support/issue-key.ts'
import { serve } from '../support/raw-http.ts'
import { createTestKeys } from '../support/test-keys.ts'

const ORIGIN = 'https://app.example.com'

const clients: (Redis | Cluster)[] = []
const connect = () => new Redis(inject('redisUrl'))
const SERVERS: readonly (readonly [string, () => Redis | Cluster])[] = [
  ['one Redis', connect],
  ['a Cluster', () => new Cluster(inject('clusterNodes'))],
]

afterAll(() => {
  for (const client of clients) client.disconnect()
})

/** A service that issues tickets, and instances that redeem them, each with a connection of its own. */
async function start(open: () => Redis | Cluster, count = 2) {
  const keyPrefix = `tickets-test:${randomUUID()}`
  const { keys } = createTestKeys()
  const { key, apiKey } = await issueKey(keys)
  const instances = Array.from({ length: count }, () => {
    const client = open()
    clients.push(client)
    return { client, tickets: createTickets({ store: redisTicketStore(client, { keyPrefix }) }) }
  })
  const [first] = instances as [(typeof instances)[0]]
  const app = express()
  app.use(
    apiKeyAuth(keys),
    async (req, res) => void res.json(await first.tickets.issue(req, { origin: ORIGIN })),
  )
  const ask = await serve(app)
  const newTicket = async () => (await ask('/', [`X-Api-Key: ${key}`])).json().ticket as string
  const names = async () => {
    const nodes = first.client instanceof Cluster ? first.client.nodes('master') : [first.client]
    return (await Promise.all(nodes.map((node) => node.keys(`${keyPrefix}:*`)))).flat()
  }
  return { keyPrefix, key, apiKey, instances, client: first.client, tickets: first.tickets, newTicket, names }
}

describe.each(SERVERS)('a ticket in %s', (_name, open) => {
  it('is redeemed by one of a hundred at once, in two instances', async () => {
    const { instances, newTicket, key, apiKey } = await start(open)
    const ticket = await newTicket()
    const redeem = (_: unknown, i: number) => instances[i % 2]?.tickets.redeem(ticket, ORIGIN)
    const answers = await Promise.all(Array.from({ length: 100 }, redeem))
    const won = answers.filter((answer) => answer !== null)
    expect(won).toEqual([{ key, keyId: apiKey.id, version: 1 }])
  })

  it('goes when it is redeemed, and by itself', async () => {
    const { client, tickets, newTicket, names } = await start(open)
    const ticket = await newTicket()
    const [name] = (await names()) as [string]
    const left = await client.pttl(name)
    expect(left).toBeGreaterThan(25_000)
    expect(left).toBeLessThanOrEqual(30_000)
    expect(await tickets.redeem(ticket, 'https://evil.example')).toBeNull()
    expect(await names()).toEqual([])
  })

  it('tells nobody who reads Redis what it is, and lets nobody who writes to it make one', async () => {
    const { client, tickets, newTicket, names, key, apiKey } = await start(open)
    const tickets_ = [await newTicket(), await newTicket()] as [string, string]
    const all = await names()
    const values = (await Promise.all(all.map((name) => client.get(name)))) as [string, string]
    const dump = [
      ...all,
      ...values,
      ...values.map((value) => Buffer.from(value, 'base64url').toString('latin1')),
    ]
    for (const secret of [key, apiKey.id, ORIGIN, ...tickets_]) expect(dump.join()).not.toContain(secret)
    // Each in the place of the other.
    await client.set(all[0] as string, values[1])
    await client.set(all[1] as string, values[0])
    for (const ticket of tickets_) expect(await tickets.redeem(ticket, ORIGIN)).toBeNull()
  })
})

describe('a ticket over node-redis', () => {
  it('is taken once', async () => {
    const client = createClient({ url: inject('redisUrl') })
    client.on('error', () => {})
    await client.connect()
    onTestFinished(() => client.destroy())
    const store = redisTicketStore(client, { keyPrefix: `tickets-test:${randomUUID()}` })
    await store.put('one', 'sealed', 30_000)
    expect(await Promise.all([store.take('one'), store.take('one')])).toEqual(['sealed', null])
  })
})

describe('a Redis that fails', () => {
  it('is an error without what was sent', async () => {
    const { client, keyPrefix, tickets, newTicket, names } = await start(connect)
    const ticket = await newTicket()
    const [name] = (await names()) as [string]
    await client.del(name)
    await client.rpush(name, 'x')
    const error = await tickets.redeem(ticket, ORIGIN).catch((reason: unknown) => reason)
    expect(String(error)).toContain('WRONGTYPE')
    expect(String(error)).not.toContain(keyPrefix)
  })

  it('is an error where it answers something else', async () => {
    const odd: RedisTicketClient = { eval: async () => 7, evalsha: async () => 7 }
    await expect(redisTicketStore(odd).take('x')).rejects.toThrow('Unexpected reply from Redis')
  })

  it('is reconnected to when it has become a replica', async () => {
    const disconnect = vi.fn()
    const fail = () => Promise.reject(new Error("READONLY You can't write against a read only replica."))
    const replica = { eval: fail, evalsha: fail, disconnect }
    await expect(redisTicketStore(replica).take('x')).rejects.toThrow('READONLY')
    expect(disconnect).toHaveBeenCalledExactlyOnceWith(true)
  })
})

describe('redisTicketStore()', () => {
  const client = { eval: async () => null, evalsha: async () => null }
  it.each([
    ['no client', () => redisTicketStore({} as never), '"client" must be a client of ioredis'],
    [
      'a misspelt option',
      () => redisTicketStore(client, { prefix: 'x' } as never),
      '"options" has no option "prefix"',
    ],
    [
      'braces in the prefix',
      () => redisTicketStore(client, { keyPrefix: '{x}' }),
      '"keyPrefix" must not contain braces',
    ],
  ])('refuses %s', (_what, call, message) => {
    expect(call).toThrow(message)
  })
})
