import { hash as hashOf } from 'node:crypto'
import bcrypt from 'bcrypt'
import { createApiKeys, memoryRateLimiter, memoryStore } from 'latchkey'
import { beforeEach, describe, expect, it, type MockInstance, vi } from 'vitest'
import { createDigester } from '../../lib/core/digests/digest.ts'
import { generateKey } from '../../lib/core/keys/key-format.ts'
import golden from '../golden/digests.json' with { type: 'json' }

const peppers = golden.peppers.map(({ id, secret, secretHex }) => ({
  id,
  secret: secret ?? new Uint8Array(Buffer.from(secretHex as string, 'hex')),
}))
const [newPepper, oldPepper] = peppers as [(typeof peppers)[0], (typeof peppers)[0]]
const bcryptVectors = golden.vectors.filter(({ scheme }) => scheme === 'bcrypt')
const aBcrypt = bcryptVectors[0] as (typeof bcryptVectors)[0]

// The real bcrypt, with its calls counted.
let compare: MockInstance<(data: string, digest: string) => Promise<boolean>>
let hash: MockInstance<(data: string, cost: number) => Promise<string>>

beforeEach(() => {
  compare = vi.spyOn(bcrypt as Bcrypt, 'compare')
  hash = vi.spyOn(bcrypt as Bcrypt, 'hash')
})

describe('a stored digest', () => {
  it.each([
    ['no scheme', 'ULofMl8v5OBseV46_pJ8kktA8ZgKd5IdoPWbi6Svxq8'],
    ['nothing', ''],
    ['an unknown scheme', '$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$aGFzaA'],
    ['a bare bcrypt', '$2b$04$abcdefghijklmnopqrstuuJ3TdR84pqHi.fdt/6rOJ8Wqh6m6hTiq'],
    ['an unknown bcrypt variant', aBcrypt.digest.replace('$2b$', '$2x$')],
    ['a bcrypt cut short', aBcrypt.digest.slice(0, -1)],
    ['a SHA-256 cut short', golden.vectors[0]?.digest.slice(0, -1)],
    ['a SHA-256 with more behind it', `${golden.vectors[0]?.digest}A`],
    ['a SHA-256 with a newline behind it', `${golden.vectors[0]?.digest}\n`],
    ['an HMAC without a pepper', `$hmac-sha256$$${'A'.repeat(43)}`],
    ['an HMAC under a pepper not configured', `$hmac-sha256$elsewhere$${'A'.repeat(43)}`],
    ['a pepper named like a member of every object', `$hmac-sha256$__proto__$${'A'.repeat(43)}`],
  ])('of %s is an error, not a bad key', (_what, digest) => {
    expect(() => createDigester({ peppers }).prepare(digest as string)).toThrow(/^a stored digest /)
  })

  it('names the pepper that is missing', () => {
    const { digest } = golden.vectors[1] as { digest: string }
    expect(() => createDigester({}).prepare(digest)).toThrow('"2026-11"')
  })

  it.each(golden.vectors)('of $scheme $pepper$cost keeps verifying: $digest', async ({ key, digest }) => {
    const prepared = createDigester({ peppers }).prepare(digest)
    for (const { key: other } of golden.vectors) expect(await prepared.matches(other)).toBe(other === key)
    expect(await prepared.matches('')).toBe(false)
    expect(await prepared.matches(`${key}\0`)).toBe(false)
    expect(await prepared.matches(key.slice(0, -1))).toBe(false)
  })

  it.each(golden.vectors.filter(({ scheme }) => scheme !== 'bcrypt'))(
    'of $scheme $pepper is still made the same way: $digest',
    async ({ scheme, pepper, key, digest }) => {
      const ring = peppers.filter(({ id }) => id === pepper)
      expect(await createDigester({ digest: scheme, peppers: ring }).create(key)).toBe(digest)
    },
  )

  it('names its scheme, the default one being SHA-256, and HMAC where there are peppers', async () => {
    expect(await createDigester({}).create('k')).toMatch(/^\$sha256\$[\w-]{43}$/)
    expect(await createDigester({ peppers: [] }).create('k')).toMatch(/^\$sha256\$/)
    expect(await createDigester({ peppers }).create('k')).toMatch(/^\$hmac-sha256\$2026-11\$[\w-]{43}$/)
    expect(await createDigester({ digest: 'sha256', peppers }).create('k')).toMatch(/^\$sha256\$/)
  })
})

describe('the ring of peppers', () => {
  it('creates under the first and verifies under all', async () => {
    const before = createDigester({ peppers: [oldPepper] })
    const after = createDigester({ peppers: [newPepper, oldPepper] })
    const [old, current] = [await before.create('key'), await after.create('key')]
    expect(old).toContain('$old_one$')
    expect(current).toContain('$2026-11$')
    for (const [digest, isCurrent] of [
      [old, false],
      [current, true],
    ] as const) {
      const prepared = after.prepare(digest)
      expect(await prepared.matches('key')).toBe(true)
      expect(await prepared.matches('yek')).toBe(false)
      expect(prepared.isCurrent).toBe(isCurrent)
    }
    expect(() => before.prepare(current)).toThrow('"2026-11"')
  })

  it('tells peppers apart by their secret, not by their id', async () => {
    const mine = createDigester({ peppers: [newPepper] })
    const theirs = createDigester({ peppers: [{ ...oldPepper, id: newPepper.id }] })
    expect(await theirs.prepare(await mine.create('key')).matches('key')).toBe(false)
  })

  it('keeps its own copy of the bytes', async () => {
    const secret = new Uint8Array(32).fill(7)
    const digester = createDigester({ peppers: [{ id: 'p', secret }] })
    const before = await digester.create('key')
    secret.fill(0)
    expect(await digester.create('key')).toBe(before)
  })
})

describe('whether a digest is current', () => {
  it.each([
    ['sha256', {}, '$sha256$', true],
    ['sha256', { peppers }, '$sha256$', false],
    ['sha256', { digest: 'bcrypt' }, '$sha256$', false],
    ['hmac', { peppers }, '$hmac-sha256$2026-11$', true],
    ['hmac', { peppers }, '$hmac-sha256$bytes$', false],
    ['hmac', { digest: 'sha256', peppers }, '$hmac-sha256$2026-11$', false],
    ['bcrypt', { digest: { scheme: 'bcrypt', cost: 4 } }, '$bcrypt-sha256$2b$04$', true],
    ['bcrypt', { digest: { scheme: 'bcrypt', cost: 5 } }, '$bcrypt-sha256$2b$04$', false],
    ['bcrypt', { digest: 'bcrypt' }, '$bcrypt-sha256$2b$04$', false],
    ['bcrypt', {}, '$bcrypt-sha256$2b$04$', false],
  ])('%s under %j', (_what, options, start, isCurrent) => {
    const vector = golden.vectors.find(({ digest }) => digest.startsWith(start)) as { digest: string }
    expect(createDigester(options).prepare(vector.digest).isCurrent).toBe(isCurrent)
  })
})

/** A digest string of its own for each number. */
function bcryptDigest(i: number): string {
  return `$bcrypt-sha256$2b$04$${String(i).padStart(53, '0')}`
}

describe('bcrypt', () => {
  const digester = () => createDigester({ digest: { scheme: 'bcrypt', cost: 4 } })

  it('tells keys apart that differ only after 72 bytes', async () => {
    const keys = ['a', 'b'].map((end) => `${'x'.repeat(72)}${end}`) as [string, string]
    const prepared = digester().prepare((await digester().create(keys[0])) as string)
    expect(await prepared.matches(keys[1])).toBe(false)
    expect(await prepared.matches(keys[0])).toBe(true)
  })

  it('hashes with the chosen cost, a fixed-length text and a salt of its own', async () => {
    const { key } = generateKey('acme')
    const [one, two] = await Promise.all([digester().create(key), digester().create(key)])
    expect(one).toMatch(/^\$bcrypt-sha256\$2b\$04\$/)
    expect(one).not.toBe(two)
    for (const [data] of hash.mock.calls) expect(data).toMatch(/^[\w-]{43}$/)
  })

  it('hashes with cost 12 where none is chosen', async () => {
    hash.mockResolvedValueOnce(aBcrypt.digest.slice('$bcrypt-sha256'.length))
    await createDigester({ digest: 'bcrypt' }).create('key')
    expect(hash.mock.calls[0]?.[1]).toBe(12)
  })

  it('compares once for each key and process, however often and by whatever record it is asked', async () => {
    const one = digester()
    const { key, digest } = aBcrypt
    const first = one.prepare(digest)
    expect(
      await Promise.all([first.matches(key), first.matches(key), one.prepare(digest).matches(key)]),
    ).toEqual([true, true, true])
    expect(one.prepare(digest).matches(key)).toBe(true)
    expect(compare).toHaveBeenCalledTimes(1)
  })

  it('compares no wrong secret for a proven key', async () => {
    const prepared = digester().prepare(aBcrypt.digest)
    await prepared.matches(aBcrypt.key)
    for (let i = 0; i < 1_000; i++) expect(prepared.matches(`${aBcrypt.key}${i}`)).toBe(false)
    expect(compare).toHaveBeenCalledTimes(1)
  })

  it('proves a key for its own digest only', async () => {
    const one = digester()
    await one.prepare(aBcrypt.digest).matches(aBcrypt.key)
    const other = bcryptVectors.find(({ key }) => key !== aBcrypt.key) as typeof aBcrypt
    expect(await one.prepare(other.digest).matches(aBcrypt.key)).toBe(false)
  })

  it('runs two at a time, lets a hundred wait, and refuses the next at once', async () => {
    let running = 0
    let most = 0
    const releases: (() => void)[] = []
    compare.mockImplementation(async () => {
      most = Math.max(most, ++running)
      await new Promise<void>((resolve) => releases.push(resolve))
      running--
      return false
    })
    const one = digester()
    // Several for each of many keys: one key alone may not fill the queue.
    const prepared = Array.from({ length: 13 }, (_, i) => one.prepare(bcryptDigest(i)))
    const all = Array.from(
      { length: 103 },
      (_, i) => prepared[i % 13]?.matches(`wrong ${i}`) as Promise<boolean>,
    )
    await expect(all[102]).rejects.toThrow('too many bcrypt comparisons are waiting')
    let settled = false
    const rest = Promise.all(all.slice(0, 102)).finally(() => {
      settled = true
    })
    while (!settled) {
      releases.shift()?.()
      await new Promise(setImmediate)
    }
    expect(await rest).toEqual(Array(102).fill(false))
    expect(compare).toHaveBeenCalledTimes(102)
    expect(most).toBe(2)
    compare.mockImplementation(async () => true)
    expect(await prepared[0]?.matches('there is room again')).toBe(true)
  })

  describe('where strangers guess at an id', () => {
    /** Each comparison that has begun waits to be ended, as right or wrong. */
    function holdComparisons(isRight: (text: string) => boolean = () => false) {
      const begun: { text: string; end: () => void }[] = []
      compare.mockImplementation(
        (text) => new Promise((resolve) => begun.push({ text, end: () => resolve(isRight(text)) })),
      )
      return {
        begun,
        async endAll() {
          for (let quiet = 0; quiet < 3; quiet++) {
            for (const { end } of begun.splice(0)) {
              quiet = 0
              end()
            }
            await settled()
          }
        },
      }
    }
    /** How many of these are refused, once all of them have settled. Nobody has to wait for that. */
    const refusedOf = async (all: readonly unknown[]) =>
      (await Promise.allSettled(all)).filter(({ status }) => status === 'rejected').length
    const from = (ip: string | undefined, usualIp: string | null = null) => ({ ip, usualIp })
    const settled = () => new Promise(setImmediate)
    const good = 'the key of the owner'
    const sha = hashOf('sha256', good, 'base64url')

    it('lets wrong secrets for one key from nowhere known fill only their own line', async () => {
      const { endAll } = holdComparisons()
      const one = digester()
      const [flooded, other] = [one.prepare(bcryptDigest(0)), one.prepare(bcryptDigest(1))]
      const refused = refusedOf(Array.from({ length: 110 }, (_, i) => flooded.matches(`wrong ${i}`)))
      const right = other.matches('another key')
      await endAll()
      expect(await right).toBe(false)
      // Two that ran and eight that waited.
      expect(await refused).toBe(100)
    })

    it.each([
      ['12 addresses', 12, 1],
      ['12 addresses, 50 guesses each', 12, 50],
      ['4 addresses, 8 guesses each, which is all the room there is', 4, 8],
    ])('does not refuse the owner while %s guess', async (_who, addresses, guesses) => {
      const { begun, endAll } = holdComparisons((text) => text === sha)
      const prepared = digester().prepare(bcryptDigest(0))
      const flood = Array.from({ length: addresses * guesses }, (_, i) =>
        prepared.matches(`wrong ${i}`, from(`198.51.100.${i % addresses}`)),
      )
      void refusedOf(flood)
      await settled()
      const owner = prepared.matches(good, from('192.0.2.1'))
      let waited = 0
      for (let isThere = false; !isThere; waited += 1) {
        await settled()
        isThere = begun.some(({ text }) => text === sha)
        begun.shift()?.end()
      }
      expect(waited).toBeLessThanOrEqual(addresses + 4)
      await endAll()
      expect(await owner).toBe(true)
      expect(prepared.matches(good)).toBe(true)
    })

    it('lets the address that the key was last used from go first, and make room in a full line', async () => {
      const { begun, endAll } = holdComparisons()
      const prepared = digester().prepare(bcryptDigest(0))
      // As many addresses as the line has room for: nobody takes up more of it than anybody else.
      void refusedOf(
        Array.from({ length: 34 }, (_, i) => prepared.matches(`wrong ${i}`, from(`198.51.100.${i}`))),
      )
      await settled()
      const stranger = prepared.matches('a stranger', from('203.0.113.1', '192.0.2.1'))
      await expect(stranger).rejects.toThrow('too many bcrypt comparisons are waiting')
      const owner = prepared.matches(good, from('::ffff:192.0.2.1', '192.0.2.1'))
      await settled()
      for (const { end } of begun.splice(0)) end()
      await settled()
      expect(begun.map(({ text }) => text)).toContain(sha)
      await endAll()
      expect(await owner).toBe(false)
    })

    it('lets an address that has not guessed yet go before those that have', async () => {
      const { begun, endAll } = holdComparisons()
      const prepared = digester().prepare(bcryptDigest(0))
      const guess = (round: number) =>
        void refusedOf(
          Array.from({ length: 20 }, (_, i) => prepared.matches(`${round} ${i}`, from(`198.51.100.${i}`))),
        )
      guess(1)
      await settled()
      await endAll()
      guess(2)
      await settled()
      const owner = prepared.matches(good, from('192.0.2.1'))
      for (let i = 0; i < 3 && !begun.some(({ text }) => text === sha); i++) {
        begun.shift()?.end()
        await settled()
      }
      expect(begun.map(({ text }) => text)).toContain(sha)
      await endAll()
      expect(await owner).toBe(false)
    })

    it('lets a text that comes again go before guesses, where nobody has an address', async () => {
      const { begun, endAll } = holdComparisons()
      const prepared = digester().prepare(bcryptDigest(0))
      void refusedOf(Array.from({ length: 20 }, (_, i) => prepared.matches(`wrong ${i}`)))
      await settled()
      await expect(prepared.matches(good)).rejects.toThrow('too many')
      const owner = prepared.matches(good)
      await settled()
      for (const { end } of begun.splice(0)) end()
      await settled()
      expect(begun.map(({ text }) => text)).toContain(sha)
      await endAll()
      expect(await owner).toBe(false)
    })

    it('compares a wrong text once, however often it is sent', async () => {
      const prepared = digester().prepare(aBcrypt.digest)
      expect(await prepared.matches('wrong')).toBe(false)
      for (let i = 0; i < 100; i++) expect(prepared.matches('wrong')).toBe(false)
      expect(compare).toHaveBeenCalledTimes(1)
      expect(await prepared.matches(aBcrypt.key)).toBe(true)
    })

    it('serves other keys in turn where one address guesses at very many ids', async () => {
      const { begun, endAll } = holdComparisons()
      const one = digester()
      const flood = Array.from({ length: 300 }, (_, i) =>
        one.prepare(bcryptDigest(i)).matches('wrong', from('198.51.100.1')),
      )
      void refusedOf(flood)
      await settled()
      const owner = one.prepare(bcryptDigest(1_000)).matches(good, from('192.0.2.1'))
      void refusedOf([owner])
      for (let i = 0; i < 4 && !begun.some(({ text }) => text === sha); i++) {
        begun.shift()?.end()
        await settled()
      }
      expect(begun.map(({ text }) => text)).toContain(sha)
      await endAll()
    })

    it('serves other keys in turn where very many addresses guess at one id', async () => {
      const { begun, endAll } = holdComparisons()
      const one = digester()
      const flooded = one.prepare(bcryptDigest(0))
      void refusedOf(
        Array.from({ length: 300 }, (_, i) =>
          flooded.matches(`wrong ${i}`, from(`10.0.${i >> 8}.${i & 255}`)),
        ),
      )
      await settled()
      const owner = one.prepare(bcryptDigest(1)).matches(good, from('192.0.2.1'))
      void refusedOf([owner])
      for (let i = 0; i < 4 && !begun.some(({ text }) => text === sha); i++) {
        begun.shift()?.end()
        await settled()
      }
      expect(begun.map(({ text }) => text)).toContain(sha)
      await endAll()
    })

    it('makes new digests while guesses wait', async () => {
      const { begun, endAll } = holdComparisons()
      const one = digester()
      void refusedOf(
        Array.from({ length: 300 }, (_, i) =>
          one.prepare(bcryptDigest(i % 20)).matches(`wrong ${i}`, from(`198.51.100.${i % 50}`)),
        ),
      )
      await settled()
      const made = one.create('a new key')
      // Each of the twenty ids and of the fifty addresses may have a turn before.
      for (let i = 0; i < 50 && hash.mock.calls.length === 0; i++) {
        begun.shift()?.end()
        await settled()
      }
      expect(hash).toHaveBeenCalledTimes(1)
      await endAll()
      expect(await made).toMatch(/^\$bcrypt-sha256\$/)
    })
  })

  it('remembers no failure: the next comparison is made', async () => {
    const prepared = digester().prepare(aBcrypt.digest)
    compare.mockRejectedValueOnce(new Error('out of memory'))
    await expect(prepared.matches(aBcrypt.key)).rejects.toThrow('out of memory')
    compare.mockImplementation(async () => true)
    expect(await prepared.matches(aBcrypt.key)).toBe(true)
  })
})

describe('the options', () => {
  const secret = 'not to be seen: a secret of more than 32 bytes'
  it.each([
    ['"digest"', { digest: secret }],
    ['"digest"', { digest: 7 }],
    ['"digest"', { digest: 'SHA256' }],
    ['"digest" is "hmac-sha256", which needs at least one entry in "peppers"', { digest: 'hmac-sha256' }],
    ['"digest.scheme"', { digest: { scheme: 'sha256' } }],
    ['"digest.scheme"', { digest: {} }],
    ['"digest.cost"', { digest: { scheme: 'bcrypt', cost: 3 } }],
    ['"digest.cost"', { digest: { scheme: 'bcrypt', cost: 16 } }],
    ['"digest.cost"', { digest: { scheme: 'bcrypt', cost: '12' } }],
    ['"digest" has no option "rounds"', { digest: { scheme: 'bcrypt', rounds: 12 } }],
    ['"peppers" must be an array', { peppers: secret }],
    ['"peppers" must be an array', { peppers: { [newPepper.id]: secret } }],
    ['"peppers" must have at most 16 entries', { peppers: Array(17).fill(newPepper) }],
    ['"peppers[0]" must be an object', { peppers: [secret] }],
    ['"peppers[0].id"', { peppers: [{ secret }] }],
    ['"peppers[0].id"', { peppers: [{ id: secret, secret }] }],
    ['"peppers[1].id" must be unique', { peppers: [newPepper, { id: newPepper.id, secret }] }],
    ['"peppers[0].id"', { peppers: [{ id: 'a$b', secret }] }],
    ['"peppers[0].secret"', { peppers: [{ id: 'a' }] }],
    ['"peppers[0].secret"', { peppers: [{ id: 'a', secret: [secret] }] }],
    [
      '"peppers[1].secret" must be at least 32 bytes',
      { peppers: [newPepper, { id: 'a', secret: secret.slice(0, 31) }] },
    ],
    ['"peppers[0].secret" must be at least 32 bytes', { peppers: [{ id: 'a', secret: new Uint8Array(31) }] }],
    [
      '"peppers[0]" has no option "Secret"; did you mean "secret"?',
      { peppers: [{ id: 'a', Secret: secret }] },
    ],
  ])('name %s and show no secret', (message, options) => {
    const make = () =>
      createApiKeys({
        store: memoryStore(),
        rateLimiter: memoryRateLimiter(),
        prefix: 'acme',
        ...(options as object),
      })
    expect(make).toThrow(TypeError)
    expect(make).toThrow(message)
    expect(make).not.toThrow(secret.slice(0, 31))
  })

  it('count the bytes of a pepper, not its characters', () => {
    expect(() => createDigester({ peppers: [{ id: 'a', secret: 'é'.repeat(16) }] })).not.toThrow()
  })
})

/** The two forms of many that are used. */
interface Bcrypt {
  compare(data: string, digest: string): Promise<boolean>
  hash(data: string, cost: number): Promise<string>
}
