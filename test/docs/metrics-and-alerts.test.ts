import { readFileSync } from 'node:fs'
import type { Attributes } from '@opentelemetry/api'
import { beforeAll, describe, expect, it, vi } from 'vitest'
import { recordMetrics } from '../../lib/telemetry/record-metrics.ts'
import { type PublicTypes, readPublicTypes } from '../support/compiler.ts'
import { codeIn, readTable } from '../support/markdown.ts'
import { byName, declaredOptions, listedOptions } from '../support/option-table.ts'

// A compiler is slow where much else runs.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

const page = readFileSync(new URL('../../docs/metrics-and-alerts.md', import.meta.url), 'utf8')

describe('the guide to metrics', () => {
  let main: PublicTypes
  beforeAll(() => {
    main = readPublicTypes('latchkey')
  })
  const sorted = (values: readonly (string | undefined)[]) => [...values].sort()
  const valuesOf = (attribute: string) =>
    codeIn(readTable(page, 'attribute').find(([name]) => name === `\`${attribute}\``)?.[1] ?? '')

  it('lists every metric that is recorded, and its kind', () => {
    const made: string[][] = []
    const make = (kind: string) => (name: string, options: { unit?: string }) => {
      made.push([name, options.unit === 's' ? `${kind}, in seconds` : kind])
      return { add: (_change: number, _attributes?: Attributes) => {}, record: () => {} }
    }
    const meter = {
      createHistogram: make('histogram'),
      createCounter: make('counter'),
      createUpDownCounter: make('up-down counter'),
    }
    recordMetrics(meter as never)()
    const listed = readTable(page, 'metric').map(([name = '', kind]) => [...codeIn(name), kind])
    expect(listed).toEqual(made)
  })

  it('lists every value of an attribute', () => {
    expect(sorted(valuesOf('latchkey.verify.step'))).toEqual(sorted(main.literals('VerifyStep')))
    expect(valuesOf('latchkey.verify.outcome')).toEqual(
      expect.arrayContaining(['admitted', 'unavailable', 'failed']),
    )
    expect(sorted(valuesOf('latchkey.cache.result'))).toEqual(sorted(main.literals('CacheMessage', 'result')))
    expect(valuesOf('latchkey.usage.kind')).toEqual(
      expect.arrayContaining(main.literals('UsageMessage', 'kind')),
    )
    expect(sorted(valuesOf('latchkey.usage.outcome'))).toEqual(
      sorted(main.literals('UsageMessage', 'outcome')),
    )
    const outcomes = main.literals('DependencyMessage', 'outcome')
    expect(sorted(valuesOf('latchkey.dependency.outcome').slice(0, 3))).toEqual(sorted(outcomes))
  })

  it('lists every channel with the members of its message', () => {
    const channels = readTable(page, 'channel').map(([name = '', members = '']) => [codeIn(name)[0], members])
    const messages: Record<string, string> = {
      'latchkey:verify:start': 'VerifyStartMessage',
      'latchkey:verify': 'VerifyMessage',
      'latchkey:dependency': 'DependencyMessage',
      'latchkey:cache': 'CacheMessage',
      'latchkey:usage': 'UsageMessage',
      'latchkey:fault': 'FaultMessage',
      'latchkey:limiter': 'LimiterMessage',
    }
    expect(sorted(channels.map(([name]) => name))).toEqual(
      sorted(main.members('LatchkeyChannels').map(({ name }) => name)),
    )
    for (const [channel = '', listed = ''] of channels) {
      const members = main.members(messages[channel] ?? '').map(({ name }) => name)
      expect(codeIn(listed), channel).toEqual(expect.arrayContaining(members))
    }
  })

  it('lists every option with its default', () => {
    const members = readPublicTypes('latchkey/opentelemetry').members('LatchkeyInstrumentationOptions')
    expect(byName(listedOptions(page, 'option of `LatchkeyInstrumentation`'))).toEqual(
      byName(declaredOptions(members)),
    )
  })
})
