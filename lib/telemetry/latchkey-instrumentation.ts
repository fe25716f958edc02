import { type MeterProvider, metrics, type TracerProvider, trace } from '@opentelemetry/api'
import { checkBoolean, checkMethods, checkObject } from '../internal/options.ts'
import { recordMetrics } from './record-metrics.ts'
import { recordSpans } from './record-spans.ts'

/** What to record, and where. */
export interface LatchkeyInstrumentationOptions {
  /**
   * Whether to record from the start. Otherwise call `enable()`.
   *
   * @default true
   */
  enabled?: boolean
  /**
   * Makes a span for each verification, a child of the active one. Metrics are recorded in any case.
   *
   * @default true
   */
  spans?: boolean
  /**
   * Where to record metrics.
   *
   * @default the global one
   */
  meterProvider?: MeterProvider
  /**
   * Where to record spans.
   *
   * @default the global one
   */
  tracerProvider?: TracerProvider
}

const OPTIONS = ['enabled', 'spans', 'meterProvider', 'tracerProvider']
const NAME = 'latchkey'
const VERSION = '0.3.0'

/**
 * Records metrics and spans of everything in this process that verifies keys. Make it once. It is an instrumentation as
 * `registerInstrumentations` and `NodeSDK` take them; without these, give it the providers, or make it once the SDK has started.
 *
 * No attribute holds a key, the id of a key, an owner or an address. An error of the SDK never reaches a verification.
 *
 * @throws TypeError when an option is wrong or unknown, naming it.
 * @example
 * const meterProvider = new MeterProvider({ readers: [new PrometheusExporter()] })
 * const instrumentation = new LatchkeyInstrumentation({ meterProvider })
 * process.once('SIGTERM', () => instrumentation.disable())
 */
export class LatchkeyInstrumentation {
  readonly instrumentationName = NAME
  readonly instrumentationVersion = VERSION
  private config: LatchkeyInstrumentationOptions
  private meterProvider: MeterProvider | undefined
  private tracerProvider: TracerProvider | undefined
  /** What ends the recording; empty while nothing is recorded. */
  private recordings: readonly (() => void)[] = []

  constructor(config: LatchkeyInstrumentationOptions = {}) {
    this.config = checkConfig(config)
    this.meterProvider = config.meterProvider
    this.tracerProvider = config.tracerProvider
    if (this.config.enabled) this.enable()
  }

  /** Begins to record. Does nothing if it already does. */
  enable(): void {
    if (this.recordings.length > 0) return
    const meter = (this.meterProvider ?? metrics.getMeterProvider()).getMeter(NAME, VERSION)
    const tracer = (this.tracerProvider ?? trace.getTracerProvider()).getTracer(NAME, VERSION)
    this.recordings = this.config.spans ? [recordMetrics(meter), recordSpans(tracer)] : [recordMetrics(meter)]
  }

  /** Ends the recording, and the spans of verifications under way. Does nothing if nothing is recorded. */
  disable(): void {
    for (const end of this.recordings) end()
    this.recordings = []
  }

  /** Records metrics there from now on. */
  setMeterProvider(meterProvider: MeterProvider): void {
    this.meterProvider = meterProvider
    this.restart()
  }

  /** Records spans there from now on. */
  setTracerProvider(tracerProvider: TracerProvider): void {
    this.tracerProvider = tracerProvider
    this.restart()
  }

  /** Replaces the configuration. Members that are left out get their default; providers that were given stay. */
  setConfig(config: LatchkeyInstrumentationOptions): void {
    this.config = checkConfig(config)
    this.meterProvider = config.meterProvider ?? this.meterProvider
    this.tracerProvider = config.tracerProvider ?? this.tracerProvider
    this.restart()
  }

  /** The configuration, with its defaults. */
  getConfig(): LatchkeyInstrumentationOptions {
    return this.config
  }

  private restart(): void {
    if (this.recordings.length === 0) return
    this.disable()
    this.enable()
  }
}

function checkConfig(config: LatchkeyInstrumentationOptions): LatchkeyInstrumentationOptions {
  checkObject('config', config, OPTIONS)
  const { enabled = true, spans = true, meterProvider, tracerProvider } = config
  if (meterProvider !== undefined) checkMethods('meterProvider', meterProvider, ['getMeter'])
  if (tracerProvider !== undefined) checkMethods('tracerProvider', tracerProvider, ['getTracer'])
  return Object.freeze({
    ...config,
    enabled: checkBoolean('enabled', enabled),
    spans: checkBoolean('spans', spans),
  })
}
