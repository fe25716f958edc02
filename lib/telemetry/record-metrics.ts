import type { Attributes, Meter } from '@opentelemetry/api'
import type { LatchkeyChannels, VerifyMessage } from '../core/diagnostics/messages.ts'
import { listen } from './listen.ts'

/** In seconds. A key whose record is in memory takes microseconds; whatever waits takes milliseconds. */
const DURATIONS = [
  0.000_01, 0.000_025, 0.000_1, 0.000_25, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5,
  10,
]
/** In seconds, from the default of `usage.flushMs` to an outage. */
const LAGS = [0.1, 1, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600]

/** Records the metrics of the table in the guide; returns what ends it. */
export function recordMetrics(meter: Meter): () => void {
  const instruments = createInstruments(meter)
  const suspension = createSuspensionCount(instruments.suspended)
  return listen({
    'latchkey:verify': (message) =>
      instruments.verifications.record(message.durationMs / 1_000, attributesOf(message)),
    'latchkey:dependency': ({ operation, method, outcome, durationMs }) =>
      instruments.dependencies.record(durationMs / 1_000, {
        'latchkey.dependency.name': operation,
        ...(method !== null && { 'latchkey.dependency.method': method }),
        'latchkey.dependency.outcome': outcome,
        ...(outcome !== 'ok' && { 'error.type': outcome }),
      }),
    'latchkey:cache': ({ result }) => instruments.lookups.add(1, { 'latchkey.cache.result': result }),
    'latchkey:usage': ({ kind, outcome, lagMs }) =>
      instruments.lags.record(lagMs / 1_000, {
        'latchkey.usage.kind': kind,
        'latchkey.usage.outcome': outcome,
      }),
    'latchkey:fault': ({ operation, code }) =>
      instruments.faults.add(1, {
        'latchkey.dependency.name': operation,
        ...(code !== null && { 'error.type': code }),
      }),
    'latchkey:limiter': suspension,
  })
}

function createInstruments(meter: Meter) {
  const seconds = (description: string, explicitBucketBoundaries: number[]) => ({
    description,
    unit: 's',
    advice: { explicitBucketBoundaries },
  })
  return {
    verifications: meter.createHistogram(
      'latchkey.verify.duration',
      seconds(
        'How long verifications of keys took, by outcome and by the step that refused or failed',
        DURATIONS,
      ),
    ),
    dependencies: meter.createHistogram(
      'latchkey.dependency.duration',
      seconds('How long the store, the rate limiter and other parts took to answer', DURATIONS),
    ),
    lookups: meter.createCounter('latchkey.cache.lookups', {
      description: 'How often the memory of this process was asked for the record of a key',
      unit: '{lookup}',
    }),
    lags: meter.createHistogram(
      'latchkey.usage.lag',
      seconds('How long the oldest use had waited when uses were written, or could not be', LAGS),
    ),
    faults: meter.createCounter('latchkey.faults', {
      description: 'Faults of the parts that Latchkey depends on, also those it recovered from',
      unit: '{fault}',
    }),
    suspended: meter.createUpDownCounter('latchkey.rate_limiter.suspended', {
      description: 'Rate limiters of this process that do not ask their server because it keeps failing',
      unit: '{limiter}',
    }),
  }
}

/** The attributes of a verification, in a metric and on a span. Each has few values. */
export function attributesOf({ outcome, step, reason }: VerifyMessage): Attributes {
  return {
    'latchkey.verify.outcome': outcome,
    ...(step !== null && { 'latchkey.verify.step': step }),
    ...(reason !== null && { 'latchkey.verify.reason': reason }),
    ...(isFault(outcome) && { 'error.type': outcome }),
  }
}

/** Whether Latchkey failed. A key that is refused is no error of the service. */
export function isFault(outcome: VerifyMessage['outcome']): boolean {
  return outcome === 'unavailable' || outcome === 'failed'
}

/** One that was suspended before the recording began is not counted, and must not be taken off. */
function createSuspensionCount(suspended: {
  add(change: number): void
}): (message: LatchkeyChannels['latchkey:limiter']) => void {
  let counted = 0
  // A series that exists from the start: an alert cannot tell one that is missing from a process that is down.
  suspended.add(0)
  return ({ state }) => {
    if (state === 'resumed' && counted === 0) return
    const change = state === 'suspended' ? 1 : -1
    counted += change
    suspended.add(change)
  }
}
