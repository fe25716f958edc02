import { PrometheusExporter, PrometheusSerializer } from '@opentelemetry/exporter-prometheus'
import { MeterProvider } from '@opentelemetry/sdk-metrics'
import { LatchkeyInstrumentation } from 'latchkey/opentelemetry'
import { onTestFinished } from 'vitest'

/** One line of what Prometheus reads. */
export interface Sample {
  /** Its name with its labels. */
  readonly series: string
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
  /** `counter`, `gauge` or `histogram`. */
  readonly kind: string
}

/** Records the metrics of this process until the test has ended, and shows them as Prometheus reads them. */
export function recordForPrometheus(): { scrape(): Promise<Sample[]> } {
  const exporter = new PrometheusExporter({ preventServerStart: true })
  const meterProvider = new MeterProvider({ readers: [exporter] })
  const instrumentation = new LatchkeyInstrumentation({ meterProvider, spans: false })
  onTestFinished(async () => {
    instrumentation.disable()
    await meterProvider.shutdown()
  })
  const serializer = new PrometheusSerializer('', false, undefined, true, true)
  return {
    async scrape() {
      const { resourceMetrics, errors } = await exporter.collect()
      if (errors.length > 0) throw new AggregateError(errors)
      return readSamples(serializer.serialize(resourceMetrics))
    },
  }
}

/** The samples of a page of metrics. */
export function readSamples(page: string): Sample[] {
  const kinds = new Map<string, string>()
  const samples: Sample[] = []
  for (const line of page.split('\n')) {
    const [, typed = '', kind = ''] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? []
    kinds.set(typed, kind)
    if (line === '' || line.startsWith('#')) continue
    const [, name = '', labels = '', value = ''] = /^([^\s{]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? []
    const family = name.replace(/_(?:bucket|count|sum)$/, '')
    samples.push({
      series: labels === '' ? name : `${name}{${labels}}`,
      name,
      labels: Object.fromEntries(
        [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, label, text]) => [label, text]),
      ),
      value: Number(value),
      kind: kinds.get(name) ?? kinds.get(family) ?? 'unknown',
    })
  }
  return samples
}
