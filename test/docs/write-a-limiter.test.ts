import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { memoryRateLimiter, type RateLimiter } from 'latchkey'
import { fakeClock, limiterConformance } from 'latchkey/testing'
import { describe, expect, it, test } from 'vitest'
import { readCodeBlocks } from '../support/markdown.ts'
import { runBlock } from '../support/run-block.ts'

const guide = readFileSync(new URL('../../docs/write-a-limiter.md', import.meta.url), 'utf8')
const [, example = ''] = readCodeBlocks(guide).map(({ text }) => text)

type MakeSharded = (shards: readonly RateLimiter[]) => RateLimiter

/** The limiter of the guide over three shards, with some of its text replaced. */
async function sharded(change: (code: string) => string = (code) => code) {
  const code = change(example.replace('export ', ''))
  const { shardedLimiter } = await runBlock(code, {}, ['shardedLimiter'])
  return () => {
    const clock = fakeClock()
    const shards = [1, 2, 3].map(() => memoryRateLimiter({ clock }))
    return { limiter: (shardedLimiter as MakeSharded)(shards), clock }
  }
}

describe('the limiter of the guide', async () => {
  limiterConformance({ test, assert, runs: 10 }, await sharded())
})

describe('the guide', () => {
  it.each([
    ['owner ?? lineageId', 'lineageId', "an owner's limit counts all keys of the owner"],
    [
      '[shardOf(mark), shardOf(alone)]',
      '[shardOf(mark)]',
      'raiseVersions with an owner reaches calls with and without that owner',
    ],
  ])('says what the kit finds in a limiter without %s', async (part, fault, message) => {
    expect(example).toContain(part)
    const make = await sharded((code) => code.replace(part, fault))
    const tests: (() => Promise<void>)[] = []
    limiterConformance({ test: (_name, run) => tests.push(run), assert, runs: 1 }, make)
    const outcomes = await Promise.allSettled(tests.map((run) => run()))
    expect(
      outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [`${outcome.reason}`] : [])),
    ).toContainEqual(expect.stringContaining(message))
    expect(guide.replaceAll('\n', ' ')).toContain(`"${message}"`)
  })
})
