import { PrometheusExporter } from '@opentelemetry/exporter-prometheus'
import { MeterProvider } from '@opentelemetry/sdk-metrics'
import { LatchkeyInstrumentation } from 'latchkey/opentelemetry'

export interface Telemetry {
  /** What Prometheus reads, as `GET /metrics` answers. */
  readonly exporter: PrometheusExporter
  close(): Promise<void>
}

/** Records the metrics of Latchkey, and serves them to Prometheus on a port of its own. */
export async function startTelemetry(port: number, host: string): Promise<Telemetry> {
  const exporter = new PrometheusExporter({ port, host, preventServerStart: true, withoutScopeInfo: true })
  const meterProvider = new MeterProvider({ readers: [exporter] })
  const instrumentation = new LatchkeyInstrumentation({ meterProvider, spans: false })
  await exporter.startServer()
  return {
    exporter,
    async close() {
      instrumentation.disable()
      // It stops the server too.
      await meterProvider.shutdown()
    },
  }
}
