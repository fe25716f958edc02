import { execFile } from 'node:child_process'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Redis } from 'ioredis'
import { memoryRateLimiter, memoryStore, type RateLimiter } from 'latchkey'
import { redisRateLimiter } from 'latchkey/redis'
import { beforeAll, describe, expect, inject, it, onTestFinished, vi } from 'vitest'
import { parse, stringify } from 'yaml'
import { temporaryFolder } from '../support/cleaner.ts'
import { settle } from '../support/fake-clock.ts'
import { recordForPrometheus, type Sample } from '../support/prometheus-metrics.ts'
import { findPromtool } from '../support/promtool-binary.ts'
import { recordingStore, rejects } from '../support/recording-store.ts'
import { startRedis } from '../support/redis-server.ts'
import { createTestKeys, forgeKey, NAME } from '../support/test-keys.ts'

interface Rule {
  alert: string
  labels: Record<string, string>
  annotations: Record<string, string>
}

const rulesFile = fileURLToPath(new URL('../../examples/prometheus/alerts.yml', import.meta.url))
const rules: Rule[] = parse(readFileSync(rulesFile, 'utf8')).groups[0].rules

let promtool = ''
// Unpacking the package takes a while.
beforeAll(async () => {
  promtool = await findPromtool()
}, 300_000)

type Options = NonNullable<Parameters<typeof createTestKeys>[0]>

async function start(options: Options = {}) {
  const inner = memoryRateLimiter()
  // One that answers later, as Redis does.
  const rateLimiter: RateLimiter = { ...inner, timeoutMs: 1_000, check: async (asked) => inner.check(asked) }
  const made = createTestKeys({ rateLimiter, ...options })
  const { key } = await made.keys.issue(NAME)
  await made.keys.verify(key)
  return { ...made, key, verify: (times: number, one = key) => repeat(times, () => made.keys.verify(one)) }
}

async function repeat(times: number, act: (i: number) => Promise<unknown>): Promise<void> {
  for (let i = 0; i < times; i++) await act(i).catch(() => {})
}

/** Makes the time of the measurements pass as told. */
function measuredTime(): (ms: number) => void {
  let now = performance.now()
  vi.spyOn(performance, 'now').mockImplementation(() => now)
  return (ms) => {
    now += ms
  }
}

const unknownKey = (key: string, i: number) => forgeKey(key, { keyId: String(i).padStart(16, '0') })

interface Minute {
  /** What a minute of it looks like. */
  act(): Promise<unknown>
  /** Whether it happens once, and not in every minute. */
  once?: boolean
}

/** A minute of each trouble, and the alerts that fire when it goes on. */
const TROUBLES: Record<string, { fires: string[]; prepare(): Promise<Minute> }> = {
  'nothing is wrong': {
    fires: [],
    async prepare() {
      const { verify, keys, key } = await start()
      return {
        async act() {
          await verify(200)
          await repeat(5, (i) => keys.verify(unknownKey(key, i)))
          await keys.flush()
        },
      }
    },
  },
  'the store is down': {
    fires: ['LatchkeyUnavailable', 'LatchkeyStoreFails'],
    async prepare() {
      const { verify, keys, key, store } = await start()
      store.fail('find', rejects(new Error('down')))
      return {
        async act() {
          await verify(100)
          await repeat(20, (i) => keys.verify(unknownKey(key, i)))
        },
      }
    },
  },
  'the store is slow': {
    fires: ['LatchkeyStoreSlow', 'LatchkeyVerifySlow'],
    async prepare() {
      const { verify, keys, key, store } = await start()
      const pass = measuredTime()
      store.fail('find', async (work) => {
        pass(400)
        return work()
      })
      return {
        async act() {
          await verify(100)
          await repeat(10, (i) => keys.verify(unknownKey(key, i)))
        },
      }
    },
  },
  'Redis is away': {
    fires: ['LatchkeyLimiterSuspended'],
    async prepare() {
      const server = await startRedis({ binary: inject('redisBinary') })
      const client = new Redis(server.url)
      client.on('error', () => {})
      onTestFinished(() => client.disconnect())
      const { verify, eventsOf } = await start({ rateLimiter: redisRateLimiter(client) })
      await server.stop()
      for (let i = 0; i < 1_000 && eventsOf('limiter.suspended').length === 0; i++) await verify(1)
      expect(eventsOf('limiter.suspended')).toHaveLength(1)
      return { act: () => verify(100) }
    },
  },
  'Redis is slow': {
    fires: ['LatchkeyLimiterSlow'],
    async prepare() {
      const inner = memoryRateLimiter()
      const pass = measuredTime()
      const rateLimiter: RateLimiter = {
        ...inner,
        timeoutMs: 1_000,
        async check(asked) {
          await settle()
          pass(80)
          return inner.check(asked)
        },
      }
      const { verify } = await start({ rateLimiter })
      return { act: () => verify(100) }
    },
  },
  'a hook is slow': {
    fires: ['LatchkeyVerifySlow'],
    async prepare() {
      const pass = measuredTime()
      const isOwnerActive = async () => {
        pass(400)
        return true
      }
      const { verify } = await start({ isOwnerActive, ownerMaxAgeMs: false })
      return { act: () => verify(100) }
    },
  },
  'many keys are invalid': {
    fires: ['LatchkeyManyInvalidKeys'],
    async prepare() {
      const { verify } = await start()
      return {
        async act() {
          await verify(60)
          await verify(30, 'an old key')
        },
      }
    },
  },
  'somebody guesses secrets': {
    fires: ['LatchkeyGuessedSecrets'],
    async prepare() {
      const { verify, key } = await start()
      return {
        async act() {
          await verify(200)
          await verify(20, forgeKey(key, { secret: 'A'.repeat(43) }))
        },
      }
    },
  },
  'uses cannot be written': {
    fires: ['LatchkeyStoreFails', 'LatchkeyUsageLags'],
    async prepare() {
      const { verify, store, clock } = await start()
      store.fail('recordUsage', rejects(new Error('read-only')))
      await verify(1)
      await clock.advance(300_000)
      return {
        async act() {
          await verify(10)
          await clock.advance(60_000)
        },
      }
    },
  },
  'the memory is too small': {
    fires: ['LatchkeyCacheMisses'],
    async prepare() {
      const { verify, keys, key } = await start({ cache: { maxEntries: 1 } })
      const other = (await keys.issue(NAME)).key
      return {
        act: () =>
          repeat(50, async () => {
            await verify(1, key)
            await verify(1, other)
          }),
      }
    },
  },
  'processes have different configurations': {
    fires: ['LatchkeyConfigurationDrift'],
    async prepare() {
      const store = recordingStore(memoryStore())
      const limiter = (sharedAs: string) => ({ rateLimiter: { ...memoryRateLimiter(), sharedAs } })
      await start({ store, ...limiter('one') })
      await settle()
      return {
        once: true,
        async act() {
          await start({ store, ...limiter('other') })
          await settle()
        },
      }
    },
  },
}

/** What Prometheus has read after twenty minutes like the one between two readings. */
function twentyMinutes(before: readonly Sample[], after: readonly Sample[], once = false) {
  const earlier = new Map(before.map(({ series, value }) => [series, value]))
  return after.map(({ series, name, labels, value, kind }) => {
    const change = value - (earlier.get(series) ?? 0)
    const text = Object.entries({ ...labels, job: 'api', instance: 'one' }).map(
      ([label, is]) => `${label}="${is}"`,
    )
    const values = kind === 'gauge' || once ? `${value}+0x20` : `${value}+${change}x20`
    return { series: `${name}{${text.join(',')}}`, values }
  })
}

/** What promtool says of the rules. */
async function testRules(inputSeries: object[], fires: readonly string[]): Promise<string> {
  const folder = temporaryFolder('alerts')
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const expected = rules.map(({ alert, labels, annotations }) => ({
    eval_time: '20m',
    alertname: alert,
    exp_alerts: fires.includes(alert)
      ? [{ exp_labels: { ...labels, job: 'api' }, exp_annotations: annotations }]
      : [],
  }))
  const tests = [{ interval: '1m', input_series: inputSeries, alert_rule_test: expected }]
  const file = join(folder, 'test.yml')
  writeFileSync(file, stringify({ rule_files: [rulesFile], evaluation_interval: '1m', tests }))
  return promisify(execFile)(promtool, ['test', 'rules', file]).then(
    ({ stdout }) => stdout,
    ({ stdout, stderr }) => `${stdout}${stderr}`,
  )
}

describe('the alert rules', () => {
  it('are right for promtool', async () => {
    const { stdout } = await promisify(execFile)(promtool, ['check', 'rules', rulesFile])
    expect(stdout).toContain(`SUCCESS: ${rules.length} rules found`)
  })

  it('each fire in one of the troubles below', () => {
    const firing = new Set(Object.values(TROUBLES).flatMap(({ fires }) => fires))
    expect([...firing].sort()).toEqual(rules.map(({ alert }) => alert).sort())
  })

  it.each(Object.entries(TROUBLES))('fire as they should where %s', async (_what, { fires, prepare }) => {
    const { scrape } = recordForPrometheus()
    const { act, once } = await prepare()
    const before = await scrape()
    await act()
    const series = twentyMinutes(before, await scrape(), once)
    expect(series.length).toBeGreaterThan(20)
    expect(await testRules(series, fires)).toMatch(/SUCCESS/)
  })
})
