import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { inspect } from 'node:util'
import type { KeyRecord, KeyStore } from 'latchkey'
import { type RedisStoreClient, redisStore } from 'latchkey/redis'
import { storeConformance } from 'latchkey/testing'
import { describe, expect, it, test, vi } from 'vitest'
import { createRedisStore } from '../../lib/stores/redis/redis-store.ts'
import { at, leased, quota, record } from '../support/key-records.ts'
import { CLIENTS, counted, keysOf, newPrefix, SERVERS, standalone } from '../support/redis-store.ts'

describe('options', () => {
  it.each<[string, unknown, string]>([
    ['a wrong name', { keyprefix: 'x' }, '"options" has no option "keyprefix"; did you mean "keyPrefix"?'],
    ['no prefix', { keyPrefix: '' }, '"keyPrefix" must be a non-empty string'],
    ['braces in the prefix', { keyPrefix: '{x}' }, '"keyPrefix" must not contain braces'],
    ['replicas below none', { replicas: -1 }, '"replicas" must be an integer from 0 to 100, received -1'],
    ['waiting for no time', { waitMs: 0 }, '"waitMs" must be a positive integer, received 0'],
  ])('refuses %s', (_what, options, message) => {
    expect(() => redisStore(standalone(), options as object)).toThrow(message)
  })

  it('refuses what is no client', () => {
    const withoutPipeline = { eval: () => {}, evalsha: () => {} }
    expect(() => redisStore(withoutPipeline as unknown as RedisStoreClient)).toThrow(
      '"client" must be a client of ioredis 5 or 6, or of node-redis 5 or 6: it has no method "pipeline"',
    )
  })
})

describe('a listing by status', () => {
  it('reads more and more at a time where the oldest keys were all revoked', async () => {
    const one = counted(standalone())
    const store = redisStore(one.client, { keyPrefix: newPrefix() })
    const records = Array.from({ length: 3_000 }, (_, i) =>
      record({ id: `k${i}`, createdAt: at(i), revokedAt: i < 2_970 ? at(i) : null }),
    )
    for (let from = 0; from < records.length; from += 500) await store.insert(records.slice(from, from + 500))
    await store.list({}, { limit: 1 })
    const before = one.sent
    const listed = await store.list({ status: { is: 'active', at: at(0) } }, { limit: 21 })
    expect(listed.map(({ id }) => id)).toEqual(Array.from({ length: 21 }, (_, i) => `k${2_970 + i}`))
    // Two for each read: 50, 100, 200 and 400 keys, and then 500 at a time.
    expect(one.sent - before).toBeLessThanOrEqual(2 * 9)
  })
})

describe.each(CLIENTS)('%s', (_name, connect) => {
  storeConformance({ test, assert }, () => redisStore(connect(), { keyPrefix: newPrefix() }))
})

describe.each(SERVERS)('%s', (name, connect) => {
  const idsOf = (records: readonly KeyRecord[]) => records.map(({ id }) => id)
  const list = async (store: KeyStore, filter = {}) => idsOf(await store.list(filter, { limit: 100 }))
  const setUp = () => {
    const keyPrefix = newPrefix()
    return { keyPrefix, store: redisStore(connect(), { keyPrefix }) }
  }

  it('names nobody any more who was forgotten, wherever a process ends and another goes on', async () => {
    const outcomes = new Set<string | undefined>()
    for (let failFrom = 1; failFrom <= 8; failFrom++) {
      const { keyPrefix, store } = setUp()
      await store.insert([record({ id: 'a', createdBy: 'alice' }), record({ id: 'b', createdBy: 'bob' })])
      const crashing = redisStore(counted(connect(), failFrom).client, { keyPrefix })
      const forgetting = { createdBy: null, lastUsedIp: null, updatedAt: at(1) }
      outcomes.add(await crashing.forget('a', 1, forgetting).catch(() => undefined))
      const [found] = await store.list({ createdBy: 'alice' }, { limit: 10 })
      if (found) expect(await store.forget('a', found.version, forgetting)).toBe('updated')
      expect(await list(store, { createdBy: 'alice' })).toEqual([])
      expect(await list(store)).toEqual(['a', 'b'])
      expect((await keysOf(connect(), keyPrefix)).filter((key) => key.includes('alice'))).toEqual([])
    }
    expect(outcomes).toEqual(new Set([undefined, 'updated']))
  })

  it('keeps apart ids, lookups, owners and names that look alike, wherever they belong', async () => {
    const { keyPrefix, store } = setUp()
    const texts = [
      '{',
      '}',
      '{}',
      '}{',
      '{a}',
      'a',
      '%',
      '%007b',
      'a\0',
      '\0',
      '\0\u0001',
      ' ',
      '\ud800',
      '\udc00',
    ]
    const records = texts.map((text, i) =>
      record({
        id: text,
        lookup: i % 2 ? text : `f:${text}`,
        lineageId: text,
        name: text,
        createdBy: text,
        owner: { type: text, id: `${text}x` },
        quota: quota(i),
      }),
    )
    await store.insert(records)
    for (const one of [...records, record({ id: 'unnamed', name: '' })]) {
      if (one.id === 'unnamed') await store.insert([one])
      expect(await store.find({ id: one.id })).toEqual(one)
      expect(await store.find({ lookups: [one.lookup] })).toEqual(one)
      for (const filter of [
        { name: one.name },
        { lineageId: one.lineageId },
        { owners: [one.owner, { type: one.owner.id, id: one.owner.type }], name: one.name },
      ]) {
        expect(await store.list(filter, { limit: 9 })).toEqual([one])
      }
    }
    expect(new Set(await list(store))).toEqual(new Set([...texts, 'unnamed']))
    await store.recordUsage(texts.map((id) => ({ id, count: 2, lastUsedAt: at(1), lastUsedIp: null })))
    for (const id of texts) expect(await store.find({ id })).toMatchObject({ usageCount: 2 })
    await Promise.all(
      [...texts, 'unnamed'].map((id) => store.update(id, 1, { revokedAt: at(0), updatedAt: at(0) })),
    )
    expect(await store.purge([...texts, 'unnamed'], at(1))).toBe(texts.length + 1)
    expect(await keysOf(connect(), keyPrefix)).toEqual([])
  })

  it('lists by time, those before 1970 first, then by code point, and a text before what it begins', async () => {
    const { store } = setUp()
    const times = [-8_640_000_000_000_000, -1, 0, 1, 8_640_000_000_000_000]
    const ids = ['a', 'a\0', 'a\0\u0001', 'a\u0001', 'aa', '\uff5e', '\u{1f511}']
    const records = times.flatMap((time) =>
      ids.map((id) => record({ id: `${id}${time}`, createdAt: new Date(time) })),
    )
    await store.insert(records.toReversed())
    const suffix = /-?\d+$/
    const byTime = (time: number) =>
      ids.filter((id) => suffix.test(`${id}${time}`)).map((id) => `${id}${time}`)
    const sorted = times.flatMap((time) =>
      byTime(time).toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
    )
    expect(await list(store)).toEqual(sorted)
    const seen: string[] = []
    for (let after: KeyRecord | undefined; ; ) {
      const [next] = await store.list({}, { limit: 1, ...(after && { after }) })
      if (!next) break
      seen.push(next.id)
      after = next
    }
    expect(seen).toEqual(sorted)
  })

  it('follows a name wherever it goes and back', async () => {
    const { store } = setUp()
    await store.insert([record({ id: 'a', name: 'one' })])
    for (const [i, to] of ['two', 'one', 'one', 'three', 'one'].entries()) {
      expect(await store.update('a', i + 1, { name: to, updatedAt: at(i) })).toBe('updated')
      for (const other of ['one', 'two', 'three']) {
        expect(await list(store, { name: other })).toEqual(other === to ? ['a'] : [])
      }
    }
  })

  it('fills its pages whatever it has to pass by', async () => {
    const { store } = setUp()
    await store.insert(
      Array.from({ length: 1_300 }, (_, i) =>
        record({
          id: `k${String(i).padStart(4, '0')}`,
          name: i % 400 === 399 ? 'rare' : 'CI',
          enabled: i % 300 !== 0,
        }),
      ),
    )
    const disabled = { status: { is: 'disabled' as const, at: at(1) } }
    expect(idsOf(await store.list(disabled, { limit: 3 }))).toEqual(['k0000', 'k0300', 'k0600'])
    expect(await list(store, disabled)).toEqual(['k0000', 'k0300', 'k0600', 'k0900', 'k1200'])
    expect(await store.list({}, { limit: 1_000 })).toHaveLength(1_000)
  })

  it('removes entries without a record from an index only when nobody can be about to add it', async () => {
    const { keyPrefix, store } = setUp()
    // Indexes come first: so much an insertion sends before its record.
    const probe = counted(connect())
    await redisStore(probe.client, { keyPrefix: newPrefix() }).insert([record({ id: 'a' })])
    const crashing = counted(connect(), probe.sent)
    await expect(redisStore(crashing.client, { keyPrefix }).insert([record({ id: 'a' })])).rejects.toThrow()
    const indexes = await keysOf(connect(), keyPrefix)
    expect(indexes).toHaveLength(4)
    const owners = [{ type: 'user', id: 'nobody' }, record({ id: 'a' }).owner]
    const filters = [{}, { owners }, { name: 'CI' }, { lineageId: 'a' }]
    for (const filter of filters) expect(await list(store, filter)).toEqual([])
    expect(await keysOf(connect(), keyPrefix)).toEqual(indexes)
    const later = createRedisStore(connect(), { keyPrefix }, { openMs: 50, strayMs: -1_000 })
    for (const filter of filters) expect(await list(later, filter)).toEqual([])
    expect(await keysOf(connect(), keyPrefix)).toEqual([])
  })

  it('takes a command that its client sends twice, since the reply was lost, for one', async () => {
    const { keyPrefix, store } = setUp()
    let between = async () => {}
    const client = connect()
    const twice: RedisStoreClient = {
      isCluster: name === 'a Cluster',
      get slots() {
        return 'slots' in client ? client.slots : []
      },
      eval: async (...args) => client.eval(...args),
      evalsha: async (...args) => {
        await client.evalsha(...args)
        await between()
        return client.evalsha(...args)
      },
      pipeline: (commands) => client.pipeline(commands),
    }
    const resending = redisStore(twice, { keyPrefix })
    await resending.insert([record({ id: 'a', quota: quota(5) }), record({ id: 'b', lookup: 'f:b' })])
    expect(await resending.update('a', 1, { name: 'new', quota: { remaining: 9 }, updatedAt: at(1) })).toBe(
      'updated',
    )
    expect(await store.find({ id: 'a' })).toMatchObject({ version: 2, name: 'new', quota: { remaining: 9 } })

    // What somebody does to the new key before the second arrives is not undone by it.
    between = async () => void (await store.update('c', 1, { revokedAt: at(1), updatedAt: at(1) }))
    await resending.insert([record({ id: 'c' })])
    expect(await store.find({ id: 'c' })).toMatchObject({ version: 2, revokedAt: at(1) })
  })

  it('does not say that a swap was not made which was sent twice, and made so long before that Redis has forgotten it', async () => {
    const { keyPrefix, store } = setUp()
    const client = connect()
    const late: RedisStoreClient = {
      isCluster: name === 'a Cluster',
      get slots() {
        return 'slots' in client ? client.slots : []
      },
      eval: async (...args) => client.eval(...args),
      evalsha: async (...args) => {
        await client.evalsha(...args)
        const made = String(args[3])
        if (made.startsWith(`${keyPrefix}:s:`)) {
          vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 61_000)
          await client.del(made)
        }
        return client.evalsha(...args)
      },
      pipeline: (commands) => client.pipeline(commands),
    }
    await store.insert([record({ id: 'a', quota: quota(5) })])
    await store.swapQuota('a', quota(5), quota(5))
    const swap = redisStore(late, { keyPrefix }).swapQuota('a', quota(5), leased(quota(5), 2))
    await expect(swap).rejects.toMatchObject({ code: 'unavailable' })
    expect(await store.find({ id: 'a' })).toMatchObject({ quota: leased(quota(5), 2) })
  })

  it.each<[string, string, readonly string[]]>([
    ['a record of another type', 'k:{a}', ['set', 'secret']],
    ['a record without a version', 'k:{a}', ['hdel', 'v']],
    ['a record without a stamp', 'k:{a}', ['hdel', 's']],
    ['a record that is no JSON', 'k:{a}', ['hset', 'r', '{secret']],
    ['a record whose member is wrong', 'k:{a}', ['hset', 'r', '{"secret":1}']],
    ['a version that is no number', 'k:{a}', ['hset', 'v', 'secret']],
    ['a quota of another type', 'q:{a}', ['set', 'secret']],
    ['a quota that is no JSON', 'q:{a}', ['hset', 'j', 'secret']],
    ['a quota whose member is wrong', 'q:{a}', ['hset', 'j', '{"remaining":"secret"}']],
    ['an intent that is none', 'k:{a}', ['hset', 'q', '{"secret":1}']],
    ['a batch that is none', 'k:{a}', ['hset', 'b', 'token']],
  ])(
    'says that a value is malformed, and not what it is, for %s',
    async (_what, key, [command, ...words]) => {
      const { keyPrefix, store } = setUp()
      await store.insert([record({ id: 'a', quota: quota(5) })])
      const client = connect()
      if (command === 'set') await client.set(`${keyPrefix}:${key}`, ...(words as [string]))
      else if (command === 'hdel') await client.hdel(`${keyPrefix}:${key}`, ...words)
      else await client.hset(`${keyPrefix}:${key}`, ...words)
      if (words[0] === 'b') await client.set(`${keyPrefix}:b:{token}`, 'secret')
      for (const work of [() => store.find({ id: 'a' }), () => store.list({}, { limit: 9 })]) {
        const error = await work().then(
          () => null,
          (thrown) => thrown,
        )
        expect(error).toMatchObject({ code: 'malformed_record' })
        expect(inspect(error, { depth: 9, showHidden: true })).not.toContain('secret')
      }
    },
  )

  it('adds the largest batch of an import, every member set, all or none', async () => {
    const { store } = setUp()
    // As many as an import adds at once; on the others, several scripts' worth.
    const size = name === SERVERS[0]?.[0] ? 10_000 : 1_500
    const full = (i: number) =>
      record({
        id: `k${i}`,
        lookup: `f:${i}`,
        lastUsedAt: at(i),
        lastUsedIp: '192.0.2.1',
        expiresAt: at(9),
        quota: quota(i + 1),
      })
    const batch = Array.from({ length: size }, (_, i) => full(i))
    await store.insert([full(size - 1)])
    await expect(store.insert(batch)).rejects.toMatchObject({ code: 'duplicate_key' })
    expect(await store.find({ id: 'k0' })).toBeNull()
    await store.insert(batch.slice(0, -1))
    expect(await store.find({ lookups: ['f:1000'] })).toEqual(full(1_000))
    expect(await store.list({}, { limit: 20_000 })).toHaveLength(size)
  }, 120_000)

  it('sends the source of a script once where a server knows none, whatever is asked meanwhile', async () => {
    const known = new Set<string>()
    const sources: string[] = []
    const forgetful: RedisStoreClient = {
      ...counted(connect()).client,
      async evalsha(sha, ...rest) {
        if (!known.has(sha)) throw new Error('NOSCRIPT No matching script. Please use EVAL.')
        return connect().evalsha(sha, ...rest)
      },
      async eval(source, ...rest) {
        sources.push(source)
        const reply = await connect().eval(source, ...rest)
        known.add(createHash('sha1').update(source).digest('hex'))
        return reply
      },
    }
    const store = redisStore(forgetful, { keyPrefix: newPrefix() })
    await store.insert(Array.from({ length: 50 }, (_, i) => record({ id: `k${i}`, quota: quota(i + 1) })))
    expect(await Promise.all([1, 2, 3].map((i) => store.find({ id: `k${i}` })))).toMatchObject(
      [1, 2, 3].map((i) => ({ id: `k${i}`, quota: quota(i + 1) })),
    )
    expect(sources.length).toBeGreaterThan(3)
    expect(new Set(sources).size).toBe(sources.length)
  })

  it('keeps what was sent out of its errors', async () => {
    const store = redisStore(connect(), { keyPrefix: newPrefix() })
    await store.insert([record({ id: 'a' })])
    const failing: RedisStoreClient = {
      ...counted(connect()).client,
      evalsha: async (_sha, _count, ...args) => {
        throw Object.assign(new Error(`ERR unknown command, with args beginning with: ${args}`), {
          command: { args },
        })
      },
    }
    const broken = redisStore(failing, { keyPrefix: newPrefix() })
    const error = await broken
      .insert([record({ id: 'a', digest: '$sha256$secret' })])
      .catch((thrown) => thrown)
    expect(error).toMatchObject({ message: 'Redis failed: ERR unknown command' })
    expect(inspect(error, { depth: 9, showHidden: true })).not.toMatch(/sha256|redis-store-test/)
  })

  it('sends few commands', async () => {
    const { client, ...sent } = ((one) => ({ client: one.client, count: () => one.sent }))(counted(connect()))
    const store = redisStore(client, { keyPrefix: newPrefix() })
    const commandsOf = async (work: () => Promise<unknown>) => {
      const before = sent.count()
      await work()
      return sent.count() - before
    }
    await store.find({ id: 'nobody' })
    await store.insert([record({ id: 'warm' })])
    const isCluster = name === 'a Cluster'
    const successor = record({ id: 'b', lineageId: 'a' })
    expect({
      insert: await commandsOf(() => store.insert([record({ id: 'a' })])),
      find: await commandsOf(() => store.find({ lookups: ['a'] })),
      update: await commandsOf(() => store.update('a', 1, { enabled: false, updatedAt: at(1) })),
      replaceDigest: await commandsOf(() => store.replaceDigest('a', '$sha256$a', 'b')),
      insertSuccessor: await commandsOf(() => store.insert([successor])),
      findSuccessor: await commandsOf(() => store.find({ lookups: ['b'] })),
      insertForeign: await commandsOf(() => store.insert([record({ id: 'c', lookup: 'f:c' })])),
      findForeign: await commandsOf(() => store.find({ lookups: ['f:c'] })),
      recordUsage: await commandsOf(() =>
        store.recordUsage([{ id: 'a', count: 1, lastUsedAt: at(1), lastUsedIp: null }]),
      ),
    }).toEqual({
      // One for each of four indexes, or for all.
      insert: isCluster ? 5 : 2,
      find: 1,
      update: 2,
      replaceDigest: 2,
      insertSuccessor: isCluster ? 5 : 2,
      findSuccessor: 2,
      // In a Cluster the record and what leads to it are made sure of together.
      insertForeign: isCluster ? 11 : 2,
      findForeign: 2,
      recordUsage: 1,
    })
  })
})
