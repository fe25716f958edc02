import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')
const readme = read('README.md')
const bench = read('bench/README.md')
const report = JSON.parse(read('bench/results.json'))

interface CheckFigures {
  oneTimesAsFast: { median: number }
  threeTimesAsFast: { median: number }
}

/** How the page calls what the report calls otherwise. */
const LISTS = [
  ['all keys', 'all'],
  ["an owner's", 'owner'],
  ['the same, after a cursor', 'owner, later'],
  ['those that somebody issued', 'creator'],
  ['of one name', 'name'],
  ['active ones', 'active'],
  ["an owner's active ones", 'owner, active'],
  ['revoked ones, after a cursor', 'revoked, later'],
  ['expired ones', 'expired'],
  ['of ten owners', 'several owners'],
] as const

describe('the figures of the last report', () => {
  it('are those of the README', () => {
    const speed = readme.slice(readme.indexOf('## Speed'), readme.indexOf('## In this repository'))
    const figures = [...speed.matchAll(/[\d.]+ %/g)].map(([figure]) => figure)
    const targets = [report.http.targets.middleware, report.redis.http.targets['redis-latchkey']]
    expect(figures).toEqual(targets.map(({ addedPercent }) => `${addedPercent.median.toFixed(1)} %`))
  })

  it('are those of the page about benchmarks', () => {
    const speed = bench.slice(bench.indexOf('## The last report'), bench.indexOf('## What is compared'))
    const percentOf = (target: string) => `${report.http.targets[target].addedPercent.median.toFixed(1)} % |`
    for (const target of ['middleware', 'koa-middleware', 'strategy', 'headerapikey', 'empty']) {
      expect(speed).toContain(percentOf(target))
    }
    const redis = report.redis.http.targets
    for (const target of ['redis-latchkey', 'redis-latchkey-three', 'redis-headerapikey']) {
      expect(speed).toContain(`${redis[target].addedPercent.median.toFixed(1)} % |`)
    }
    for (const [concurrent, figures] of Object.entries<CheckFigures>(report.redis.check)) {
      const [one, three] = [
        figures.oneTimesAsFast.median.toFixed(2),
        figures.threeTimesAsFast.median.toFixed(2),
      ]
      expect(speed).toContain(`| ${concurrent} | ${one} | ${three} |`)
    }
    const { cold, import: imported, peer } = report.stores
    for (const [name, figures] of [
      ['SQLite', cold.sqlite],
      ['PostgreSQL', cold.postgres],
    ]) {
      const [small, large] = ['1000', '1000000'].map((size) => figures.sizes[size].p50Us.median.toFixed(0))
      const times = figures.largestInSmallest.median.toFixed(2)
      expect(speed).toContain(`| ${name} | ${small} µs | ${large} µs | ${times} times |`)
    }
    const { lists } = report.list
    for (const [label, name] of LISTS) {
      const { sizes, largestInSmallest } = lists[name]
      const [small, large] = ['1000', '1000000'].map((size) => (sizes[size].p50Us.median / 1_000).toFixed(1))
      const times = largestInSmallest.median.toFixed(2)
      expect(speed).toContain(`| ${label} | ${small} ms | ${large} ms | ${times} times |`)
      expect(sizes['1000000'].statements).toBe(1)
    }
    for (const share of [peer.cpuShare, peer.cpuShareWithRedis]) {
      expect(speed).toContain(`${(100 * share.median).toFixed(1)} %`)
    }
    for (const { keysPerSecond } of [imported.sqlite, imported.postgres]) {
      expect(speed).toContain(Math.round(keysPerSecond.median).toLocaleString('en-US'))
    }
    expect(peer.subjects.latchkey.writesPerCall).toBe(0)
    expect(speed).toContain(`${report.verify.verifyInHashes.median.toFixed(1)} times`)
    expect(speed).toContain(`${report.verify.verifyRemoteInLocal.median.toFixed(2)} times a local one`)
    expect(speed).toContain(`${Math.round(report.memory.bytesPerCachedRecord).toLocaleString('en-US')} bytes`)
    for (const part of ['http', 'verify', 'redis', 'stores', 'list']) {
      expect(report[part].rounds, part).toBeGreaterThanOrEqual(25)
    }
  })
})
