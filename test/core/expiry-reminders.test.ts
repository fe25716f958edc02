import {
  type ApiKeyEvent,
  type ApiKeysOptions,
  createApiKeys,
  type KeyStore,
  memoryRateLimiter,
  memoryStore,
} from 'latchkey'
import { describe, expect, it } from 'vitest'
import { readProgress, writeProgress } from '../../lib/core/expiry/reminder-progress.ts'
import { type FakeClock, fakeClock, settle } from '../support/fake-clock.ts'
import { record as keyRecord } from '../support/key-records.ts'
import { hangs, type RecordingStore, recordingStore, rejects } from '../support/recording-store.ts'
import { ALICE, createTestKeys, NAME } from '../support/test-keys.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR
const MANUAL = { expiryReminders: { everyMs: false } } as const

type Reminder = Extract<ApiKeyEvent, { type: 'key.expiring' }>

/** Keys of processes that share a store and a time. */
function world(inner: KeyStore = memoryStore()) {
  const clock = fakeClock()
  const told: { process: number; name: string; days: number; left: number }[] = []
  let processes = 0
  const start = (
    options: Partial<Omit<ApiKeysOptions, 'clock' | 'store'>> = MANUAL,
    store = recordingStore(inner),
  ) => {
    const process = ++processes
    return createTestKeys({
      clock,
      store,
      onEvent(event) {
        if (event.type !== 'key.expiring') return
        const { name, beforeMs, expiresAt } = event
        told.push({ process, name, days: beforeMs / DAY, left: (expiresAt.getTime() - clock.now()) / DAY })
      },
      ...options,
    })
  }
  const names = () => told.map(({ name, days }) => `${name} ${days}`)
  return { clock, told, names, start, inner }
}

const inDays = (clock: FakeClock, days: number) => ({ expiresAt: new Date(clock.now() + days * DAY) })

describe('options', () => {
  const create = (options: object) =>
    createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'acme', ...options })
  const withListener = (expiryReminders: unknown) => () => create({ expiryReminders, onEvent: () => {} })

  it.each([
    [true, '"expiryReminders"'],
    [{ beforeMs: [] }, '"expiryReminders.beforeMs" must be a non-empty array'],
    [{ beforeMs: DAY }, '"expiryReminders.beforeMs" must be an array'],
    [{ beforeMs: [DAY, 0] }, '"expiryReminders.beforeMs[1]"'],
    [{ beforeMs: [367 * DAY] }, '"expiryReminders.beforeMs[0]"'],
    [{ beforeMs: Array(11).fill(DAY) }, 'at most 10 entries'],
    [{ everyMs: 0 }, '"expiryReminders.everyMs" must be a positive integer or false'],
    [{ everyMs: 2 * DAY }, '"expiryReminders.everyMs"'],
    [{ before: [DAY] }, 'before'],
  ])('refuses %j', (given, message) => {
    expect(withListener(given)).toThrow(message)
  })

  it('refuses reminders that nobody hears, and those that the store cannot share', () => {
    expect(() => create({ expiryReminders: {} })).toThrow('"onEvent"')
    const { agree: _agree, ...store } = memoryStore()
    expect(() => create({ expiryReminders: {}, onEvent: () => {}, store })).toThrow(
      '"expiryReminders" needs a store with "agree"',
    )
  })

  it.each([
    ['are switched off', { expiryReminders: false, onEvent: () => {} }],
    ['have no listener', {}],
    ['have no store that shares them', { onEvent: () => {}, store: { ...memoryStore(), agree: undefined } }],
  ])('are quiet where they %s, and remindOfExpiry says what it needs', async (_what, options) => {
    const clock = fakeClock()
    const keys = create({ clock, ...options })
    expect(clock.waiting).toBe(0)
    await expect(keys.remindOfExpiry()).rejects.toThrow('"remindOfExpiry" needs "onEvent"')
  })

  it('let flush() go on while keys are looked for, and close() wait', async () => {
    const { clock, start } = world()
    const { keys, store } = start({ expiryReminders: { everyMs: HOUR }, timeoutMs: HOUR })
    await keys.issue({ ...NAME, ...inDays(clock, 10) })
    const held = store.hold('list')
    await clock.advance(60_000)
    await held.reached
    await keys.flush()
    let isClosed = false
    const closing = keys.close().then(() => {
      isClosed = true
    })
    await settle()
    expect(isClosed).toBe(false)
    held.release()
    await closing
  })

  it('remind by default where there is a listener', async () => {
    const { clock, names, start } = world()
    const { keys } = start({ expiryReminders: undefined as never })
    await keys.issue({ ...NAME, name: 'a', ...inDays(clock, 30) })
    await clock.advance(31 * DAY)
    expect(names()).toEqual(['a 14', 'a 7', 'a 1'])
    await keys.close()
    expect(clock.waiting).toBe(0)
  })
})

describe('a store that fails', () => {
  it('loses no reminder: the next look reports them', async () => {
    const { clock, names, start } = world()
    const { keys, store, eventsOf } = start({ expiryReminders: { everyMs: HOUR } })
    await keys.issue({ ...NAME, name: 'a', ...inDays(clock, 15) })
    for (const method of ['agree', 'list'] as const) store.fail(method, rejects(new Error('down')))
    await clock.advance(2 * DAY)
    expect(names()).toEqual([])
    store.heal()
    await clock.advance(2 * HOUR)
    expect(names()).toEqual(['a 14'])
    expect(eventsOf('fault')).toEqual([])
  })

  it.each(['before it is made', 'after it was made'])(
    'and loses the reply to a change, %s: each reminder comes once',
    async (when) => {
      for (let failing = 1; failing <= 6; failing++) {
        const { clock, names, start } = world()
        const { keys, store } = start()
        await keys.issue({ ...NAME, name: 'a', ...inDays(clock, 10) })
        await clock.advance(4 * DAY)
        let call = 0
        store.fail('agree', async (work) => {
          call += 1
          if (call !== failing) return work()
          if (when === 'after it was made') await work()
          throw new Error('connection reset')
        })
        await keys.remindOfExpiry().catch(() => {})
        store.heal()
        await keys.remindOfExpiry()
        await keys.remindOfExpiry()
        expect(names(), `call ${failing}`).toEqual(['a 7'])
      }
    },
  )

  it('and ignores "expected" is found out, and reports nothing rather than everything twice', async () => {
    const { clock, names, start, inner } = world()
    const store = recordingStore({
      ...inner,
      agree: (name, proposal) => {
        const { expected: _expected, ...known } = proposal ?? { value: '', replace: false }
        return (inner.agree as NonNullable<KeyStore['agree']>)(name, proposal && known)
      },
    })
    const faults: unknown[] = []
    const { keys } = start(
      {
        ...MANUAL,
        onEvent: (event) => void (event.type === 'fault' && faults.push(String(event.error))),
      },
      store,
    )
    await keys.issue({ ...NAME, name: 'a', ...inDays(clock, 20) })
    await expect(keys.remindOfExpiry()).rejects.toMatchObject({ code: 'unavailable' })
    await clock.advance(7 * DAY)
    expect(await keys.remindOfExpiry()).toBe(0)
    expect(faults).toEqual([expect.stringContaining('ignores "expected"')])
    expect(names()).toEqual([])
  })

  it('and holds something else as the progress starts anew', async () => {
    const { clock, names, start, inner } = world()
    await inner.agree?.('expiry reminders', { value: 'something else', replace: true })
    const { keys } = start()
    await keys.issue({ ...NAME, name: 'a', ...inDays(clock, 20) })
    await keys.remindOfExpiry()
    await clock.advance(7 * DAY)
    expect(await keys.remindOfExpiry()).toBe(1)
    expect(names()).toEqual(['a 14'])
  })
})

describe('a key', () => {
  it('is reported once for each time before its end, with what a message needs', async () => {
    const clock = fakeClock()
    const { keys, eventsOf } = createTestKeys({ clock, ...MANUAL })
    const { apiKey } = await keys.issue({ ...NAME, name: 'nightly', by: 'u_1', ...inDays(clock, 20) })
    const counts: number[] = []
    for (let day = 0; day < 22; day++) {
      counts.push(await keys.remindOfExpiry(), await keys.remindOfExpiry())
      await clock.advance(DAY)
    }
    expect(counts.reduce((sum, count) => sum + count)).toBe(3)
    const events = eventsOf('key.expiring' as never) as unknown as Reminder[]
    expect(events.map(({ beforeMs }) => beforeMs / DAY)).toEqual([14, 7, 1])
    expect(events[0]).toEqual({
      type: 'key.expiring',
      at: new Date((apiKey.expiresAt?.getTime() as number) - 14 * DAY),
      keyId: apiKey.id,
      owner: ALICE,
      name: 'nightly',
      createdBy: 'u_1',
      expiresAt: apiKey.expiresAt,
      beforeMs: 14 * DAY,
    })
  })

  it.each([
    ['was revoked', async (keys: ReturnType<typeof createTestKeys>['keys'], id: string) => keys.revoke(id)],
    ['is disabled', async (keys: ReturnType<typeof createTestKeys>['keys'], id: string) => keys.disable(id)],
    [
      'never ends',
      async (keys: ReturnType<typeof createTestKeys>['keys'], id: string) =>
        keys.update(id, { expiresAt: null }),
    ],
  ])('is not reported if it %s', async (_what, change) => {
    const { clock, names, start } = world()
    const { keys } = start()
    const { apiKey } = await keys.issue({ ...NAME, ...inDays(clock, 20) })
    await change(keys, apiKey.id)
    for (let day = 0; day < 22; day++) {
      await clock.advance(DAY)
      await keys.remindOfExpiry()
    }
    expect(names()).toEqual([])
  })

  it('is reported anew if its end moves, at the times that are still ahead', async () => {
    const { clock, names, start } = world()
    const { keys } = start()
    const { apiKey } = await keys.issue({ ...NAME, name: 'a', ...inDays(clock, 10) })
    const days = async (count: number) => {
      for (let day = 0; day < count; day++) {
        await clock.advance(DAY)
        await keys.remindOfExpiry()
      }
    }
    await days(4)
    expect(names()).toEqual(['a 7'])
    await keys.update(apiKey.id, inDays(clock, 20))
    await days(14)
    expect(names()).toEqual(['a 7', 'a 14', 'a 7'])
    // Sooner than its times: whoever does this knows.
    await keys.update(apiKey.id, inDays(clock, 2))
    await days(3)
    expect(names()).toEqual(['a 7', 'a 14', 'a 7', 'a 1'])
  })

  it('that was rotated is not reported; its successor is', async () => {
    const { clock, told, start } = world()
    const { keys } = start()
    const { apiKey } = await keys.issue({ ...NAME, name: 'a', ...inDays(clock, 20) })
    const rotated = await keys.rotate(apiKey.id, { graceMs: 3 * DAY })
    for (let hour = 0; hour < 21 * 24; hour++) {
      await clock.advance(HOUR)
      await keys.remindOfExpiry()
    }
    expect(rotated.apiKey.expiresAt).toEqual(apiKey.expiresAt)
    expect(told.map(({ days, left }) => [days, Math.ceil(left)])).toEqual([
      [14, 14],
      [7, 7],
      [1, 1],
    ])
  })

  it('is reported for the last of its times where several have passed, and not after its end', async () => {
    const { clock, names, start } = world()
    const { keys } = start()
    await keys.issue({ ...NAME, name: 'ends', ...inDays(clock, 20) })
    await keys.issue({ ...NAME, name: 'lasts', ...inDays(clock, 31) })
    await keys.remindOfExpiry()
    // Nobody looked for weeks.
    await clock.advance(25 * DAY)
    await keys.remindOfExpiry()
    expect(names()).toEqual(['lasts 7'])
  })
})

describe('several processes', () => {
  it('report once, and only one of them reads the keys within an hour', async () => {
    const { clock, names, start } = world()
    const stores: RecordingStore[] = Array.from({ length: 5 }, () => recordingStore(start().store))
    const processes = stores.map((store) => start({ expiryReminders: { everyMs: HOUR } }, store))
    await processes[0]?.keys.issue({ ...NAME, name: 'a', ...inDays(clock, 20) })
    await clock.advance(21 * DAY)
    expect(names()).toEqual(['a 14', 'a 7', 'a 1'])
    const reads = stores.reduce((sum, store) => sum + store.calls('list'), 0)
    // About once an hour: timers are jittered.
    expect(reads).toBeGreaterThan(20 * 24)
    expect(reads).toBeLessThan(23.5 * 24)
    for (const { keys } of processes) await keys.close()
    expect(clock.waiting).toBe(0)
  })

  it('keep one short text, however long they run', async () => {
    const { clock, start, inner } = world()
    const { keys, store } = start()
    await keys.issue({ ...NAME, ...inDays(clock, 20) })
    for (let day = 0; day < 21; day++) {
      await clock.advance(DAY)
      await keys.remindOfExpiry()
    }
    const names = new Set(store.argumentsOf('agree').map(([name]) => name))
    expect([...names]).toEqual(['expiry reminders'])
    expect(await inner.agree?.('expiry reminders', null)).toBe(`done ${clock.now()}`)
  })

  it('go on where one died, from the page that it had reported', async () => {
    const { clock, names, start, inner } = world()
    const count = 1_000
    await inner.insert(records(count, clock.now() + 10 * DAY))
    await clock.advance(4 * DAY)
    const dead = start()
    let lists = 0
    dead.store.fail('list', (work, ...args) => {
      lists += 1
      return lists === 3 ? hangs(work, ...args) : work()
    })
    void dead.keys.remindOfExpiry().catch(() => {})
    await settle()
    expect(names()).toHaveLength(400)
    const other = start()
    // As long as the dead one may be at work, nobody else is.
    expect(await other.keys.remindOfExpiry()).toBe(0)
    await clock.advance(120_000)
    expect(await other.keys.remindOfExpiry()).toBe(count - 400)
    expect(new Set(names()).size).toBe(count)
  })

  it('do not report twice what one that stood still has given up, which wakes up and stops', async () => {
    const { clock, names, start, inner } = world()
    await inner.insert(records(300, clock.now() + 10 * DAY))
    await clock.advance(4 * DAY)
    // Its own deadlines stand still with it.
    const still = fakeClock(clock.now())
    const told: string[] = []
    const onEvent = (event: ApiKeyEvent) => void (event.type === 'key.expiring' && told.push(event.name))
    const slow = createTestKeys({ clock: still, store: recordingStore(inner), ...MANUAL, onEvent })
    // It has read its first page and is about to report it.
    const held = slow.store.hold('list')
    const reminding = slow.keys.remindOfExpiry()
    await held.reached
    await clock.advance(HOUR)
    const other = start()
    expect(await other.keys.remindOfExpiry()).toBe(300)
    held.release()
    expect(await reminding).toBe(0)
    expect(told).toEqual([])
    expect(new Set(names()).size).toBe(300)
  })

  it('hand over at once what one that is closed has not reported', async () => {
    const { clock, names, start, inner } = world()
    await inner.insert(records(1_000, clock.now() + 10 * DAY))
    await clock.advance(4 * DAY)
    const closing = start()
    const held = closing.store.hold('list')
    const reminding = closing.keys.remindOfExpiry()
    await held.reached
    const closed = closing.keys.close()
    held.release()
    expect(await reminding).toBe(200)
    await closed
    await expect(closing.keys.remindOfExpiry()).rejects.toMatchObject({ code: 'unavailable' })
    expect(await start().keys.remindOfExpiry()).toBe(800)
    expect(new Set(names()).size).toBe(1_000)
  })

  it('are not silenced by one that died with a clock that was a year ahead, nor led to tell of all keys at once', async () => {
    const { clock, names, start, inner } = world()
    const { keys } = start()
    await keys.issue({ ...NAME, name: 'a', ...inDays(clock, 40) })
    const ahead = createTestKeys({
      clock: fakeClock(clock.now() + 30 * DAY),
      store: recordingStore(inner),
      ...MANUAL,
    })
    ahead.store.fail('list', hangs)
    void ahead.keys.remindOfExpiry().catch(() => {})
    await settle()
    for (let day = 0; day < 41; day++) {
      await keys.remindOfExpiry()
      await clock.advance(DAY)
    }
    expect(names()).toEqual(['a 14', 'a 7', 'a 1'])
  })

  it('are not silenced by one whose clock is a year ahead', async () => {
    const { clock, names, start, inner } = world()
    const { keys } = start()
    await keys.issue({ ...NAME, name: 'a', ...inDays(clock, 20) })
    const ahead = fakeClock(clock.now() + 365 * DAY)
    await createTestKeys({ clock: ahead, store: recordingStore(inner), ...MANUAL }).keys.remindOfExpiry()
    for (let day = 0; day < 21; day++) {
      await clock.advance(DAY)
      await keys.remindOfExpiry()
    }
    expect(names()).toEqual(['a 14', 'a 7', 'a 1'])
  })
})

describe('10,000 keys that expire at once', () => {
  it('are read 200 at once, and each is reported once', async () => {
    const { clock, names, start, inner } = world()
    const count = 10_000
    await inner.insert(records(count, clock.now() + 10 * DAY))
    await clock.advance(4 * DAY)
    const [one, other] = [start(), start()]
    const counts = await Promise.all([one.keys.remindOfExpiry(), other.keys.remindOfExpiry()])
    expect(counts.sort((a, b) => a - b)).toEqual([0, count])
    expect(new Set(names()).size).toBe(count)
    const limits = [one, other].flatMap(({ store }) => store.argumentsOf('list').map(([, page]) => page))
    expect(limits.every((page) => (page as { limit: number }).limit === 200)).toBe(true)
  })
})

/** Keys that expire at one time. */
function records(count: number, expiresAt: number) {
  return Array.from({ length: count }, (_, i) =>
    keyRecord({ id: `k${i}`, name: `k${i}`, createdAt: new Date(0), expiresAt: new Date(expiresAt) }),
  )
}

describe('the text of the progress', () => {
  const telling = {
    state: 'telling' as const,
    fromMs: 5,
    untilMs: 1_768_478_400_000,
    claimant: '0b3a1f0e-5a0c-4a54-8f5a-7d6a4d0c9a11',
    heldUntilMs: 1_768_478_460_000,
    after: { createdAt: new Date(1_768_478_400_000), id: 'a b/%ü' },
  }

  it.each([
    ['what is done', { state: 'done' as const, untilMs: 0 }],
    ['what is being told', telling],
    ['the start of a listing', { ...telling, after: null }],
  ])('keeps %s', (_what, progress) => {
    expect(readProgress(writeProgress(progress))).toEqual(progress)
  })

  it('is short enough for every store, and without a place where an id is too long', () => {
    const text = writeProgress({ ...telling, after: { ...telling.after, id: 'ü'.repeat(255) } })
    expect(text.length).toBeLessThanOrEqual(255)
    expect(readProgress(text)).toEqual({ ...telling, after: null })
  })

  it.each(['', 'done', 'done x', 'telling 1 2', 'done 1 2'])('is not %j', (text) => {
    expect(readProgress(text)).toBeNull()
  })
})
