import bcrypt from 'bcrypt'
import { memoryStore } from 'latchkey'
import { expect, it, type MockInstance, vi } from 'vitest'
import { settle } from '../support/fake-clock.ts'
import { recordingStore } from '../support/recording-store.ts'
import { createTestKeys, forgeKey, NAME } from '../support/test-keys.ts'

interface Bcrypt {
  compare(data: string, digest: string): Promise<boolean>
}

const inner = memoryStore()
const start = () => createTestKeys({ store: recordingStore(inner), digest: { scheme: 'bcrypt', cost: 4 } })

/** Comparisons that end one by one, in the order in which they began. */
function holdComparisons() {
  const real = bcrypt.compare.bind(bcrypt)
  const begun: (() => void)[] = []
  const compare: MockInstance<Bcrypt['compare']> = vi.spyOn(bcrypt as Bcrypt, 'compare')
  compare.mockImplementation(async (text, digest) => {
    await new Promise<void>((resolve) => begun.push(resolve))
    return real(text, digest)
  })
  return begun
}

it.each([
  ['from an address of its own, while 12 others guess', 12, '192.0.2.1', false],
  ['from an address of its own, while 30 others guess', 30, '192.0.2.1', false],
  ['from the address it was last used from, while more guess than have room', 200, '192.0.2.1', true],
])('a key is verified %s', async (_who, strangers, ip, isUsual) => {
  const issuer = start()
  const { key } = await issuer.keys.issue(NAME)
  if (isUsual) expect(await issuer.keys.verify(key, { ip })).toMatchObject({ ok: true })
  await issuer.keys.close()

  const begun = holdComparisons()
  const { keys, eventsOf } = start()
  const guess = (i: number) => {
    const secret = String(i).padStart(43, '0')
    return keys.verify(forgeKey(key, { secret }), { ip: `198.51.${i >> 8}.${i & 255}` })
  }
  const guesses = Array.from({ length: strangers }, (_, i) => guess(i))
  const ended = Promise.allSettled(guesses)
  await settle()
  const faults = eventsOf('fault').length
  let answer: unknown
  const verified = keys.verify(key, { ip }).then((result) => {
    answer = result
  })
  for (let i = 0; i < strangers + 4 && answer === undefined; i++) {
    begun.shift()?.()
    await vi.waitFor(() => expect(begun.length > 0 || answer !== undefined).toBe(true))
  }
  await verified
  expect(answer).toMatchObject({ ok: true })
  // What made room for the owner was a guess.
  expect(eventsOf('fault').length - faults).toBeLessThanOrEqual(1)
  let isOver = false
  void ended.finally(() => {
    isOver = true
  })
  while (!isOver) {
    begun.shift()?.()
    await settle()
  }
  expect((await ended).some(({ status }) => status === 'fulfilled')).toBe(true)
})
