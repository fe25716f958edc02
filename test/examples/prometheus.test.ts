import { readFileSync } from 'node:fs'
import { createApiKeys, memoryRateLimiter, memoryStore, type RateLimiter } from 'latchkey'
import { describe, expect, it, onTestFinished } from 'vitest'
import { parse } from 'yaml'
import { createApp } from '../../examples/prometheus/app.ts'
import { startTelemetry } from '../../examples/prometheus/telemetry.ts'
import { findFreePort } from '../support/free-port.ts'
import { codeIn, readTable } from '../support/markdown.ts'
import { readSamples } from '../support/prometheus-metrics.ts'
import { serve } from '../support/raw-http.ts'
import { NAME } from '../support/test-keys.ts'

const read = (name: string) =>
  readFileSync(new URL(`../../examples/prometheus/${name}`, import.meta.url), 'utf8')
const { groups } = parse(read('alerts.yml')) as { groups: [{ rules: { alert: string; expr: string }[] }] }
const [{ rules }] = groups

/** The application of the example with its metrics, where every kind of metric has been recorded. */
async function startExample() {
  const port = await findFreePort()
  const telemetry = await startTelemetry(port, '127.0.0.1')
  onTestFinished(() => telemetry.close())
  const inner = memoryRateLimiter()
  const rateLimiter: RateLimiter = { ...inner, timeoutMs: 100, check: async (asked) => inner.check(asked) }
  const keys = createApiKeys({ store: memoryStore(), rateLimiter, prefix: 'acme_live', onEvent: () => {} })
  const ask = await serve(createApp(keys))
  const { key } = await keys.issue(NAME)
  for (const one of [key, key, 'nope']) await ask('/projects', [`X-Api-Key: ${one}`])
  await keys.close()
  await ask('/projects', [`X-Api-Key: ${key}`])
  const metrics = async () => readSamples(await (await fetch(`http://127.0.0.1:${port}/metrics`)).text())
  return { metrics, key }
}

describe('the Prometheus example', () => {
  it('serves what it has recorded', async () => {
    const { metrics, key } = await startExample()
    const samples = await metrics()
    const counts = samples
      .filter(({ name }) => name === 'latchkey_verify_duration_count')
      .map(({ labels, value }) => [labels.latchkey_verify_outcome, value])
    expect(counts).toEqual([
      ['admitted', 2],
      ['invalid_key', 1],
      ['unavailable', 1],
    ])
    expect(JSON.stringify(samples)).not.toContain(key)
  })

  it('has alert rules about metrics and labels that there are', async () => {
    const { metrics } = await startExample()
    const samples = await metrics()
    const known = new Map(samples.map(({ name }) => [name, new Set<string>(['job', 'le'])]))
    for (const { name, labels } of samples) for (const label in labels) known.get(name)?.add(label)
    const asked = rules.flatMap(({ expr }) => [
      ...expr.matchAll(/(latchkey_\w+)(?:\{([^}]*)\})?(?=\[|\)| >)/g),
    ])
    expect(asked.length).toBeGreaterThanOrEqual(rules.length)
    for (const [, name = '', matchers = ''] of asked) {
      expect([...known.keys()]).toContain(name)
      for (const [, label = ''] of matchers.matchAll(/(\w+)=~?"/g)) {
        // Only a fault of one of Latchkey's own errors has a type.
        if (label !== 'error_type') expect([...(known.get(name) ?? [])], name).toContain(label)
      }
    }
  })

  it('says in its README when each alert fires', () => {
    const listed = readTable(read('README.md'), 'alert').flatMap(([name = '']) => codeIn(name))
    expect(listed).toEqual(rules.map(({ alert }) => alert))
  })

  it('loads the rules by the name they have', () => {
    expect(parse(read('prometheus.yml')).rule_files).toEqual(['alerts.yml'])
  })
})
