import { readFileSync } from 'node:fs'
import { context, diag, metrics, SpanStatusCode, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { registerInstrumentations } from '@opentelemetry/instrumentation'
import {
  AggregationTemporality,
  type DataPoint,
  type Histogram,
  InMemoryMetricExporter,
  MeterProvider,
  PeriodicExportingMetricReader,
} from '@opentelemetry/sdk-metrics'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { memoryRateLimiter, type RateLimiter } from 'latchkey'
import { LatchkeyInstrumentation } from 'latchkey/opentelemetry'
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { answers, recordingStore, rejects } from '../support/recording-store.ts'
import { ALICE, createTestKeys, forgeKey, NAME } from '../support/test-keys.ts'

/** The SDK, and what it was told. */
function startSdk() {
  const exported = new InMemoryMetricExporter(AggregationTemporality.CUMULATIVE)
  const reader = new PeriodicExportingMetricReader({ exporter: exported, exportIntervalMillis: 3_600_000 })
  const meterProvider = new MeterProvider({ readers: [reader] })
  const spans = new InMemorySpanExporter()
  const tracerProvider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(spans)] })
  onTestFinished(async () => {
    await Promise.all([meterProvider.shutdown(), tracerProvider.shutdown()])
  })

  /** The points of a metric, each as its attributes with its count or value. */
  async function points(name: string): Promise<Record<string, unknown>[]> {
    const [last] = (await collect()).filter(({ descriptor }) => descriptor.name === name)
    return (last?.dataPoints ?? []).map(({ attributes, value }) => ({
      ...attributes,
      is: typeof value === 'number' ? value : value.count,
    }))
  }

  async function collect() {
    exported.reset()
    await meterProvider.forceFlush()
    const all = exported.getMetrics().at(-1)?.scopeMetrics ?? []
    return all.flatMap((scope) => scope.metrics)
  }

  return { meterProvider, tracerProvider, spans, points, collect }
}

function instrument(options: ConstructorParameters<typeof LatchkeyInstrumentation>[0] = {}) {
  const sdk = startSdk()
  const { meterProvider, tracerProvider } = sdk
  const instrumentation = new LatchkeyInstrumentation({ meterProvider, tracerProvider, ...options })
  onTestFinished(() => instrumentation.disable())
  return { ...sdk, instrumentation }
}

async function start(options: Parameters<typeof createTestKeys>[0] = {}, settings = {}) {
  const made = createTestKeys(options)
  const { key, apiKey } = await made.keys.issue({ ...NAME, ...settings })
  return { ...made, key, apiKey }
}

beforeEach(() => {
  const manager = new AsyncLocalStorageContextManager().enable()
  context.setGlobalContextManager(manager)
})
afterEach(() => {
  context.disable()
  trace.disable()
  metrics.disable()
  diag.disable()
})

function failing(): never {
  throw new Error('SDK')
}

describe('where the SDK fails', () => {
  const broken: { add(): void; record(): void } = { add: failing, record: failing }
  const meter = new Proxy({}, { get: () => () => broken }) as never

  it('verifies as without it, and no exception is left uncaught', async () => {
    const uncaught: unknown[] = []
    const note = (error: unknown) => void uncaught.push(error)
    process.on('uncaughtException', note)
    onTestFinished(() => void process.off('uncaughtException', note))
    const logged: unknown[] = []
    const log = (...args: unknown[]) => void logged.push(args)
    diag.setLogger({ error: log, warn: log, info: log, debug: log, verbose: log })
    const instrumentation = new LatchkeyInstrumentation({
      enabled: false,
      meterProvider: { getMeter: () => meter },
      tracerProvider: { getTracer: () => ({ startSpan: failing, startActiveSpan: failing }) },
    })
    // The first value of a gauge is recorded by whoever enables it.
    expect(() => instrumentation.enable()).toThrow('SDK')
    broken.add = () => {}
    instrumentation.enable()
    onTestFinished(() => instrumentation.disable())
    broken.add = failing
    const { keys, key, store } = await start()
    expect(await keys.verify(key)).toMatchObject({ ok: true })
    expect(await keys.verify('x')).toMatchObject({ ok: false })
    store.fail('find', rejects(new Error('down')))
    await expect(keys.verify(forgeKey(key, { keyId: 'A'.repeat(16) }))).rejects.toMatchObject({
      code: 'unavailable',
    })
    await new Promise(setImmediate)
    expect(uncaught).toEqual([])
    expect(logged.length).toBeGreaterThan(3)
    expect(JSON.stringify(logged)).not.toContain(key)
  })

  it('verifies where the log of OpenTelemetry fails too', async () => {
    diag.setLogger(
      { error: failing, warn: failing, info: failing, debug: failing, verbose: failing },
      { suppressOverrideMessage: true },
    )
    instrument({ tracerProvider: { getTracer: () => ({ startSpan: failing, startActiveSpan: failing }) } })
    const { keys, key } = await start()
    expect(await keys.verify(key)).toMatchObject({ ok: true })
  })

  it('ends the spans of verifications under way when it is disabled', async () => {
    const { spans, instrumentation } = instrument()
    const { keys, key, store } = await start()
    const held = store.hold('find')
    const verifying = keys.verify(key)
    await held.reached
    instrumentation.disable()
    expect(spans.getFinishedSpans()).toHaveLength(1)
    held.release()
    expect(await verifying).toMatchObject({ ok: true })
    expect(spans.getFinishedSpans()).toHaveLength(1)
  })
})

describe('options', () => {
  it.each([
    [{ meterProvider: {} }, '"meterProvider"'],
    [{ tracerProvider: { getTracer: 1 } }, '"tracerProvider"'],
    [{ spans: 'yes' }, '"spans" must be'],
    [{ enabled: 1 }, '"enabled" must be'],
  ])('refuses %j', (config, message) => {
    expect(() => new LatchkeyInstrumentation(config as never)).toThrow(message)
  })

  it('has the name and the version of the package', () => {
    const { name, version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
    const made = new LatchkeyInstrumentation({ enabled: false })
    expect([made.instrumentationName, made.instrumentationVersion]).toEqual([name, version])
  })

  it('records nothing before it is enabled, once while it is, and nothing after', async () => {
    const { points, instrumentation } = instrument({ enabled: false })
    const { keys, key } = await start()
    await keys.verify(key)
    expect(await points('latchkey.verify.duration')).toEqual([])
    instrumentation.enable()
    instrumentation.enable()
    await keys.verify(key)
    expect(await points('latchkey.verify.duration')).toMatchObject([{ is: 1 }])
    instrumentation.disable()
    await keys.verify(key)
    expect(await points('latchkey.verify.duration')).toMatchObject([{ is: 1 }])
  })

  it('makes no spans with spans: false, and still records metrics', async () => {
    const { points, spans } = instrument({ spans: false })
    const { keys, key } = await start()
    await keys.verify(key)
    expect(spans.getFinishedSpans()).toEqual([])
    expect(await points('latchkey.verify.duration')).toMatchObject([{ is: 1 }])
  })

  it('takes what setConfig says', async () => {
    const { spans, instrumentation } = instrument()
    instrumentation.setConfig({ spans: false })
    expect(instrumentation.getConfig()).toMatchObject({ enabled: true, spans: false })
    const { keys, key } = await start()
    await keys.verify(key)
    expect(spans.getFinishedSpans()).toEqual([])
  })

  it('is registered as every other instrumentation is', async () => {
    const { meterProvider, tracerProvider, points, spans } = startSdk()
    const instrumentations = [new LatchkeyInstrumentation()]
    const unregister = registerInstrumentations({ instrumentations, meterProvider, tracerProvider })
    const { keys, key } = await start()
    await keys.verify(key)
    expect(await points('latchkey.verify.duration')).toMatchObject([{ is: 1 }])
    expect(spans.getFinishedSpans()).toHaveLength(1)
    unregister()
    await keys.verify(key)
    expect(spans.getFinishedSpans()).toHaveLength(1)
  })

  it('finds the global providers', async () => {
    const { meterProvider, tracerProvider, points, spans } = startSdk()
    metrics.setGlobalMeterProvider(meterProvider)
    trace.setGlobalTracerProvider(tracerProvider)
    const instrumentation = new LatchkeyInstrumentation()
    onTestFinished(() => instrumentation.disable())
    const { keys, key } = await start()
    await keys.verify(key)
    expect(await points('latchkey.verify.duration')).toMatchObject([{ is: 1 }])
    expect(spans.getFinishedSpans()).toHaveLength(1)
  })
})

describe('metrics', () => {
  it('count verifications by outcome, step and reason', async () => {
    const { points } = instrument()
    const { keys, key, store } = await start()
    await keys.verify(key)
    await keys.verify(key)
    await keys.verify('x')
    await keys.verify(key, { permissions: { projects: ['read'] } })
    store.fail('find', rejects(new Error('down')))
    await keys.verify(forgeKey(key, { keyId: 'A'.repeat(16) })).catch(() => {})
    const named = (outcome: string, rest: object, is: number) => ({
      'latchkey.verify.outcome': outcome,
      ...rest,
      is,
    })
    expect(await points('latchkey.verify.duration')).toEqual([
      named('admitted', {}, 2),
      named('invalid_key', { 'latchkey.verify.step': 'parse', 'latchkey.verify.reason': 'malformed' }, 1),
      named('insufficient_permissions', { 'latchkey.verify.step': 'permissions' }, 1),
      named('unavailable', { 'latchkey.verify.step': 'record', 'error.type': 'unavailable' }, 1),
    ])
  })

  it('measure in seconds, with bounds that tell microseconds from milliseconds', async () => {
    const { collect } = instrument()
    const { keys, key } = await start()
    await keys.verify(key)
    const [verify] = (await collect()).filter(
      ({ descriptor }) => descriptor.name === 'latchkey.verify.duration',
    )
    expect(verify?.descriptor.unit).toBe('s')
    const [point] = (verify?.dataPoints ?? []) as DataPoint<Histogram>[]
    expect(point?.value.max).toBeLessThan(5)
    expect(point?.value.buckets.boundaries.slice(0, 2)).toEqual([0.000_01, 0.000_025])
  })

  it('measure the store, the limiter, the memory and the writes of uses', async () => {
    const { points } = instrument()
    const inner = memoryRateLimiter()
    const rateLimiter: RateLimiter = { ...inner, timeoutMs: 100, check: async (asked) => inner.check(asked) }
    const { keys, key, store, clock } = await start({ rateLimiter })
    await keys.verify(key)
    await keys.verify(key)
    await clock.advance(3_000)
    await keys.flush()
    store.fail('find', answers({}))
    await keys.verify(forgeKey(key, { keyId: 'A'.repeat(16) })).catch(() => {})
    const told = await points('latchkey.dependency.duration')
    const expected = (name: string, method: string, outcome: string, is: number, rest = {}) => ({
      'latchkey.dependency.name': name,
      'latchkey.dependency.method': method,
      'latchkey.dependency.outcome': outcome,
      ...rest,
      is,
    })
    expect(told).toContainEqual(expected('store', 'insert', 'ok', 1))
    expect(told).toContainEqual(expected('store', 'find', 'ok', 1))
    expect(told).toContainEqual(expected('store', 'find', 'failed', 1, { 'error.type': 'failed' }))
    expect(told).toContainEqual(expected('rate_limiter', 'check', 'ok', 2))
    expect(await points('latchkey.cache.lookups')).toEqual([
      { 'latchkey.cache.result': 'miss', is: 2 },
      { 'latchkey.cache.result': 'hit', is: 1 },
    ])
    expect(await points('latchkey.faults')).toEqual([
      { 'latchkey.dependency.name': 'store', 'error.type': 'malformed_record', is: 1 },
    ])
    const lags = await points('latchkey.usage.lag')
    expect(lags).toEqual(
      expect.arrayContaining([
        { 'latchkey.usage.kind': 'last_use', 'latchkey.usage.outcome': 'written', is: 2 },
        { 'latchkey.usage.kind': 'counts', 'latchkey.usage.outcome': 'written', is: 1 },
      ]),
    )
    expect(lags).toHaveLength(2)
  })

  it('show a suspended limiter as 1, and 0 from the start; none that was suspended before is taken off', async () => {
    let tell: (event: never) => void = () => {}
    const listen = (listener: typeof tell) => {
      tell = listener
      return () => {}
    }
    createTestKeys({ rateLimiter: { ...memoryRateLimiter(), listen } as RateLimiter })
    const { points } = instrument()
    const seen = async () => (await points('latchkey.rate_limiter.suspended')).map(({ is }) => is)
    expect(await seen()).toEqual([0])
    tell({ type: 'resumed', afterMs: 5 } as never)
    expect(await seen()).toEqual([0])
    tell({ type: 'suspended', error: new Error('down') } as never)
    expect(await seen()).toEqual([1])
    tell({ type: 'resumed', afterMs: 5 } as never)
    expect(await seen()).toEqual([0])
  })

  it('have no attribute that names a key, its owner or an address, and few values of each', async () => {
    const { collect, spans } = instrument()
    const { keys, store } = createTestKeys()
    const secrets: string[] = ['203.0.113.', ALICE.id]
    for (let i = 0; i < 50; i++) {
      const owner = { type: `type-${i}`, id: `owner-${i}` }
      const { key, apiKey } = await keys.issue({
        owner,
        name: `name-${i}`,
        metadata: { tenant: `tenant-${i}` },
      })
      const ip = `203.0.113.${i}`
      await keys.verify(key, { ip, permissions: { [`resource-${i}`]: ['read'] } })
      await keys.verify(key, { ip })
      await keys.verify(forgeKey(key, { secret: 'A'.repeat(43) }), { ip, prefix: `prefix${i}` })
      store.fail('find', rejects(new Error(`no connection for ${key}`)))
      await keys.verify(forgeKey(key, { keyId: `${i}`.padStart(16, '0') })).catch(() => {})
      store.heal()
      secrets.push(
        key,
        apiKey.id,
        owner.id,
        owner.type,
        `name-${i}`,
        `tenant-${i}`,
        `resource-${i}`,
        `prefix${i}`,
      )
    }
    const metricPoints = (await collect()).flatMap(({ dataPoints }) => dataPoints as { attributes: object }[])
    const spanAttributes = spans.getFinishedSpans().map(({ attributes, events, status, name }) => ({
      attributes,
      events,
      status,
      name,
    }))
    const text = JSON.stringify([metricPoints.map(({ attributes }) => attributes), spanAttributes])
    for (const secret of secrets) expect(text).not.toContain(secret)
    // A series for each combination that there is, however many keys there are.
    expect(metricPoints.length).toBeLessThan(30)
    expect(spanAttributes).toHaveLength(200)
  })
})

describe('spans', () => {
  it('are children of the active span, and active while the store is asked', async () => {
    const { spans, tracerProvider } = instrument()
    const tracer = tracerProvider.getTracer('application')
    const { keys, key, store } = await start()
    store.fail('find', (work) => {
      tracer.startSpan('find').end()
      return work()
    })
    const root = tracer.startSpan('request')
    await context.with(trace.setSpan(context.active(), root), async () => {
      await keys.verify(key)
      // Nothing of it stays active.
      expect(trace.getActiveSpan()).toBe(root)
    })
    root.end()
    const byName = new Map(spans.getFinishedSpans().map((span) => [span.name, span]))
    const verify = byName.get('latchkey.verify')
    expect(verify?.parentSpanContext?.spanId).toBe(root.spanContext().spanId)
    expect(byName.get('find')?.parentSpanContext?.spanId).toBe(verify?.spanContext().spanId)
    expect(verify?.attributes).toEqual({ 'latchkey.verify.outcome': 'admitted' })
    expect(verify?.status.code).toBe(SpanStatusCode.UNSET)
  })

  it('have an error as their status where Latchkey failed, and none where a key was refused', async () => {
    const { spans } = instrument()
    const { keys, key, store } = await start()
    await keys.verify(forgeKey(key, { secret: 'A'.repeat(43) }))
    store.fail('find', rejects(new Error('down')))
    await keys.verify(forgeKey(key, { keyId: 'A'.repeat(16) })).catch(() => {})
    expect(spans.getFinishedSpans().map(({ status, attributes }) => [status.code, attributes])).toEqual([
      [
        SpanStatusCode.UNSET,
        {
          'latchkey.verify.outcome': 'invalid_key',
          'latchkey.verify.step': 'digest',
          'latchkey.verify.reason': 'wrong_secret',
        },
      ],
      [
        SpanStatusCode.ERROR,
        {
          'latchkey.verify.outcome': 'unavailable',
          'latchkey.verify.step': 'record',
          'error.type': 'unavailable',
        },
      ],
    ])
  })

  it('belong each to its own request, where requests cross', async () => {
    const { spans, tracerProvider } = instrument()
    const tracer = tracerProvider.getTracer('application')
    const { keys, key } = await start({ store: recordingStore() })
    const roots = Array.from({ length: 5 }, (_, i) => tracer.startSpan(`request ${i}`))
    await Promise.all(
      roots.map((root, i) =>
        context.with(trace.setSpan(context.active(), root), () =>
          i % 2 === 0 ? keys.verify(key) : keys.verify(`x${i}`),
        ),
      ),
    )
    const parents = spans.getFinishedSpans().map((span) => span.parentSpanContext?.spanId)
    expect(parents.sort()).toEqual(roots.map((root) => root.spanContext().spanId).sort())
  })
})
