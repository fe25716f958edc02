import assert from 'node:assert/strict'
import { memoryRateLimiter } from 'latchkey'
import { fakeClock, limiterConformance } from 'latchkey/testing'
import { test } from 'vitest'
import { times } from '../support/long-run.ts'

const runs = Number(process.env.MODEL_RUNS ?? times({ short: 100, soak: 1_000, long: 10_000 }))
const seed = process.env.MODEL_SEED === undefined ? {} : { seed: Number(process.env.MODEL_SEED) }

limiterConformance({ test, assert, runs, ...seed }, () => {
  const clock = fakeClock()
  return { limiter: memoryRateLimiter({ clock }), clock }
})
